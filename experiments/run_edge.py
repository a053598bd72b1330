"""Runs the edge half of a saved split against its cloud server and reports the times.

    python -m experiments.run_edge --split DIR --inputs FILE.npz --output OUT.json \
        (--address HOST:PORT | --ready_file FILE) [--repeat 3] [--warmup 2]

FILE.npz holds arrays arg0, arg1, ...: one per input of the manifest, in its order, each
with an additional leading axis over requests. OUT.json gets the seconds of every stage of
every request beside the prediction, OUT.npz the outputs out0, out1, ... with the same
leading axis. The link is that of the plan, imitated in this process, so one request takes
about as long as predicted for it; a table of medians is printed at the end.

A split of which nothing crosses runs without a server. The model's Python code is not
needed: the directory holds all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import pathlib
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging

from autosplit.errors import AutosplitError, CloudUnavailableError, InputError
from autosplit.execution import artefact
from autosplit.execution.halves import Split
from autosplit.execution.manifest import TensorSpec
from autosplit.files import write_bytes, write_json
from autosplit.serving.edge_client import Outputs, check_inputs, connect, infer_on_edge
from autosplit.serving.link import ShapedLink, plan_network
from autosplit.serving.protocol import PROTOCOL_VERSION
from autosplit.serving.stage_times import StageTimes, median_times, stage_table

PROGRESS_LINES = 10

Infer = Callable[..., tuple[Outputs, StageTimes]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the flags say.

    Attributes:
      split: directory of the saved split.
      inputs: npz file of requests.
      output: JSON file to write; the outputs go beside it.
      address: ``host:port`` of the server; None where ``ready_file`` tells it.
      ready_file: where the server writes its address.
      repeat: timed inferences of each request.
      warmup: inferences of the first request that are not timed.
      shape_link: imitate the plan's link; else measure the connection as it is.
      connect_timeout_s: longest wait for the ready file, then for the first answer.
      timeout_s: longest wait for one response.
    """

    split: str
    inputs: pathlib.Path
    output: pathlib.Path
    address: str | None
    ready_file: pathlib.Path | None
    repeat: int
    warmup: int
    shape_link: bool
    connect_timeout_s: float
    timeout_s: float


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("split", None, "Directory of the saved split.", required=True)
    flags.DEFINE_string("inputs", None, "npz file with arg0, arg1, ...", required=True)
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_string("address", None, "host:port of the cloud server.")
    flags.DEFINE_string("ready_file", None, "File that the server writes its address to.")
    flags.DEFINE_integer("repeat", 1, "Timed inferences of each request.", lower_bound=1)
    flags.DEFINE_integer("warmup", 2, "Untimed inferences first.", lower_bound=1)
    flags.DEFINE_bool("shape_link", True, "Imitate the network of the plan.")
    flags.DEFINE_float("connect_timeout_s", 60.0, "Longest wait for the server to be ready.")
    flags.DEFINE_float("timeout_s", 60.0, "Longest wait for one response.")


def run(options: RunOptions) -> None:
    """Runs all requests, writes the report and prints the table.

    Args:
      options: see `RunOptions`.

    Raises:
      AutosplitError: the split, the inputs, the server or its answers are not as expected.
    """
    if options.output.suffix != ".json":
        raise InputError(f"--output is {options.output}; expected a name that ends in .json.")
    split = artefact.load(options.split, sides=("edge",))
    requests = load_requests(options.inputs, split.manifest.inputs)
    check_inputs(split, requests[0])  # all requests are stacked, so all have one form
    with _open_split(split, options) as (warm_infer, infer):
        for _ in range(options.warmup):
            warm_infer(*requests[0])
        outputs, times = measure(infer, requests, options.repeat)
    measured = median_times([one for repeats in times for one in repeats])
    outputs_file = options.output.with_suffix(".npz")
    named: dict[str, Any] = {
        f"out{index}": np.stack(leaf) for index, leaf in enumerate(zip(*outputs, strict=True))
    }
    report = {
        "protocol_version": PROTOCOL_VERSION,
        "split_id": split.manifest.split_id,
        "network": split.manifest.network if options.shape_link else None,
        "requests": len(requests),
        "repeat": options.repeat,
        "outputs": outputs_file.name,
        "measured": measured,
        "predicted": split.manifest.predicted,
        "times": times,
    }
    archive = io.BytesIO()
    np.savez(archive, **named)
    write_bytes(outputs_file, archive.getvalue())
    write_json(options.output, report)
    print(stage_table(measured, split.manifest.predicted))


