"""Shows a split detector beside cloud-only JPEG in the browser; see ``configs/face_demo.py``.

    python -m experiments.face_demo --config=configs/face_demo.py --workdir=build/face_demo \
        [--port 8765] [--camera 0] [--seconds 30 | --seconds_each 5]

Plans where nothing is saved yet, starts the cloud process, and shows the page's address. This
process is the edge: it takes a frame, runs it through the split and then through cloud-only, each
over a shaped link of its own, and takes the newest frame. In turn, so that neither takes the
other's processor. It ends by Ctrl-C, or after ``--seconds``, and writes ``measured.json``.
``--seconds_each`` visits every JPEG quality at the configuration's rate, then every rate.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from autosplit.errors import AutosplitError, CloudUnavailableError
from autosplit.files import write_json
from autosplit.hardware import Network
from autosplit.reporting import run_record
from experiments.face_demo_clip import Clip, FrameSource, network_input, open_camera
from experiments.face_demo_detector import load_clip_photographs
from experiments.face_demo_edge import Pane, PicturePane, jpeg_bytes, linked, open_split_pane
from experiments.face_demo_page import serving_page
from experiments.face_demo_plans import SPLITS, PlanSet, load_splits, prepare
from experiments.face_demo_state import STAGES, Board, FrameResult, Limits, Settings, median_ms
from experiments.flag_parsing import parse_flags
from experiments.processes import ROOT, START_S, stopped_afterwards

PREVIEW_QUALITY = 80
SAMPLE_FRAMES = 4
FAILURE_PAUSE_S = 1.0
WARM_FRAMES = 3  # of each pane, not counted: the connection opens, programs compile

Counted = list[tuple[Settings, str, FrameResult]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show:
    """What runs.

    Attributes:
      source: of frames.
      size: (height, width) of the network's input.
      panes: the solutions, in turn.
      board: for the page.
    """

    source: FrameSource
    size: tuple[int, int]
    panes: Sequence[Pane]
    board: Board

    def run(self, stopped: threading.Event, seconds: float | None = None) -> Counted:
        """Works until it is stopped; returns every result, the first few of each pane left out."""
        start_s = time.monotonic()
        results: Counted = []
        while not stopped.is_set():
            elapsed_s = time.monotonic() - start_s
            if seconds is not None and elapsed_s >= seconds:
                break
            if self.board.settings.paused:
                self.board.wait_while_paused(FAILURE_PAUSE_S)
                continue
            number, frame = self.source.frame_at(elapsed_s)
            results += self._frame(number, frame, stopped)
        return results[WARM_FRAMES * len(self.panes) :]

    def _frame(self, number: int, frame: np.ndarray, stopped: threading.Event) -> Counted:
        image, picture = network_input(frame, *self.size), data_url(frame)
        results = []
        for pane in self.panes:
            settings = self.board.settings
            try:
                result = pane.detect(image, settings)
            except AutosplitError as error:
                self.board.fail(pane.name, str(error))
                stopped.wait(FAILURE_PAUSE_S)
            else:
                self.board.publish(pane.name, number, picture, result)
                results.append((settings, pane.name, result))
        return results


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", "configs/face_demo.py", "What to show.")
    flags.DEFINE_string("workdir", None, "Directory for plans and results.", required=True)
    flags.DEFINE_integer("port", 8765, "Of the page; 0 takes a free one.", 0, 65535)
    flags.DEFINE_integer("camera", None, "Number of a camera, instead of the clip.", 0)
    flags.DEFINE_float("seconds", None, "Stop after as long.", 0.0)
    flags.DEFINE_float("seconds_each", None, "Visit all settings, each for as long.", 0.1)
    flags.DEFINE_string("ready_file", None, "Gets the page's address when it is there.")


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    port: int = 0,
    camera: int | None = None,
    seconds: float | None = None,
    seconds_each: float | None = None,
    ready_file: pathlib.Path | None = None,
    stopped: threading.Event | None = None,
) -> dict[str, Any]:
    """Shows the demonstration until it is stopped.

    Args:
      config: see ``configs/face_demo.py``.
      workdir: for plans and results.
      port: of the page.
      camera: number of a camera; None shows the clip.
      seconds: of the show; None goes on until ``stopped``.
      seconds_each: visit every setting for as long, and stop then; None leaves them to the page.
      ready_file: gets the page's address.
      stopped: ends the show.

    Returns:
      What ``measured.json`` holds.

    Raises:
      AutosplitError: the configuration, the plans or the cloud process are not as expected.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    record = run_record(config.to_dict(), config.seed)
    print("== Plan, unless that was done before", flush=True)
    plans = prepare(config, workdir)
    source = open_camera(camera) if camera is not None else clip_of(config)
    network = Network(**config.network.to_dict())
    size = (config.model.height, config.model.width)
    samples = np.stack([network_input(source.frame_at(float(second))[1], *size)
                        for second in range(SAMPLE_FRAMES)])  # fmt: skip
    board = Board(first_settings(config), limits_of(config))
    print("== Start the cloud process", flush=True)
    with contextlib.ExitStack() as stack:
        addresses = stack.enter_context(cloud_process(workdir / SPLITS))
        splits = load_splits(plans, workdir, ("edge",))
        split_pane = stack.enter_context(
            open_split_pane(plans, splits, addresses["splits"], network, samples)
        )
        pictures, link = stack.enter_context(linked(addresses["pictures"], network))
        picture_pane = stack.enter_context(contextlib.closing(PicturePane(pictures, link)))
        show = Show(source=source, size=size, panes=(split_pane, picture_pane), board=board)
        page = stack.enter_context(serving_page(board, facts_of(config, plans), port))
        print(f"The page is {page} (Ctrl-C ends it)", flush=True)
        if ready_file is not None:
            ready_file.write_text(page)
        stopped = stopped or threading.Event()
        if seconds_each is not None:
            stack.enter_context(touring(board, config, seconds_each, stopped))
        results = show.run(stopped, seconds)
    document = {"title": config.title, "rows": summary(results, plans), "record": record}
    write_json(workdir / "measured.json", document)
    return document


