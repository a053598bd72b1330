"""Measures what the exact solver costs as layers, bit candidates and cuts grow.

    python -m experiments.solver_cost --config=configs/solver_cost.py --workdir=build/solver_cost

The work directory gets ``solver_cost.json`` (all figures and the run record),
``solver_cost.csv``, ``solver_cost.md`` and ``solver_cost.png``.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.errors import AutosplitError, InputError
from autosplit.files import write_json, write_text
from autosplit.hardware import Network, named_device
from autosplit.reporting import run_record
from autosplit.reporting.canvas import new_figure, save_figure, settle_layout, style
from autosplit.reporting.formats import format_percent, format_size
from autosplit.reporting.tables import markdown_table
from experiments.flag_parsing import parse_flags
from experiments.solver_case import (
    MIDDLE_BITS,
    binding_constraints,
    branched_graph,
    drawn_profile,
)
from experiments.timing import timed

COLOURS = {"residual": "#2f6fde", "inception": "#c2410c", "parallel": "#15803d"}
ALL_BITS = (1, 2, 3, 4, 5, 6, 7, 8)


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", "configs/solver_cost.py", "What to measure.")
    flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures every case and writes the results.

    Args:
      config: see ``configs/solver_cost.py``.
      workdir: for the results; files of an earlier run are replaced.

    Returns:
      What ``solver_cost.json`` holds.

    Raises:
      AutosplitError: a setting is not as expected.
    """
    cases = cases_of(config)
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, case in enumerate(cases, 1):
        row = measure_case(config, **case)
        rows.append(row)
        print(f"   {number} of {len(cases)}: {row['family']}, {row['layers']} layers, "
              f"{row['bits']} bit-widths, {row['cuts']} listed cuts: {row['solve_s']:.2f} s, "
              f"gap {row['gap']:.2%}", flush=True)  # fmt: skip
    document = {"title": config.title, "rows": rows, "record": record}
    write_json(workdir / "solver_cost.json", document)
    write_text(workdir / "solver_cost.csv", csv_text(rows))
    write_text(workdir / "solver_cost.md", markdown_text(document))
    save_figure(cost_figure(rows, config), workdir / "solver_cost.png")
    return document