def load_requests(path: pathlib.Path, specs: Sequence[TensorSpec]) -> list[tuple[np.ndarray, ...]]:
    """Returns the inputs of each request.

    Args:
      path: npz file with one array per spec, named arg0, arg1, ..., requests leading.
      specs: ``manifest.inputs``.

    Returns:
      One tuple of arrays per request; shapes and types are not checked.

    Raises:
      InputError: no such file, other names, no request, or arrays of unequal length.
    """
    names = [f"arg{index}" for index in range(len(specs))]
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Cannot read inputs from {path}: {error}. Give an npz file.") from error
    lengths = {array.shape[:1] for array in arrays.values()}
    if sorted(arrays) != sorted(names) or len(lengths) != 1 or lengths & {(), (0,)}:
        found = {name: array.shape for name, array in arrays.items()}
        expected = {
            name: ("requests", *spec.shape) for name, spec in zip(names, specs, strict=True)
        }
        raise InputError(
            f"{path} holds {found}; expected {expected} with the same number of requests, "
            "at least one, in each. Stack the requests along a new leading axis."
        )
    return list(zip(*(arrays[name] for name in names), strict=True))


def measure(
    infer: Infer, requests: Sequence[tuple[np.ndarray, ...]], repeat: int
) -> tuple[list[Outputs], list[list[StageTimes]]]:
    """Returns the outputs of each request, and the times of each of its repetitions.

    Args:
      infer: from inputs to outputs and times.
      requests: inputs of each request; about `PROGRESS_LINES` of them are logged.
      repeat: timed inferences of each.

    Returns:
      The outputs of the last repetition per request, and ``repeat`` times per request.
    """
    every = math.ceil(len(requests) / PROGRESS_LINES)
    all_outputs, all_times = [], []
    for index, inputs in enumerate(requests):
        results = [infer(*inputs) for _ in range(repeat)]
        all_outputs.append(results[-1][0])
        all_times.append([times for _, times in results])
        done = index + 1
        if done % every == 0 or done == len(requests):
            total_ms = median_times(all_times[-1]).total_s * 1e3
            logging.info("request %d of %d: %.1f ms", done, len(requests), total_ms)
    return all_outputs, all_times


@contextlib.contextmanager
def _open_split(split: Split, options: RunOptions) -> Iterator[tuple[Infer, Infer]]:
    """Yields the function to warm up with and the one to time; the former skips the link."""
    if not split.manifest.crossing:

        def infer(*inputs: np.ndarray) -> tuple[Outputs, StageTimes]:
            return infer_on_edge(split, *inputs)

        yield infer, infer
        return
    link = ShapedLink(network=plan_network(split.manifest)) if options.shape_link else None
    with connect(
        split,
        _server_address(options),
        link=link,
        connect_timeout_s=options.connect_timeout_s,
        timeout_s=options.timeout_s,
    ) as client:
        yield dataclasses.replace(client, link=None).infer, client.infer


def _server_address(options: RunOptions) -> str:
    if (options.address is None) == (options.ready_file is None):
        raise InputError(
            f"--address is {options.address}, --ready_file is {options.ready_file}; expected one "
            "of them. Say where the cloud server listens."
        )
    if options.ready_file is None:
        return str(options.address)
    deadline_s = time.monotonic() + options.connect_timeout_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(FileNotFoundError):
            return options.ready_file.read_text().strip()
        time.sleep(0.05)
    raise CloudUnavailableError(
        f"No cloud server wrote {options.ready_file} within {options.connect_timeout_s} s. "
        "Start it with `python -m experiments.serve_cloud --ready_file` and that path."
    )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    values = flags.FLAGS
    options = RunOptions(
        split=values.split,
        inputs=pathlib.Path(values.inputs),
        output=pathlib.Path(values.output),
        address=values.address,
        ready_file=pathlib.Path(values.ready_file) if values.ready_file else None,
        repeat=values.repeat,
        warmup=values.warmup,
        shape_link=values.shape_link,
        connect_timeout_s=values.connect_timeout_s,
        timeout_s=values.timeout_s,
    )
    try:
        run(options)
    except (AutosplitError, OSError) as error:
        sys.exit(f"run_edge: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
