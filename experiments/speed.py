"""Measures our networks beside PyTorch, ONNX Runtime and OpenVINO, all in turn, in one run.

    python -m experiments.speed --config=configs/speed.py --workdir=build/speed

The libraries are those of the extra ``peers`` (`make peers` sets them up and runs this). All
use the same number of threads, see the same images, and are checked against PyTorch's float
outputs before they are timed. The work directory gets ``speed.json`` (all times and the run
record), ``speed.csv``, ``speed.md`` and ``speed.png``.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

import autosplit
from autosplit.converters import to_state_dict
from autosplit.errors import InputError
from autosplit.files import write_json, write_text
from autosplit.graph.running import prepare
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from experiments import peers
from experiments.measuring_program import run_program
from experiments.peers import Runner
from experiments.speed_case import Case, float_runner, int8_runner, load_case
from experiments.speed_report import csv_text, markdown_text, speed_figure


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures every network at every batch and writes the results.

    Args:
      config: see ``configs/speed.py``.
      workdir: for the results and the files of the peers.

    Returns:
      What ``speed.json`` holds.

    Raises:
      AutosplitError: a library is missing, or two float networks do not agree.
    """
    threads = cores()
    record = run_record(config.to_dict(), config.seed)
    record |= {"threads": threads, "peers": peers.versions(), "load_before": os.getloadavg()}
    workdir.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name, network in config.networks.items():
        print(f"== {name}", flush=True)
        case = load_case(name, network, config.images, config.seed)
        files = PeerFiles(case, workdir)
        for batch in config.batches:
            runners = [*files.runners(batch, threads), *own_runners(case, batch, config.clipping)]
            found = compare(runners, case.images, batch, config)
            rows += [{"network": case.name, "batch": batch, **row} for row in found]
            for row in found:
                print(f"   batch {batch}: {row['name']:28} {row['median_s'] * 1e3:8.2f} ms, "
                      f"{row['ratio']:.2f} of torch float", flush=True)  # fmt: skip
    document = {"title": config.title, "rows": rows,
                "record": record | {"load_after": os.getloadavg()}}  # fmt: skip
    write_json(workdir / "speed.json", document)
    write_text(workdir / "speed.csv", csv_text(rows))
    write_text(workdir / "speed.md", markdown_text(document))
    save_figure(speed_figure(rows), workdir / "speed.png")
    return document


def cores() -> int:
    """Returns how many cores this process may use: XLA takes them all, so all others do."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PeerFiles:
    """A network as the peers have it: exported and quantized once, for every batch."""

    def __init__(self, case: Case, workdir: pathlib.Path) -> None:
        size, images = case.images.shape[1], case.images
        self.network = peers.torch_network(case.name, to_state_dict(case.variables))
        self.onnx = workdir / f"{case.name}.onnx"
        print("   export to ONNX", flush=True)
        peers.export_onnx(self.network, self.onnx, size)
        self.quantized: dict[str, pathlib.Path] = {}
        for number, form in enumerate(peers.ONNX_FORMS):
            print(f"   quantize by ONNX Runtime, {form}", flush=True)
            self.quantized[form] = workdir / f"{case.name}_int8_{number}.onnx"
            peers.quantize_onnx(self.onnx, self.quantized[form], images, form)
        self.openvino = peers.openvino_model(self.onnx, size)
        print("   quantize by NNCF", flush=True)
        self.openvino_int8 = peers.quantize_openvino(self.openvino, images)

    def runners(self, batch: int, threads: int) -> Iterator[Runner]:
        """Yields all peers at a batch; PyTorch's float, the reference, comes first."""
        yield peers.torch_runner(self.network, threads)
        yield peers.onnx_runner(self.onnx, "onnxruntime float", 32, threads)
        for form, path in self.quantized.items():
            yield peers.onnx_runner(path, f"onnxruntime int8 {form}", 8, threads)
        yield peers.openvino_runner(self.openvino, "openvino float", 32, threads, batch)
        yield peers.openvino_runner(self.openvino_int8, "openvino int8", 8, threads, batch)


def own_runners(case: Case, batch: int, clipping: str) -> Iterator[Runner]:
    """Yields our own float and 8-bit networks at a batch."""
    graph = autosplit.trace(case.apply, case.variables, case.images[:batch])
    yield float_runner(graph, prepare(graph, case.variables))
    yield int8_runner(case, graph, clipping)


def compare(
    runners: Sequence[Runner], images: np.ndarray, batch: int, config: ml_collections.ConfigDict
) -> list[dict[str, Any]]:
    """Checks outputs against those of the first runner, then times all in turn.

    Args:
      runners: the reference first.
      images: f32[N, H, W, 3], N a multiple of the batch.
      batch: images in a call.
      config: rounds, calls, settle_s and float_tolerance.

    Returns:
      A row for each runner: median, fastest and all times in seconds, both as ratios to the
      reference's, and how far its outputs are from the reference's.

    Raises:
      InputError: a float runner gives other outputs than the reference.
    """
    reference = peers.run_in_parts(runners[0], images, batch)
    outputs = [distance(peers.run_in_parts(r, images, batch), reference) for r in runners]
    for runner, found in zip(runners, outputs, strict=True):
        if runner.bits > 8 and found["largest_difference"] > config.float_tolerance:
            raise InputError(
                f"{runner.name} and {runners[0].name} differ by {found['largest_difference']:.2g} "
                f"of the largest output; expected at most {config.float_tolerance:g}. They do not "
                "run the same network: check the export."
            )
    times = in_turn(runners, images[:batch], config.rounds, config.calls, config.settle_s)
    middle = [statistics.median(t) for t in times]
    return [
        {"name": runner.name, "bits": runner.bits, "median_s": median, "fastest_s": min(taken),
         "ratio": median / middle[0], "fastest_ratio": min(taken) / min(times[0]),
         **found, "times_s": list(taken)}
        for runner, taken, median, found in zip(runners, times, middle, outputs, strict=True)
    ]  # fmt: skip


def distance(outputs: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Returns how far outputs, f32[N, classes], are from those of the reference."""
    y, f = outputs.astype(np.float64), reference.astype(np.float64)
    return {
        "largest_difference": float(np.abs(y - f).max() / np.abs(f).max()),
        "output_error": float(((y - f) ** 2).sum() / (f**2).sum()),
        "agreement": float((y.argmax(1) == f.argmax(1)).mean()),
    }


def in_turn(
    runners: Sequence[Runner], images: np.ndarray, rounds: int, calls: int, settle_s: float
) -> list[tuple[float, ...]]:
    """Times all runners in turn, so that whatever else the machine does falls on all of them.

    Args:
      runners: each is called once without the clock at every turn.
      images: f32[N, H, W, 3] of one call.
      rounds: turns of each.
      calls: timed calls in a turn.
      settle_s: pause before a turn.

    Returns:
      Seconds of each call, by runner.
    """
    inputs = [runner.take(images) for runner in runners]
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(rounds):
        for runner, given, taken in zip(runners, inputs, times, strict=True):
            time.sleep(settle_s)
            runner.run(given)
            for _ in range(calls):
                start_s = time.perf_counter()
                runner.run(given)
                taken.append(time.perf_counter() - start_s)
    return [tuple(taken) for taken in times]


if __name__ == "__main__":
    run_program("speed", run, markdown_text)
