"""Converts a PyTorch checkpoint to a directory that autosplit reads.

    python -m experiments.convert --from=mobilenet_v2-b0353104.pth --model=mobilenet_v2 --to=DIR

PyTorch need not be installed. It takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from absl import app, flags, logging

from autosplit import converters, models
from autosplit.errors import AutosplitError

_FROM = flags.DEFINE_string(
    "from", None, "Checkpoint: .pth, .pt, .pkl or .safetensors.", required=True
)
_TO = flags.DEFINE_string("to", None, "Directory to write; must not exist.", required=True)
_MODEL = flags.DEFINE_enum(
    "model", None, sorted(models.MODELS), "Network of the checkpoint.", required=True
)
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 1000, "Length of the network's output.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    template = models.variable_shapes(models.create_model(_MODEL.value, _NUM_CLASSES.value))
    try:
        checkpoint = models.Checkpoint(
            model_name=_MODEL.value,
            num_classes=_NUM_CLASSES.value,
            variables=converters.convert(converters.read_state_dict(_FROM.value), template),
        )
        models.save_checkpoint(_TO.value, checkpoint)
    except AutosplitError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    count = sum(leaf.size for leaf in jax.tree.leaves(checkpoint.variables["params"]))
    logging.info("wrote %s: %s, %d parameters", _TO.value, _MODEL.value, count)


if __name__ == "__main__":
    app.run(main)
