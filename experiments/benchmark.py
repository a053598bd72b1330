"""Measures autosplit beside a plain NumPy loop that does the same work, in one run.

    python -m experiments.benchmark --config=configs/benchmark_resnet50.py --workdir=build/benchmark

The work directory gets ``benchmark.json`` (all figures and the run record),
``benchmark.csv``, ``benchmark.md`` and ``benchmark.png``.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.errors import AutosplitError
from autosplit.files import write_json, write_text
from autosplit.graph.running import GraphWeights, prepare
from autosplit.hardware import Network, named_device
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error import all_tensors
from autosplit.profiling.error_search import ErrorTables, error_tables
from autosplit.profiling.sensitivity import output_gains
from autosplit.quant.clipping.mse import FINE, GRID
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from experiments.benchmark_case import Case, make_case
from experiments.benchmark_report import csv_text, markdown_text, summary_of, time_figure
from experiments.flag_parsing import parse_flags
from experiments.solver_case import binding_constraints, branched_graph, drawn_profile
from experiments.timing import Timing, copy_bytes_per_s, timed

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIPPING = "mse"  # the loop is a search for the least squared error


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", "configs/benchmark_resnet50.py", "What to measure.")
    flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures, compares and writes the results.

    Args:
      config: see ``configs/benchmark_resnet50.py``.
      workdir: for the results; files of an earlier run are replaced.

    Returns:
      What ``benchmark.json`` holds.

    Raises:
      AutosplitError: a setting is not as expected.
    """
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    print("== Make the network and the inputs", flush=True)
    case = make_case(config)
    print("== Measure autosplit", flush=True)
    copies = [copy_bytes_per_s(config.copy_bytes)]
    times, counts, work = measure_autosplit(config, case)
    copies.append(copy_bytes_per_s(config.copy_bytes))
    print("== Measure the NumPy loop (a process of its own)", flush=True)
    loop = run_loop(config, work, workdir)
    document = {
        "title": config.title,
        "times": {name: timing_fields(timing) for name, timing in times.items()},
        "counts": counts,
        "copy_bytes_per_s": copies,
        "numpy": loop,
        "errors": work.errors().tolist(),
        "tensors": work.names(),
        "record": record,
    }
    document["summary"] = summary_of(document)
    write_json(workdir / "benchmark.json", document)
    write_text(workdir / "benchmark.csv", csv_text(document))
    write_text(workdir / "benchmark.md", markdown_text(document))
    save_figure(time_figure(document), workdir / "benchmark.png")
    return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What both sides work on, and what autosplit found.

    Attributes:
      graph: the traced network.
      weights: folded.
      calls: flat inputs, each ``[m, *traced shape]``.
      bits: K bit-widths.
      tables: autosplit's errors.
    """

    graph: autosplit.LayerGraph
    weights: GraphWeights
    calls: list[jax.Array]
    bits: tuple[int, ...]
    tables: ErrorTables

    @property
    def floats(self) -> list[int]:
        """Tensors that have errors."""
        return [t for t, tensor in enumerate(self.graph.tensors) if tensor.is_float]

    @property
    def weighted(self) -> list[int]:
        """Layers whose weight has errors."""
        return [i for i, own in enumerate(self.weights.layers) if own.weight is not None]

    def names(self) -> list[str]:
        """Returns the names of activations, then weights: the rows of all errors."""
        tensors = [f"activation {self.graph.tensors[t].name}" for t in self.floats]
        return tensors + [f"weight {self.graph.layers[i].name}" for i in self.weighted]

    def errors(self) -> np.ndarray:
        """Returns autosplit's errors, f32[rows, K]."""
        activations = np.asarray(self.tables.activation_error)[self.floats]
        return np.concatenate([activations, np.asarray(self.tables.weight_error)[self.weighted]])