def cases_of(config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """Lists the cases: each axis is varied while the others stay at their fixed value.

    Raises:
      InputError: an axis is empty.
    """
    for axis in ("families", "layers", "bits", "cuts"):
        if not config[axis]:
            raise InputError(f"config.{axis} is empty; expected at least one value.")
    fixed = {"layers": config.fixed.layers, "bits": config.fixed.bits, "max_cuts": None}
    cases = []
    for family in config.families:
        cases += [{**fixed, "family": family, "layers": n} for n in config.layers]
        cases += [{**fixed, "family": family, "bits": k} for k in config.bits]
    widest = config.families[-1]
    cases += [{**fixed, "family": widest, "max_cuts": c} for c in config.cuts]
    unique: dict[str, dict[str, Any]] = {str(sorted(case.items(), key=str)): case for case in cases}
    return list(unique.values())


def measure_case(
    config: ml_collections.ConfigDict, *, family: str, layers: int, bits: int, max_cuts: int | None
) -> dict[str, Any]:
    """Solves one graph once for warming and ``config.repeats`` times for the figures.

    Args:
      config: devices, network, seed and repeats.
      family, layers: of `branched_graph`.
      bits: number of candidates, evenly taken out of 1 to 8.
      max_cuts: cuts that the profile lists, evenly taken; None for all that it lists itself.
    """
    graph = branched_graph(layers, family)
    start_s = time.perf_counter()
    profile = drawn_profile(
        graph, candidates(bits), edge=named_device(config.edge), cloud=named_device(config.cloud),
        network=Network(**config.network.to_dict()), seed=config.seed,
    )  # fmt: skip
    price_s = time.perf_counter() - start_s
    if max_cuts is not None:
        profile = with_fewer_cuts(profile, max_cuts)
    constraints = binding_constraints(profile)
    plans, timing = timed(lambda: autosplit.solve(profile, constraints), config.repeats)
    return {
        "family": family, "layers": len(graph.layers), "bits": bits,
        "cuts": len(profile.on_edge), "cuts_fewer": max_cuts is not None,
        "open_cuts": profile.open_cuts, "price_s": price_s, "solve_s": timing.median_s,
        "added_bytes": timing.added_bytes, "plans": len(plans), "gap": plans.gap,
        "cut": plans.best_split.cut_name, "latency_s": plans.best_split.latency_s,
    }  # fmt: skip


def candidates(count: int) -> tuple[int, ...]:
    """Takes a number of bit-widths evenly out of 1 to 8, 8 among them.

    >>> candidates(2), candidates(4)
    ((1, 8), (1, 3, 6, 8))
    """
    if not 2 <= count <= len(ALL_BITS):
        raise InputError(f"{count} bit candidates were asked for; expected 2 to {len(ALL_BITS)}.")
    return tuple(ALL_BITS[round(i)] for i in np.linspace(0, len(ALL_BITS) - 1, count))


def with_fewer_cuts(profile: autosplit.Profile, count: int) -> autosplit.Profile:
    """Keeps ``count`` cuts, the first and the last among them, and closes the list."""
    kept = np.unique(np.linspace(0, len(profile.on_edge) - 1, count).round().astype(int))
    return dataclasses.replace(
        profile, on_edge=profile.on_edge[kept], crosses=profile.crosses[kept],
        cut_names=tuple(profile.cut_names[index] for index in kept), open_cuts=False,
    )  # fmt: skip


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Writes a row for each case; times in seconds, memory in bytes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(document: dict[str, Any]) -> str:
    """Writes the results as Markdown."""
    table = [
        {"family": row["family"], "layers": str(row["layers"]), "bit-widths": str(row["bits"]),
         "listed cuts": str(row["cuts"]), "more are searched": "yes" if row["open_cuts"] else "no",
         "seconds": f"{row['solve_s']:.3g}", "gap to the bound": format_percent(row["gap"]),
         "memory added": format_size(row["added_bytes"] or 0), "plans": str(row["plans"])}
        for row in document["rows"]
    ]  # fmt: skip
    record = document["record"]
    return f"""# {document["title"]}

{markdown_table(table)}

`autosplit.solve` on traced networks whose errors are drawn, under a memory limit of half of all
weights at 8 bits and the largest tensor, and an error limit of half of that of {MIDDLE_BITS} bits
everywhere; median of the warm calls. Where more cuts are searched than listed, the graph has more
than 4,096 closed sets and the solver finds them by minimum cuts; the gap is over all of them.

Commit {record["git"]["commit"]}{" with changes" if record["git"]["dirty"] else ""}, seed
{record["seed"]}, {record["device"]["cpu"]} with {record["device"]["cpu_cores"]} cores, numpy
{record["packages"]["numpy"]}, {record["started_utc"]}.
"""


def cost_figure(rows: Sequence[dict[str, Any]], config: ml_collections.ConfigDict) -> Any:
    """Plots seconds over layers, bit candidates and cuts, for `save_figure`."""
    panels = (
        ("layers", f"layers ({config.fixed.bits} bit-widths)",
         lambda r: r["bits"] == config.fixed.bits and not r["cuts_fewer"]),
        ("bits", f"bit-widths (about {config.fixed.layers} layers)",
         lambda r: r["layers"] < 1.2 * config.fixed.layers + 20 and not r["cuts_fewer"]
         and r["layers"] >= config.fixed.layers),
        ("cuts", "listed cuts", lambda r: r["cuts_fewer"]),
    )  # fmt: skip
    with style():
        figure, axes = new_figure(9.6, 3.4, ncols=len(panels), sharey=True)
        for panel, (field, label, chosen) in zip(axes, panels, strict=True):
            for family, colour in COLOURS.items():
                points = sorted((r[field], r["solve_s"]) for r in rows
                                if r["family"] == family and chosen(r))  # fmt: skip
                if points:
                    panel.plot(*zip(*points, strict=True), marker="o", color=colour, label=family)
            panel.set_yscale("log")
            panel.set_xscale("log" if field != "bits" else "linear")
            panel.set_xlabel(label)
            panel.grid(True)
        axes[0].set_ylabel("seconds of one solve, warm")
        axes[0].legend(loc="lower left")
        axes[0].set_title("Cost of the exact solver")
        settle_layout(figure)
    return figure


def main(argv: Sequence[str]) -> None:
    """Reads the flags and measures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir).resolve())
    except (AutosplitError, OSError) as error:
        sys.exit(f"solver_cost: {error}")
    print(f"Results are in {flags.FLAGS.workdir}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)
