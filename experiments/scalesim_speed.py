"""Measures the closed forms of the systolic array beside SCALE-Sim, in one run.

    python -m experiments.scalesim_speed --workdir=build/scalesim

Both count cycles and memory accesses of ResNet-50's 53 convolutions and its last
layer, weight stationary on 32 x 32 multipliers. SCALE-Sim 2.0.2 runs once, in an
environment of its own that this makes; that takes some ten minutes, so ``--every=3``
takes every third layer. The work directory gets ``scalesim.json`` and ``scalesim.md``.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from autosplit.errors import AutosplitError, InputError
from autosplit.files import write_json, write_text
from autosplit.hardware.matrix_products import products_of
from autosplit.hardware.systolic_counts import (
    Dataflow,
    SystolicArray,
    SystolicCounts,
    count_systolic,
)
from autosplit.reporting import run_record
from autosplit.workload import Workload, tabulate
from experiments.scalesim_run import REQUIREMENT, make_environment, run_scalesim
from experiments.timing import Timing, timed

ARRAY = (32, 32)
SRAM_KIB = (64, 64, 64)
REPEATS = 300
KIB = 1024
COUNTS = (
    "cycles sram_ifmap_reads sram_filter_reads sram_ofmap_writes "
    "dram_ifmap_reads dram_filter_reads dram_ofmap_writes"
).split()

Layer = Sequence[Any]
"""A name, then input height and width, kernel height and width, channels, filters, strides."""


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("workdir", None, "Directory for environment and results.", required=True)
    flags.DEFINE_integer("every", 1, "Take every n-th layer.", lower_bound=1)


def resnet50_layers() -> list[Layer]:
    """Returns the layers of ResNet-50 at 224 x 224, with padding as part of the inputs.

    >>> len(resnet50_layers()), resnet50_layers()[0]
    (54, ['conv1', 229, 229, 7, 7, 3, 64, 2, 2])
    """
    layers: list[Layer] = [["conv1", 229, 229, 7, 7, 3, 64, 2, 2]]
    size, channels = 56, 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=2):
        for block in range(1, blocks + 1):
            name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
            # SCALE-Sim counts a last window that reaches beyond the input. With stride 2 there
            # is none if what no window of the network reads is left out.
            padded, read, out = size + 3 - stride, size + 1 - stride, size // stride
            wide = 4 * width
            layers.append([f"{name}_reduce", size, size, 1, 1, channels, width, 1, 1])
            layers.append([f"{name}_3x3", padded, padded, 3, 3, width, width, stride, stride])
            layers.append([f"{name}_expand", out, out, 1, 1, width, wide, 1, 1])
            if block == 1:
                shortcut = [f"{name}_shortcut", read, read, 1, 1, channels, wide, stride, stride]
                layers.append(shortcut)
            channels, size = wide, out
    return [*layers, ["fc", 1, 1, 1, 1, 2048, 1000, 1, 1]]


def workload_of(layer: Layer) -> Workload:
    """Returns a layer as SCALE-Sim understands it: a last, incomplete window counts."""
    _, height, width, kernel_height, kernel_width, channels, filters, down, right = layer
    return Workload(
        kind="conv",
        in_height=height,
        in_width=width,
        in_channels=channels,
        out_height=-(-(height - kernel_height + down) // down),
        out_width=-(-(width - kernel_width + right) // right),
        out_channels=filters,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride_height=down,
        stride_width=right,
    )


def measure_closed_form(layers: Sequence[Layer]) -> tuple[SystolicCounts, dict[str, Timing]]:
    """Times the closed forms, from the layers to the counts and as a compiled program.

    Returns:
      The counts, and times: ``numpy`` makes tables of the layers too, ``jax`` has them.
    """
    works = [workload_of(layer) for layer in layers]
    array = SystolicArray(*ARRAY, int(Dataflow.WEIGHT_STATIONARY), *[KIB * k for k in SRAM_KIB])
    counts, in_numpy = timed(lambda: count_systolic(products_of(tabulate(works)), array), REPEATS)
    with jax.enable_x64():
        arguments = jax.tree.map(jnp.asarray, (products_of(tabulate(works)), array))
        compiled = jax.jit(count_systolic)
        _, in_jax = timed(lambda: jax.block_until_ready(compiled(*arguments)), REPEATS)
    return counts, {"numpy": in_numpy, "jax": in_jax}


def differing(
    layers: Sequence[Layer], counts: SystolicCounts, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns every count that differs from SCALE-Sim's, with layer and both values."""
    return [
        {"layer": layer[0], "count": name, "closed_form": ours, "scalesim": row[name]}
        for name in COUNTS
        for layer, ours, row in zip(layers, getattr(counts, name).tolist(), rows, strict=True)
        if ours != row[name]
    ]


