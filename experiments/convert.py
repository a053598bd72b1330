"""Converts weights of another framework to a checkpoint of autosplit's, or back.

    python -m experiments.convert --from=mobilenet_v2-b0353104.pth --model=mobilenet_v2 --to=DIR
    python -m experiments.convert --from=DIR --model=mobilenet_v2 --to=mobilenet_v2.safetensors

A file is read by its suffix: .pth .pt .pkl .th .safetensors (a state dict with torchvision's or
ultralytics' keys), .weights (darknet), .onnx (YOLOv3 of the ONNX model zoo), .json (Keras'
ResNet-50 for TensorFlow.js) or .tflite (float MobileNet-v1). What is written is a directory that
`autosplit.models.load_checkpoint` reads, or, where the target ends so, a state dict that PyTorch
loads strictly: .safetensors, or .pth and .pt where PyTorch is installed. It takes seconds.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import jax
from absl import app, flags, logging

from autosplit import converters, models
from autosplit.errors import AutosplitError, InputError
from experiments.steps import CLASSES, DETECTED_CLASSES, is_detector


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    names = sorted(models.MODELS)
    flags.DEFINE_string("from", None, "File of weights, or checkpoint directory.", required=True)
    flags.DEFINE_enum("model", None, names, "Network of the weights.", required=True)
    flags.DEFINE_string(
        "to", None, "Directory, or .safetensors, .pth or .pt file; must not exist.", required=True
    )
    flags.DEFINE_integer(
        "num_classes",
        None,
        f"Classes that the network tells; by default {CLASSES}, of a detector {DETECTED_CLASSES}.",
        lower_bound=1,
    )


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    model_name: str,
    num_classes: int = CLASSES,
) -> models.Checkpoint:
    """Reads weights and writes them in the form that the target's suffix names.

    Args:
      source: file that `autosplit.converters.load_weights` reads, or a directory that this
        function wrote.
      target: file with one of `autosplit.converters.STATE_DICT_SUFFIXES`, else a directory;
        must not exist.
      model_name: key of `autosplit.models.MODELS`.
      num_classes: length of a classifier's output, or number of a detector's classes.

    Returns:
      What was written.

    Raises:
      AutosplitError: the source cannot be read or does not fit, or the target exists.
    """
    target = pathlib.Path(target)
    if target.exists():
        raise InputError(f"{target} exists; expected a new path. Remove it or choose another.")
    checkpoint = _read(pathlib.Path(source), model_name, num_classes)
    if target.suffix in converters.STATE_DICT_SUFFIXES:
        converters.write_state_dict(target, converters.to_state_dict(checkpoint.variables))
    else:
        models.save_checkpoint(target, checkpoint)
    return checkpoint


def _read(source: pathlib.Path, model_name: str, num_classes: int) -> models.Checkpoint:
    if not source.is_dir():
        variables = converters.load_weights(source, model_name, num_classes)
        return models.Checkpoint(
            model_name=model_name, num_classes=num_classes, variables=variables
        )
    checkpoint = models.load_checkpoint(source)
    found = (checkpoint.model_name, checkpoint.num_classes)
    if found != (model_name, num_classes):
        raise InputError(
            f"{source} holds {found[0]} with {found[1]} classes; expected {model_name} with "
            f"{num_classes}. Make --model and --num_classes agree with it."
        )
    return checkpoint


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step that it takes
    values = flags.FLAGS
    default = DETECTED_CLASSES if is_detector(values.model) else CLASSES
    num_classes = values.num_classes or default
    try:
        checkpoint = convert_file(getattr(values, "from"), values.to, values.model, num_classes)
    except AutosplitError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    count = sum(leaf.size for leaf in jax.tree.leaves(checkpoint.variables["params"]))
    print(f"wrote {values.to}: {values.model}, {count:,} parameters")


if __name__ == "__main__":
    define_flags()
    app.run(main)
