"""Measures how fast bits are searched, beside the tools of ONNX Runtime and NNCF, in one run.

    python -m experiments.search_speed --config=configs/search_speed.py --workdir=build/search_speed

The work directory gets ``search_speed.json`` (all times and the run record),
``search_speed.csv``, ``search_speed.md`` and ``search_speed.png``.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.converters import to_state_dict
from autosplit.files import write_json, write_text
from autosplit.graph.running import GraphWeights, prepare
from autosplit.profiling.assignment import Assignment, weight_clips
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error_search import ErrorTables, clip_tables
from autosplit.profiling.many_assignments import evaluate_assignments
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from experiments import peers, peers_search
from experiments.measuring_program import run_program
from experiments.search_speed_report import markdown_text, search_figure
from experiments.speed import cores
from experiments.speed_case import Case, load_case
from experiments.speed_report import csv_text


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures both parts and writes the results.

    Args:
      config: see ``configs/search_speed.py``.
      workdir: for the results.

    Returns:
      What ``search_speed.json`` holds.

    Raises:
      AutosplitError: a library is missing or a setting is not as expected.
    """
    threads = cores()
    record = run_record(config.to_dict(), config.seed)
    record |= {"threads": threads, "peers": peers.versions(), "load_before": os.getloadavg()}
    workdir.mkdir(parents=True, exist_ok=True)
    most = max(config.calibration, config.images)
    case = load_case(config.network, config.settings, most, config.seed)
    graph = autosplit.trace(case.apply, case.variables, case.images[:1])
    weights = prepare(graph, case.variables)
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        model = scratch / "network.onnx"
        network = peers.torch_network(case.name, to_state_dict(case.variables))
        peers.export_onnx(network, model, case.images.shape[1])
        rows, tables = statistics_rows(config, graph, weights, case, model)
        rows += assignment_rows(config, graph, weights, case, model, tables)
    rows = with_ratios(rows)
    document = {"title": config.title, "rows": rows,
                "record": record | {"load_after": os.getloadavg()}}  # fmt: skip
    write_json(workdir / "search_speed.json", document)
    write_text(workdir / "search_speed.csv", csv_text(rows))
    write_text(workdir / "search_speed.md", markdown_text(document))
    save_figure(search_figure(rows), workdir / "search_speed.png")
    return document


def statistics_rows(
    config: ml_collections.ConfigDict,
    graph: autosplit.LayerGraph,
    weights: GraphWeights,
    case: Case,
    model: pathlib.Path,
) -> tuple[list[dict[str, Any]], ErrorTables]:
    """Times clips of all tensors: ours at all bit-widths by all methods, theirs at 8 bits."""
    images = case.images[: config.calibration]
    calls = calibration_calls(graph, images)
    bits = jnp.array(config.bits)
    print(f"== Statistics of {len(images)} images", flush=True)

    def ours() -> dict[str, ErrorTables]:
        return jax.block_until_ready(
            clip_tables(graph, weights, [calls], bits, tuple(config.methods))
        )

    first_s, _ = clocked(ours)
    warm_s, tables = clocked(ours)
    work = f"{len(config.bits)} bit-widths, {len(config.methods)} methods, errors too"
    rows = [
        _row("statistics", "autosplit, compiling", first_s, work),
        _row("statistics", "autosplit, warm", warm_s, work),
    ]
    with tempfile.TemporaryDirectory() as folder:
        taken = peers_search.calibration_times(
            model, images, config.peer_methods, pathlib.Path(folder)
        )
    rows += [
        _row("statistics", f"onnxruntime {name}", s, "8 bits, 1 method, activations only")
        for name, s in taken.items()
    ]
    total_s = sum(taken.values())
    label = f"8 bits, {len(taken)} methods, activations only"
    rows.append(_row("statistics", "onnxruntime, all methods", total_s, label))
    openvino = peers.openvino_model(model, images.shape[1])
    nncf_s, _ = clocked(lambda: peers.quantize_openvino(openvino, images))
    rows.append(_row("statistics", "NNCF", nncf_s, "8 bits, 1 method, the network rebuilt"))
    return rows, tables["mse" if "mse" in tables else config.methods[0]]


