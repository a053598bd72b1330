"""Runs the edge half of a saved split against its cloud server and reports the times.

    python -m experiments.run_edge --split DIR --output OUT.json \
        (--inputs FILE.npz | --inputs IMAGE,... | --inputs FOLDER | --inputs VIDEO | --camera 0) \
        (--address HOST:PORT | --ready_file FILE) [--repeat 3] [--warmup 2] \
        [--stream] [--alternatives DIR,...]

FILE.npz holds arrays arg0, arg1, ...: one per input of the manifest, in its order, each
with an additional leading axis over requests. Photographs and videos are prepared as
--model says. OUT.json gets the seconds of every stage of every request beside the prediction,
OUT.npz the outputs out0, out1, ... with the same leading axis. The link is that of the plan,
imitated in this process, so one request takes about as long as predicted for it; a table
of medians is printed at the end.

With --stream, and always with a video or a camera, frames are pipelined, the connection is as
it is unless --shape_link is given, and a lost one is opened again. --alternatives names
further saved splits of the same network: the plan follows the measured bandwidth, and an
edge-only one answers while the link is down. OUT.json tells of each frame which plan
answered it; OUT.npz has the numbers of the answered frames as ``frame``. Ctrl-C ends a camera.

A split of which nothing crosses runs without a server. The model's Python code is not
needed: the directory holds all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging

from autosplit.errors import AutosplitError, CloudUnavailableError, InputError
from autosplit.execution import artefact
from autosplit.execution.halves import Split
from autosplit.files import write_bytes, write_json
from autosplit.serving.edge_client import (
    EdgeClient,
    Outputs,
    check_inputs,
    connect,
    infer_on_edge,
)
from autosplit.serving.link import ShapedLink, plan_network
from autosplit.serving.protocol import PROTOCOL_VERSION
from autosplit.serving.security import ClientSecurity
from autosplit.serving.stage_times import StageTimes, median_times, stage_table
from autosplit.serving.streaming import StreamOptions
from experiments.edge_stream import run_stream, stream_outputs, stream_report
from experiments.frame_sources import Frame, open_frames

PROGRESS_LINES = 10

Infer = Callable[..., tuple[Outputs, StageTimes]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the flags say.

    Attributes:
      split: directory of the saved split.
      inputs: npz file, photographs, folder or video file of requests.
      camera: number of a camera, instead.
      model: whose preprocessing photographs get.
      frames: most that are taken; 0 takes all.
      stream: pipeline the frames.
      alternatives: directories of further splits.
      streaming: how, then.
      security: certificates and token.
      allow_insecure: send in plain text to other machines.
      output: JSON file to write; the outputs go beside it.
      address: ``host:port`` of the server; None where ``ready_file`` tells it.
      ready_file: where the server writes its address.
      repeat: timed inferences of each request.
      warmup: inferences of the first request that are not timed.
      shape_link: imitate the plan's link; else measure the connection as it is. None
        imitates it unless frames are streamed.
      connect_timeout_s: longest wait for the ready file, then for the first answer.
      timeout_s: longest wait for one response.
    """

    split: str
    inputs: tuple[str, ...]
    camera: int | None
    model: str | None
    frames: int
    stream: bool
    alternatives: tuple[str, ...]
    streaming: StreamOptions
    security: ClientSecurity | None
    allow_insecure: bool
    output: pathlib.Path
    address: str | None
    ready_file: pathlib.Path | None
    repeat: int
    warmup: int
    shape_link: bool | None
    connect_timeout_s: float
    timeout_s: float


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("split", None, "Directory of the saved split.", required=True)
    flags.DEFINE_list("inputs", [], "npz file with arg0, arg1, ..., photographs, folder, video.")
    flags.DEFINE_integer("camera", None, "Number of a camera to take frames from.", lower_bound=0)
    flags.DEFINE_string("model", None, "Prepare photographs as this model of the zoo wants them.")
    flags.DEFINE_integer("frames", 0, "Most frames to take; 0 takes all.", lower_bound=0)
    flags.DEFINE_bool("stream", False, "Pipeline the frames; video and cameras always are.")
    flags.DEFINE_list("alternatives", [], "Directories of further splits to switch to.")
    flags.DEFINE_integer("in_flight", 3, "Most frames under way in a stream.", lower_bound=1)
    flags.DEFINE_float("patience_s", 1.0, "Then an edge-only alternative answers a frame.")
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_string("address", None, "host:port of the cloud server.")
    flags.DEFINE_string("ready_file", None, "File that the server writes its address to.")
    flags.DEFINE_integer("repeat", 1, "Timed inferences of each request.", lower_bound=1)
    flags.DEFINE_integer("warmup", 2, "Untimed inferences first.", lower_bound=1)
    flags.DEFINE_bool("shape_link", None, "Imitate the plan's network; not in a stream if unset.")
    flags.DEFINE_string("ca", None, "PEM file with the authority of the server's certificate.")
    flags.DEFINE_string("certificate", None, "PEM file with the certificate of this client.")
    flags.DEFINE_string("key", None, "PEM file with its key.")
    flags.DEFINE_string("token_file", None, "File with the token of this client.")
    flags.DEFINE_bool("allow_insecure", False, "Send in plain text to other machines.")
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
    frames, is_live = open_frames(
        options.inputs, options.camera, options.model, split.manifest.inputs
    )
    frames = itertools.islice(frames, options.frames or None)
    streams = is_live or options.stream
    shaped = not streams if options.shape_link is None else options.shape_link
    link = ShapedLink(network=plan_network(split.manifest)) if shaped else None
    if streams:
        report, outputs = _run_stream(split, frames, options, link)
    else:
        report, outputs = _run_requests(split, list(frames), options, link)
    report["network"] = split.manifest.network if shaped else None
    outputs_file = options.output.with_suffix(".npz")
    archive = io.BytesIO()
    np.savez(archive, **outputs)
    write_bytes(outputs_file, archive.getvalue())
    write_json(options.output, {**report, "outputs": outputs_file.name})
    if report["measured"] is not None:
        print(stage_table(report["measured"], split.manifest.predicted))