def run(workdir: pathlib.Path, every: int = 1) -> dict[str, Any]:
    """Measures, compares and writes the results.

    Args:
      workdir: for the environment and the results.
      every: take every n-th layer, 1 or more.

    Returns:
      What ``scalesim.json`` holds.

    Raises:
      InputError: SCALE-Sim cannot be installed.
    """
    layers = resnet50_layers()[::every]
    config = {"array": ARRAY, "sram_kib": SRAM_KIB, "dataflow": "ws", "every": every,
              "repeats": REPEATS, "scalesim": REQUIREMENT}  # fmt: skip
    record = run_record(config, seed=0)
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        python = make_environment(workdir / "environment")
    except subprocess.CalledProcessError as error:
        raise InputError(
            f"{REQUIREMENT} cannot be installed: {error.stderr.strip()[-300:]} Expected access to "
            "a package registry, or a work directory that has the environment."
        ) from error
    counts, times = measure_closed_form(layers)
    print(f"== Run SCALE-Sim on {len(layers)} layers", flush=True)
    request = {"array": ARRAY, "sram_kib": SRAM_KIB, "dataflow": "ws", "layers": layers}
    (answer,) = run_scalesim(python, [request])
    document = {
        "layers": [layer[0] for layer in layers],
        "scalesim_s": answer["seconds"],
        "first_s": {name: timing.first_s for name, timing in times.items()},
        "median_s": {name: timing.median_s for name, timing in times.items()},
        "ratio": {name: answer["seconds"] / timing.median_s for name, timing in times.items()},
        "cycles": int(np.sum(counts.cycles)),
        "counts": len(layers) * len(COUNTS),
        "differing": differing(layers, counts, answer["rows"]),
        "record": record,
    }
    write_json(workdir / "scalesim.json", document)
    write_text(workdir / "scalesim.md", markdown_text(document))
    return document


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes the table of times, and what differs."""
    first, median, ratio = document["first_s"], document["median_s"], document["ratio"]
    others = document["differing"]
    lines = [
        f"{len(document['layers'])} layers of ResNet-50, weight stationary, {ARRAY[0]} x "
        f"{ARRAY[1]} multipliers, one run on one machine. SCALE-Sim ran once; the closed forms "
        f"are medians of {REPEATS} calls.",
        "",
        "| | first call | all layers | SCALE-Sim takes |",
        "|---|---:|---:|---:|",
        f"| {REQUIREMENT} | | {document['scalesim_s']:.1f} s | |",
    ]
    for name, label in (("numpy", "NumPy, from the layers"), ("jax", "JAX, compiled")):
        lines.append(
            f"| {label} | {first[name] * 1e3:.1f} ms | {median[name] * 1e6:.0f} µs "
            f"| {ratio[name]:,.0f} times as long |"
        )
    equal = document["counts"] - len(others)
    lines += ["", f"{equal} of {document['counts']} counts are equal. The others:", ""]
    lines += ["| layer | count | closed form | SCALE-Sim |", "|---|---|---:|---:|"]
    lines += [
        f"| {one['layer']} | {one['count']} | {one['closed_form']:,} | {one['scalesim']:,} |"
        for one in others
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Reads the flags and measures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    # A program that was kept from an earlier run would make the first call warm.
    jax.config.update("jax_enable_compilation_cache", False)
    workdir = pathlib.Path(flags.FLAGS.workdir).resolve()
    try:
        document = run(workdir, flags.FLAGS.every)
    except AutosplitError as error:
        sys.exit(f"scalesim_speed: {error}")
    print(f"\n{markdown_text(document)}\nThe results are in {workdir}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