def measure_autosplit(
    config: ml_collections.ConfigDict, case: Case
) -> tuple[dict[str, Timing], dict[str, int], Work]:
    """Measures every step by itself, then ``autosplit.profile`` as a whole.

    Returns:
      Times by step, counts of what was worked on, and the work for the other side.
    """
    times: dict[str, Timing] = {}
    repeats = config.repeats

    def step(name: str, work: Callable[[], Any], count: int) -> Any:
        # Each step compiles all that it needs itself.
        jax.clear_caches()
        result, timing = timed(lambda: jax.block_until_ready(work()), count)
        times[name] = timing
        print(f"   {name}: first {timing.first_s:.2f} s, then {timing.median_s:.3f} s", flush=True)
        return result

    inputs, bits = case.inputs, tuple(config.bits)
    graph = step("trace", lambda: autosplit.trace(case.apply, case.variables, inputs[:1]),
                 repeats.trace)  # fmt: skip
    weights = step("prepare", lambda: prepare(graph, case.variables), repeats.profile)
    calls = [jnp.asarray(call) for call in calibration_calls(graph, inputs)]
    step("forward", lambda: all_tensors(graph, weights, calls), repeats.profile)
    key, widths = jax.random.key(config.seed), jnp.asarray(bits)
    tables = step("error tables", lambda: error_tables(graph, weights, calls, widths, CLIPPING),
                  repeats.profile)  # fmt: skip
    step("output gains", lambda: output_gains(graph, weights, calls, key), repeats.profile)
    cuts = step("cuts", graph.cuts, repeats.trace)
    profile = step("profile", lambda: profile_case(config, case, graph), repeats.profile)
    plans = step("solve", lambda: autosplit.solve(profile), repeats.solve)
    large = large_profile(config)
    limits = binding_constraints(large)
    step("solve large", lambda: autosplit.solve(large, limits), repeats.large)
    work = Work(graph=graph, weights=weights, calls=calls, bits=bits, tables=tables)
    counts = {
        "layers": len(graph.layers), "tensors": len(graph.tensors), "cuts": len(cuts),
        "plans": len(plans), "large_layers": len(large.macs),
        "bits": len(bits), "ratios": len(GRID) + len(FINE),
        "calls": config.calls, "macs": sum(layer.macs for layer in graph.layers),
        "activation_elements": config.calls * sum(graph.tensors[t].size for t in work.floats),
        "weight_elements": sum(graph.layers[i].weight_elements for i in work.weighted),
    }  # fmt: skip
    return times, counts, work


def large_profile(config: ml_collections.ConfigDict) -> autosplit.Profile:
    """Prices a large network with branches, whose errors are drawn."""
    return drawn_profile(
        branched_graph(config.large.layers, config.large.family),
        config.large.bits,
        edge=named_device(config.edge),
        cloud=named_device(config.cloud),
        network=Network(**config.network.to_dict()),
        seed=config.seed,
    )


def profile_case(
    config: ml_collections.ConfigDict, case: Case, graph: autosplit.LayerGraph
) -> autosplit.Profile:
    """Runs all of ``autosplit.profile``."""
    return autosplit.profile(
        graph,
        case.variables,
        case.inputs,
        edge=named_device(config.edge),
        cloud=named_device(config.cloud),
        network=Network(**config.network.to_dict()),
        bits=tuple(config.bits),
        clipping=CLIPPING,
        images=case.photographs,
        sensitivity_calls=config.calls,
        seed=config.seed,
    )


def run_loop(
    config: ml_collections.ConfigDict, work: Work, workdir: pathlib.Path
) -> Mapping[str, Any]:
    """Hands the tensors and weights to `experiments.numpy_loop` and returns its results.

    The files take as much disk as the tensors take memory, and are removed.
    """
    with tempfile.TemporaryDirectory(dir=workdir, prefix="tensors-") as folder:
        path = pathlib.Path(folder)
        tensors = all_tensors(work.graph, work.weights, work.calls)
        specs = [_save(path, f"activation_{t}.npy", tensors[t], None) for t in work.floats]
        for i in work.weighted:
            spec = work.graph.layers[i].weight
            axes = list(spec.channel_axes) if spec else []
            specs.append(_save(path, f"weight_{i}.npy", work.weights.layers[i].weight, axes))
        passes = {"loop": config.repeats.loop, "histogram": config.repeats.histogram}
        write_json(path / "tensors.json", {
            "bits": work.bits, "ratios": np.asarray(GRID), "factors": np.asarray(FINE),
            "passes": passes, "copy_bytes": config.copy_bytes, "tensors": specs,
        })  # fmt: skip
        del tensors
        command = [sys.executable, "-m", "experiments.numpy_loop", "--folder", folder]
        finished = subprocess.run(command, cwd=ROOT, check=False)
        if finished.returncode:
            raise AutosplitError(
                f"The NumPy loop ended with the exit status {finished.returncode}; its messages "
                "are above. A negative one means that it was killed, perhaps for its memory."
            )
        return json.loads((path / "loop.json").read_text())


def _save(
    folder: pathlib.Path, name: str, value: jax.Array | None, axes: list[int] | None
) -> dict[str, Any]:
    np.save(folder / name, np.asarray(value, np.float32))
    return {"file": name, "channel_axes": axes}


def timing_fields(timing: Timing) -> dict[str, Any]:
    """Returns a timing with its medians, for JSON."""
    return dataclasses.asdict(timing) | {
        "median_s": timing.median_s, "median_cpu_s": timing.median_cpu_s,
    }  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Reads the flags and measures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    # Programs that were kept from an earlier run would make the first calls warm.
    jax.config.update("jax_enable_compilation_cache", False)
    workdir = pathlib.Path(flags.FLAGS.workdir).resolve()
    try:
        document = run(flags.FLAGS.config, workdir)
    except AutosplitError as error:
        sys.exit(f"benchmark: {error}")
    print(f"\n{markdown_text(document)}\nThe results are in {workdir}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)