def _run_requests(
    split: Split, requests: Sequence[Frame], options: RunOptions, link: ShapedLink | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs one request after the other and times every stage."""
    if options.alternatives:
        raise InputError(
            f"--alternatives is {list(options.alternatives)} without --stream; expected a stream, "
            "in which plans are switched. Add --stream."
        )
    for request in requests:
        check_inputs(split, request)
    with _open_split(split, options, link) as (warm_infer, infer):
        for _ in range(options.warmup):
            warm_infer(*requests[0])
        outputs, times = measure(infer, requests, options.repeat)
    report = {
        "protocol_version": PROTOCOL_VERSION,
        "split_id": split.manifest.split_id,
        "requests": len(requests),
        "repeat": options.repeat,
        "measured": median_times([one for repeats in times for one in repeats]),
        "predicted": split.manifest.predicted,
        "times": times,
    }
    leaves = enumerate(zip(*outputs, strict=True))
    return report, {f"out{index}": np.stack(leaf) for index, leaf in leaves}


def _run_stream(
    split: Split, frames: Iterator[Frame], options: RunOptions, link: ShapedLink | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the frames as a stream; every half is compiled first."""
    others = [artefact.load(path, sides=("edge",)) for path in options.alternatives]
    first = next(frames)
    for one in (split, *others):
        check_inputs(one, first)
        one.edge(*first)
    with _connected(split, options, link, others) as client:
        run = run_stream(client, itertools.chain((first,), frames), options.streaming)
    return stream_report(run, (split, *others)), stream_outputs(run)


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
def _open_split(
    split: Split, options: RunOptions, link: ShapedLink | None
) -> Iterator[tuple[Infer, Infer]]:
    """Yields the function to warm up with and the one to time; the former skips the link."""
    if not split.manifest.crossing:

        def infer(*inputs: np.ndarray) -> tuple[Outputs, StageTimes]:
            return infer_on_edge(split, *inputs)

        yield infer, infer
        return
    with _connected(split, options, link) as client:
        yield dataclasses.replace(client, link=None).infer, client.infer


def _connected(
    split: Split, options: RunOptions, link: ShapedLink | None, others: Sequence[Split] = ()
) -> contextlib.AbstractContextManager[EdgeClient]:
    return connect(
        split,
        _server_address(options),
        link=link,
        security=options.security,
        allow_insecure=options.allow_insecure,
        alternatives=others,
        connect_timeout_s=options.connect_timeout_s,
        timeout_s=options.timeout_s,
    )


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
    try:
        run(options_of(flags.FLAGS))
    except (AutosplitError, OSError) as error:
        sys.exit(f"run_edge: {error}")


def options_of(values: Any) -> RunOptions:
    """Returns what the flags say."""
    return RunOptions(
        split=values.split,
        inputs=tuple(values.inputs),
        camera=values.camera,
        model=values.model,
        frames=values.frames,
        stream=values.stream,
        alternatives=tuple(values.alternatives),
        streaming=StreamOptions(in_flight=values.in_flight, patience_s=values.patience_s),
        security=_security(values),
        allow_insecure=values.allow_insecure,
        output=pathlib.Path(values.output),
        address=values.address,
        ready_file=pathlib.Path(values.ready_file) if values.ready_file else None,
        repeat=values.repeat,
        warmup=values.warmup,
        shape_link=values.shape_link,
        connect_timeout_s=values.connect_timeout_s,
        timeout_s=values.timeout_s,
    )


def _security(values: Any) -> ClientSecurity | None:
    """Returns how to reach the server; None where no flag speaks of it."""
    files = {name: getattr(values, name) for name in ("ca", "certificate", "key")}
    paths = {name: pathlib.Path(path) if path else None for name, path in files.items()}
    token = None
    if values.token_file:
        token = pathlib.Path(values.token_file).read_text().strip()
    if token is None and not any(paths.values()):
        return None
    return ClientSecurity(**paths, token=token, encrypted=any(paths.values()))


if __name__ == "__main__":
    define_flags()
    app.run(main)
