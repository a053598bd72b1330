"""Runs the published SCALE-Sim on layers, in an environment of its own.

Two halves in one file, because two interpreters read it. This project's calls
`make_environment` and `run_scalesim`; the environment's, which has ``scalesim``
and not autosplit, runs the file itself:

    python scalesim_run.py requests.json results.jsonl

Only the standard library is imported by both.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

REQUIREMENT = "scalesim==2.0.2"

_CONFIG = """[general]
run_name = run

[run_presets]
InterfaceBandwidth = CALC

[architecture_presets]
ArrayHeight = {array[0]}
ArrayWidth = {array[1]}
IfmapSramSzkB = {sram_kib[0]}
FilterSramSzkB = {sram_kib[1]}
OfmapSramSzkB = {sram_kib[2]}
IfmapOffset = 0
FilterOffset = 100000000
OfmapOffset = 200000000
Dataflow = {dataflow}
"""
_HEADER = (
    "Layer, IFMAP height, IFMAP width, Filter height, Filter width, Channels, Num filter, "
    "Stride height, Stride width,\n"
)
_COLUMNS = {
    "Total Cycles": "cycles",
    "Stall Cycles": "stall_cycles",
    "Overall Util %": "overall_utilization_percent",
    "Mapping Efficiency %": "mapping_efficiency_percent",
    "Compute Util %": "compute_utilization_percent",
    "SRAM IFMAP Reads": "sram_ifmap_reads",
    "SRAM Filter Reads": "sram_filter_reads",
    "SRAM OFMAP Writes": "sram_ofmap_writes",
    "DRAM IFMAP Reads": "dram_ifmap_reads",
    "DRAM Filter Reads": "dram_filter_reads",
    "DRAM OFMAP Writes": "dram_ofmap_writes",
    "Avg IFMAP SRAM BW": "sram_ifmap_words_per_cycle",
    "Avg FILTER SRAM BW": "sram_filter_words_per_cycle",
    "Avg OFMAP SRAM BW": "sram_ofmap_words_per_cycle",
}


def make_environment(folder: pathlib.Path) -> pathlib.Path:
    """Makes a virtual environment with SCALE-Sim, unless it is there already.

    Args:
      folder: of the environment; its parent must be writable.

    Returns:
      Its Python.

    Raises:
      CalledProcessError: SCALE-Sim cannot be installed; ``stderr`` says why.
    """
    python = folder / "bin" / "python"
    installed = folder / ".installed"
    if not installed.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(command, check=True, capture_output=True, text=True)
        installed.touch()
    return python


def run_scalesim(
    python: pathlib.Path, requests: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Runs SCALE-Sim once per request, all in one process of the other interpreter.

    Args:
      python: of `make_environment`.
      requests: each has ``array`` (rows, columns), ``sram_kib`` (ifmap, filter, ofmap),
        ``dataflow`` ("os", "ws" or "is") and ``layers``, each a name and eight whole
        numbers: input height and width, kernel height and width, channels, filters,
        stride height and width. SCALE-Sim knows no padding: add it to the input.

    Returns:
      For each request ``seconds`` that SCALE-Sim took, without its start, and
      ``rows``, one mapping per layer.

    Raises:
      CalledProcessError: SCALE-Sim failed; it has printed why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = pathlib.Path(scratch) / "in.json", pathlib.Path(scratch) / "out.jsonl"
        question.write_text(json.dumps([dict(request) for request in requests]))
        # One thread: SCALE-Sim's loops are plain Python.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        # Isolated: nothing of this project, whose Python may differ, is on its path.
        command = [str(python), "-I", str(pathlib.Path(__file__).resolve())]
        command += [str(question), str(answer)]
        subprocess.run(command, check=True, cwd=scratch, env=environment)
        return [json.loads(line) for line in answer.read_text().splitlines()]


def _serve(question: pathlib.Path, answer: pathlib.Path) -> None:
    with answer.open("w") as file:
        for request in json.loads(question.read_text()):
            file.write(json.dumps(_run_once(request)) + "\n")
            file.flush()


def _run_once(request: Mapping[str, Any]) -> dict[str, Any]:
    # Not imported by name: it is no dependency of this project, but of the other interpreter.
    scalesim = importlib.import_module("scalesim.scale_sim").scalesim
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / "run.cfg").write_text(_CONFIG.format_map(request))
        lines = [", ".join(map(str, layer)) + ",\n" for layer in request["layers"]]
        (folder / "topology.csv").write_text(_HEADER + "".join(lines))
        start = time.perf_counter()
        with _quiet():
            simulation = scalesim(
                save_disk_space=True,
                verbose=False,
                config=str(folder / "run.cfg"),
                topology=str(folder / "topology.csv"),
            )
            simulation.run_scale(top_path=scratch)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "rows": _read_reports(folder / "run")}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _read_reports(folder: pathlib.Path) -> list[dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for report in ("COMPUTE", "DETAILED_ACCESS", "BANDWIDTH"):
        with (folder / f"{report}_REPORT.csv").open(newline="") as file:
            for line in csv.DictReader(file, skipinitialspace=True):
                row = rows.setdefault(line["LayerID"], {})
                for column, name in _COLUMNS.items():
                    if column in line:
                        value = float(line[column])
                        row[name] = int(value) if value == int(value) else value
    return list(rows.values())


if __name__ == "__main__":
    _serve(*map(pathlib.Path, sys.argv[1:]))