@contextlib.contextmanager
def touring(
    board: Board, config: ml_collections.ConfigDict, seconds_each: float, stopped: threading.Event
) -> Iterator[None]:
    """Changes the settings as a person would, in a thread; sets ``stopped`` after the last."""
    qualities = (*config.jpeg_qualities, config.jpeg_quality)
    visits: list[dict[str, float]] = [{"jpeg_quality": int(quality)} for quality in qualities]
    visits += [{"uplink_bits_per_s": float(rate)} for rate in config.rates_bits_per_s]

    def change() -> None:
        for visit in visits:
            board.change(json.dumps(visit).encode())
            if stopped.wait(seconds_each):
                return
        stopped.set()

    thread = threading.Thread(target=change, name="tour", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def clip_of(config: ml_collections.ConfigDict) -> Clip:
    """Returns the clip of a configuration."""
    return Clip(
        photographs=load_clip_photographs(config),
        frames_per_s=config.clip.frames_per_s,
        move_s=config.clip.move_s,
    )


def first_settings(config: ml_collections.ConfigDict) -> Settings:
    """Returns what the page shows at first."""
    return Settings(
        uplink_bits_per_s=config.network.uplink_bits_per_s, jpeg_quality=config.jpeg_quality
    )


def limits_of(config: ml_collections.ConfigDict) -> Limits:
    """Returns what the page may set."""
    return Limits(
        lowest_bits_per_s=min(config.rates_bits_per_s),
        highest_bits_per_s=max(config.rates_bits_per_s),
        jpeg_qualities=tuple(config.jpeg_qualities),
    )


def facts_of(config: ml_collections.ConfigDict, plans: PlanSet) -> dict[str, Any]:
    """Returns what the page shows that does not change, as JSON values."""
    return {
        "title": config.title,
        "size": [config.model.width, config.model.height],
        "stages": STAGES,
        "limits": dataclasses.asdict(limits_of(config)),
        "memory_bytes": config.constraints.memory_bytes,
        "round_trip_s": config.network.round_trip_s,
        "plans": json.loads(json.dumps(dataclasses.asdict(plans))),
    }


def summary(results: Counted, plans: PlanSet) -> list[dict[str, Any]]:
    """Returns medians for each solution under each of its settings."""
    groups: dict[tuple[Any, ...], list[FrameResult]] = {}
    for settings, name, result in results:
        quality = settings.jpeg_quality if name == "cloud" else None
        key = (name, settings.uplink_bits_per_s, quality, result.plan)
        groups.setdefault(key, []).append(result)
    rows = []
    for (name, rate, quality, plan), each in groups.items():
        totals = sorted(one.total_s for one in each)
        predicted = None if plan is None else plans.rates[plan]
        rows.append({
            "solution": name, "uplink_bits_per_s": rate, "jpeg_quality": quality,
            "frames": len(each),
            "median_ms": median_ms(totals),
            "p95_ms": totals[int(0.95 * (len(totals) - 1))] * 1e3,
            "stages_ms": {stage: median_ms(r.stages_s[stage] for r in each) for stage in STAGES},
            "sent_bytes": float(np.median([one.sent_bytes for one in each])),
            "payload_bytes": float(np.median([one.payload_bytes for one in each])),
            "output_error": plans.jpeg_errors[str(quality)] if predicted is None
            else predicted.output_error,
            "predicted_ms": None if predicted is None else predicted.latency_s * 1e3,
        })  # fmt: skip
    return rows


def data_url(frame: np.ndarray) -> str:
    """Returns u8[H, W, 3] as an image that a page can show."""
    encoded = base64.b64encode(jpeg_bytes(frame, PREVIEW_QUALITY)).decode()
    return f"data:image/jpeg;base64,{encoded}"


@contextlib.contextmanager
def cloud_process(splits: pathlib.Path) -> Iterator[Mapping[str, str]]:
    """Yields the addresses of a cloud process that is ready, and stops it afterwards.

    Raises:
      CloudUnavailableError: it ended, or was not ready in time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        ready = pathlib.Path(scratch) / "ready"
        command = [sys.executable, "-m", "experiments.face_demo_cloud",
                   "--workdir", str(splits), "--ready_file", str(ready)]  # fmt: skip
        with (
            subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process,
            stopped_afterwards(process),
        ):
            yield _addresses(process, ready)


def _addresses(process: subprocess.Popen[bytes], ready: pathlib.Path) -> Mapping[str, str]:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(ready.read_text()))
        time.sleep(0.05)
    raise CloudUnavailableError(
        f"The cloud process was not ready within {START_S:.0f} s (exit status "
        f"{process.poll()}); expected a few seconds. Look at what it printed above."
    )


def main(argv: Sequence[str]) -> None:
    """Reads the flags and shows."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    values = flags.FLAGS
    try:
        document = run(
            values.config,
            pathlib.Path(values.workdir).resolve(),
            port=values.port,
            camera=values.camera,
            seconds=values.seconds,
            seconds_each=values.seconds_each,
            ready_file=pathlib.Path(values.ready_file) if values.ready_file else None,
            stopped=stopped,
        )
    except (AutosplitError, OSError) as error:
        sys.exit(f"face_demo: {error}")
    for row in document["rows"]:
        print(
            f"{row['solution']:6} {row['uplink_bits_per_s'] / 1e6:5.1f} Mbps: "
            f"{row['median_ms']:6.1f} ms, {row['sent_bytes']:.0f} bytes, output error "
            f"{row['output_error']:.4f} ({row['frames']} frames)"
        )


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse_flags)
