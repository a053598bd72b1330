"""The step ``latency``: simulated stages of every plan, and the chosen split measured here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

import autosplit
from autosplit.files import to_plain, write_text
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.families import compared
from autosplit.reporting.stage_bars import latency_figure
from experiments.paper_plans import Entry, best_of_families, entries_of
from experiments.paper_tables import csv_text, row_of
from experiments.workload_case import Case

TABLE, PLOT = "latency.csv", "latency.png"


def settings_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what this step depends on, beside the one before it."""
    return to_plain({"latency": config.latency.to_dict()})


def run_latency(case: Case) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Tabulates and plots the stages, and measures the two halves beside the float network.

    Returns:
      The files that were written, and the figures: ``rows`` by plan (of several with one name
      the fastest that keeps its limits), the best JPEG and the best uniform width among them,
      and ``measured``.
    """
    plans, folder = case.plans, case.workdir
    chosen = case.chosen
    entries = entries_of([(plan.label, plan) for plan in case.listed], plans.constraints)
    write_text(folder / TABLE, csv_text([row_of(entry) for entry in entries]))
    save_figure(latency_figure(compared(case.listed, chosen or plans.best)), folder / PLOT)
    measured = None if chosen is None else measure_halves(case, chosen)
    if measured is not None:
        print(
            f"   here: float {measured['float_s'] * 1e3:.1f} ms, edge half "
            f"{measured['edge_s'] * 1e3:.1f} ms, cloud half {measured['cloud_s'] * 1e3:.1f} ms",
            flush=True,
        )
    rows = {entry.series: row_of(entry) for entry in best_entries(entries)}
    return (TABLE, PLOT), {"rows": rows, "measured": measured}


def best_entries(entries: list[Entry]) -> list[Entry]:
    """Returns the best entry of each name, and of the families of JPEGs and uniform widths."""
    best: dict[str, Entry] = {}
    ranked = sorted(entries, key=lambda e: (not e.plan.feasible, e.plan.latency_s))
    for entry in [*ranked, *best_of_families(entries)]:
        best.setdefault(entry.series, entry)
    return list(best.values())


def measure_halves(case: Case, plan: autosplit.SplitPlan) -> dict[str, Any]:
    """Times the stages of a split and the float network in turn, on this machine.

    Args:
      case: of the network.
      plan: the chosen split.

    Returns:
      Medians in seconds, the ratio of all stages to float, and the number of repeats.
    """
    job, repeats = case.job, case.config.latency.repeats
    network = case.checked_profile().network
    split = autosplit.split(case.graph, job.variables, plan, network=network)
    images = jnp.asarray(job.inputs[:1])
    apply = jax.jit(job.apply)
    codes = split.edge_layers(images)
    payload = split.pack(codes)
    received = split.unpack(payload)
    work: Mapping[str, Callable[[], Any]] = {
        "float_s": lambda: apply(job.variables, images),
        "edge_s": lambda: split.edge_layers(images),
        "pack_s": lambda: split.unpack(split.pack(codes)),
        "cloud_s": lambda: split.cloud_outputs(received),
    }
    medians = medians_in_turn(work, repeats)
    halves_s = medians["edge_s"] + medians["pack_s"] + medians["cloud_s"]
    return {**medians, "halves_over_float": halves_s / medians["float_s"], "repeats": repeats}


def medians_in_turn(work: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Calls all once, untimed, then all in turn ``repeats`` times; returns medians in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(repeats + 1):
        for name, call in work.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:  # the first compiles
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
