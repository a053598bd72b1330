"""The layers on which the systolic counts are compared with SCALE-Sim, and its answers.

    python -m experiments.scalesim_reference --workdir=build/scalesim

runs the real SCALE-Sim on all of them, some five minutes, and writes `GOLDEN`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from autosplit.files import write_text
from experiments.scalesim_run import REQUIREMENT, make_environment, run_scalesim

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "hardware" / "scalesim_golden.json"
DATAFLOWS = ("os", "ws", "is")

# Name, input height and width, kernel height and width, channels, filters, strides. Inputs
# include the padding, which SCALE-Sim does not know.
SHAPES = {
    "tiny": ["tiny", 3, 3, 3, 3, 2, 3, 1, 1],
    "one": ["one", 1, 1, 1, 1, 1, 1, 1, 1],
    "square": ["square", 12, 12, 3, 3, 8, 20, 1, 1],
    "strided": ["strided", 15, 14, 3, 3, 5, 9, 2, 2],
    "cut_window": ["cut_window", 10, 9, 3, 2, 6, 11, 2, 3],
    "uneven_strides": ["uneven_strides", 13, 11, 3, 5, 4, 7, 1, 2],
    "wide_stride": ["wide_stride", 11, 14, 2, 2, 9, 13, 4, 3],
    "pointwise": ["pointwise", 9, 9, 1, 1, 70, 45, 1, 1],
    "strided_pointwise": ["strided_pointwise", 14, 14, 1, 1, 40, 33, 2, 2],
    "tall": ["tall", 60, 3, 5, 1, 3, 10, 1, 1],
    "wide": ["wide", 2, 70, 1, 7, 3, 10, 1, 1],
    "dense": ["dense", 1, 1, 1, 1, 300, 77, 1, 1],
    "rows": ["rows", 50, 1, 1, 1, 64, 64, 1, 1],
    "many_filters": ["many_filters", 4, 4, 1, 1, 48, 300, 1, 1],
    "long_window": ["long_window", 7, 7, 5, 5, 30, 12, 1, 1],
    "exact_folds": ["exact_folds", 8, 8, 1, 1, 32, 32, 1, 1],
    "apart": ["apart", 12, 12, 3, 3, 16, 20, 1, 1],
    "depthwise_DP": ["depthwise_DP", 10, 10, 3, 3, 6, 1, 1, 1],
}
SMALL = [shape for name, shape in SHAPES.items() if name != "depthwise_DP"]
# Layers of published networks: AlexNet's first, and of ResNet-50.
PUBLISHED = [
    ["alexnet_conv1", 224, 224, 11, 11, 3, 96, 4, 4],
    ["resnet50_conv2_1x1", 56, 56, 1, 1, 64, 64, 1, 1],
    ["resnet50_conv4_3x3", 16, 16, 3, 3, 256, 256, 1, 1],
    ["resnet50_conv5_1x1", 7, 7, 1, 1, 512, 2048, 1, 1],
    ["resnet50_fc", 1, 1, 1, 1, 2048, 1000, 1, 1],
]
ALEXNET_CONV1 = PUBLISHED[0]


def request(
    array: Sequence[int], sram_kib: Sequence[int], layers: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Returns what `run_scalesim` runs, but for the dataflow."""
    return {"array": list(array), "sram_kib": list(sram_kib), "layers": list(layers)}


# Small enough to be run anew in two minutes. The buffers of 1 to 4 KiB overflow in most.
QUICK = [
    request((7, 5), (1, 1, 1), SMALL),
    request((1, 8), (2, 1, 1), SMALL[:8]),
    request((8, 1), (1, 2, 1), SMALL[:8]),
    request((12, 14), (36, 36, 36), SMALL),
    request((16, 4), (1, 1, 1), SMALL),
    request((32, 32), (64, 64, 64), SMALL),
    request((3, 11), (4, 3, 2), [SHAPES["many_filters"], SHAPES["depthwise_DP"]]),
    request((256, 256), (6144, 6144, 2048), [SHAPES["tiny"], SHAPES["pointwise"]]),
]
SLOW = [
    request((256, 256), (6144, 6144, 2048), PUBLISHED[2:]),
    request((12, 14), (36, 36, 36), PUBLISHED[1:2]),
    request((32, 32), (64, 64, 64), PUBLISHED[:1] + PUBLISHED[2:]),
]


def with_dataflows(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each request once per dataflow."""
    return [one | {"dataflow": dataflow} for one in requests for dataflow in DATAFLOWS]


def main(argv: Sequence[str]) -> None:
    """Reads the flag, runs SCALE-Sim and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    python = make_environment(pathlib.Path(flags.FLAGS.workdir).resolve() / "environment")
    requests = with_dataflows(QUICK + SLOW)
    answers = run_scalesim(python, requests)
    lines = [
        json.dumps(one | {"rows": answer["rows"]})
        for one, answer in zip(requests, answers, strict=True)
    ]
    text = ",\n".join(lines)
    write_text(GOLDEN, f'{{"tool": "{REQUIREMENT}", "runs": [\n{text}\n]}}\n')


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Directory for the environment.", required=True)
    app.run(main)
