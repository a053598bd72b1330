"""Converts a PyTorch checkpoint to a directory that `autosplit.models.load_checkpoint` reads.

    python -m experiments.convert --from mobilenet_v2-b0353104.pth --model mobilenet_v2 --to DIR

PyTorch need not be installed. It takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
from absl import app, flags

from autosplit import converters, models
from autosplit.errors import AutosplitError


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    names = sorted(models.MODELS)
    flags.DEFINE_string("from", None, ".pth, .pt, .pkl or .safetensors.", required=True)
    flags.DEFINE_enum("model", None, names, "Network of the checkpoint.", required=True)
    flags.DEFINE_string("to", None, "Directory to write; must not exist.", required=True)
    flags.DEFINE_integer("num_classes", 1000, "Length of the network's output.", lower_bound=1)


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    model_name: str,
    num_classes: int = 1000,
) -> models.Checkpoint:
    """Reads a PyTorch checkpoint and writes one of `autosplit.models`.

    Args:
      source: file to read.
      target: directory to write; must not exist.
      model_name: key of `autosplit.models.MODELS`.
      num_classes: length of the network's output.

    Returns:
      What was written.

    Raises:
      AutosplitError: the file cannot be read or does not fit, or the target exists.
    """
    template = models.variable_shapes(models.create_model(model_name, num_classes))
    checkpoint = models.Checkpoint(
        model_name=model_name,
        num_classes=num_classes,
        variables=converters.convert(converters.read_state_dict(source), template),
    )
    models.save_checkpoint(target, checkpoint)
    return checkpoint


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    values = flags.FLAGS
    try:
        checkpoint = convert_file(
            getattr(values, "from"), values.to, values.model, values.num_classes
        )
    except AutosplitError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    count = sum(leaf.size for leaf in jax.tree.leaves(checkpoint.variables["params"]))
    print(f"wrote {values.to}: {values.model}, {count:,} parameters")


if __name__ == "__main__":
    define_flags()
    app.run(main)