def assignment_rows(
    config: ml_collections.ConfigDict,
    graph: autosplit.LayerGraph,
    weights: GraphWeights,
    case: Case,
    model: pathlib.Path,
    tables: ErrorTables,
) -> list[dict[str, Any]]:
    """Times the evaluation of mixed assignments."""
    images, count = case.images[: config.images], config.assignments
    calls = calibration_calls(graph, images)
    print(f"== {count} mixed assignments on {len(images)} images", flush=True)

    def ours(number: int) -> Any:
        drawn = mixed_assignments(config, graph, weights, tables, number)
        return evaluate_assignments(graph, weights, drawn, calls)

    one_s, _ = clocked(lambda: ours(1))  # compiles
    warm_s, _ = clocked(lambda: ours(count))
    again_s, _ = clocked(lambda: ours(1))
    work = f"{' or '.join(map(str, config.mixed))} bits, all measured"
    rows = [
        _row("assignments", "autosplit, compiling", warm_s + max(one_s - again_s, 0.0), work),
        _row("assignments", "autosplit, warm", warm_s, work),
    ]
    for name, found in peer_evaluations(config, case, model, images):
        times = [seconds for seconds, _ in found]
        label = f"8 bits or float, {len(times)} measured"
        rows.append(_row("assignments", name, count * statistics.median(times), label))
        print(f"   {name}: {statistics.median(times):.2f} s each", flush=True)
    return rows


def peer_evaluations(
    config: ml_collections.ConfigDict, case: Case, model: pathlib.Path, images: np.ndarray
) -> Iterator[tuple[str, list[tuple[float, np.ndarray]]]]:
    """Yields name, and seconds and outputs of some assignments, for each way of the peers."""
    random = np.random.default_rng(config.seed)
    calibration = case.images[: config.peer_calibration]
    openvino = peers.openvino_model(model, images.shape[1])

    def draws(names: Sequence[str]) -> list[list[str]]:
        flags = random.random((config.peer_assignments, len(names))) < 0.5
        return [[n for n, flag in zip(names, row, strict=True) if flag] for row in flags]

    nodes, layers = peers.onnx_weighted_nodes(model), peers.openvino_weighted_nodes(openvino)
    with tempfile.TemporaryDirectory() as folder:
        rest = (calibration, images, cores(), pathlib.Path(folder))
        yield ("onnxruntime quantize_static",
               list(peers_search.onnx_rebuild(model, draws(nodes), *rest)))  # fmt: skip
        yield ("onnxruntime, calibrated before",
               list(peers_search.onnx_rebuild_calibrated(model, draws(nodes), *rest)))  # fmt: skip
    yield ("NNCF quantize", list(
        peers_search.openvino_rebuild(openvino, draws(layers), calibration, images, cores())
    ))  # fmt: skip


def mixed_assignments(
    config: ml_collections.ConfigDict,
    graph: autosplit.LayerGraph,
    weights: GraphWeights,
    tables: ErrorTables,
    count: int,
) -> Iterator[Assignment]:
    """Draws assignments whose layers and tensors have either of some bit-widths."""
    random = np.random.default_rng(config.seed)
    columns = np.array([list(config.bits).index(b) for b in config.mixed])
    ratio, low, high = (
        np.asarray(t) for t in (tables.weight_ratio, tables.activation_low, tables.activation_high)
    )
    bits = np.array(config.bits, np.int32)
    for _ in range(count):
        of_layers = columns[random.integers(len(columns), size=len(graph.layers))]
        of_tensors = columns[random.integers(len(columns), size=len(graph.tensors))]
        every = np.arange(len(of_tensors))
        yield Assignment(
            on_edge=jnp.ones(len(graph.layers), bool),
            w_bits=jnp.asarray(bits[of_layers]),
            w_high=weight_clips(graph, weights, ratio[np.arange(len(of_layers)), of_layers]),
            a_bits=jnp.asarray(bits[of_tensors]),
            a_low=jnp.asarray(low[every, of_tensors]),
            a_high=jnp.asarray(high[every, of_tensors]),
        )


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns seconds and result of one call."""
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def _row(part: str, name: str, seconds: float, work: str) -> dict[str, Any]:
    return {"part": part, "name": name, "seconds": seconds, "work": work}


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds how many times as long as ours each row took, compiling and warm.

    >>> rows = [{"part": "p", "name": f"autosplit, {n}", "seconds": s}
    ...         for n, s in (("compiling", 4.0), ("warm", 2.0))]
    >>> [(r["of_compiling"], r["of_warm"]) for r in with_ratios(rows)]
    [(1.0, 2.0), (0.5, 1.0)]
    """
    own = {(row["part"], row["name"]): row["seconds"] for row in rows}
    return [
        {**row, "of_compiling": row["seconds"] / own[row["part"], "autosplit, compiling"],
         "of_warm": row["seconds"] / own[row["part"], "autosplit, warm"]}
        for row in rows
    ]  # fmt: skip


if __name__ == "__main__":
    # A program that was kept from an earlier run would make the first call warm.
    jax.config.update("jax_enable_compilation_cache", False)
    run_program("search_speed", run, markdown_text)
