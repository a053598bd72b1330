"""Runs a saved split as an edge process and a cloud process on this machine."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import autosplit
from autosplit.errors import CloudUnavailableError

ROOT = pathlib.Path(__file__).resolve().parents[1]
"""Where ``python -m experiments...`` works."""

START_S = 120.0
"""Longest wait for the cloud process to load, compile and listen."""
STOP_S = 30.0
"""Longest wait for it to end once it was told to."""


def run_two_processes(
    split: autosplit.Split, inputs: np.ndarray, folder: pathlib.Path
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Saves a split and runs it as an edge and a cloud process, one request per image.

    Args:
      split: to save under ``folder/split``; of an edge-only split only the edge runs.
      inputs: f32[N, ...].
      folder: of the run.

    Returns:
      The first output of each request, stacked, and the report of ``run_edge``.

    Raises:
      CloudUnavailableError: a process ended with an error, which it has printed.
    """
    split.save(folder / "split")
    result = folder / "edge.json"
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        requests = pathlib.Path(scratch) / "requests.npz"
        np.savez(requests, arg0=inputs[:, None])
        command = ["--split", folder / "split", "--inputs", requests, "--output", result]
        if split.manifest.crossing:
            address = stack.enter_context(cloud_process(
                folder / "split", pathlib.Path(scratch), "--max_batch=1"
            ))
            command += ["--address", address]
        finished = subprocess.run(_python("run_edge", *command), cwd=ROOT, check=False)
        if finished.returncode:
            raise CloudUnavailableError(_ended("run_edge", finished.returncode))
    report = json.loads(result.read_text())
    with np.load(folder / report["outputs"]) as outputs:
        return outputs["out0"][:, 0], report


@contextlib.contextmanager
def cloud_process(split: pathlib.Path, scratch: pathlib.Path, *flags: str) -> Iterator[str]:
    """Yields the address of a server that is ready, and stops it afterwards."""
    ready = scratch / "ready"
    command = _python("serve_cloud", "--split", split, "--ready_file", ready, *flags)
    with subprocess.Popen(command, cwd=ROOT) as process, stopped_afterwards(process):
        yield _bound_address(process, ready)


@contextlib.contextmanager
def stopped_afterwards(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Tells a process to end after the block, and kills it if it does not within `STOP_S`."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _bound_address(process: subprocess.Popen[bytes], ready: pathlib.Path) -> str:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(FileNotFoundError):
            return ready.read_text().strip()
        if process.poll() is not None:
            raise CloudUnavailableError(_ended("serve_cloud", process.returncode))
        time.sleep(0.05)
    raise CloudUnavailableError(
        f"experiments.serve_cloud was not ready within {START_S:.0f} s; expected a few. Look at "
        "what it printed, or try again on a machine that is less busy."
    )


def _python(program: str, *arguments: Any) -> list[str]:
    return [sys.executable, "-m", f"experiments.{program}", *map(str, arguments)]


def _ended(program: str, status: int) -> str:
    return (
        f"experiments.{program} ended with the exit status {status}; expected 0. Its own message "
        "is above."
    )
