"""The edge program streams frames to a server, and survives its end."""

import contextlib
import importlib
import json
import statistics
import time

import numpy as np
import PIL.Image
import pytest

from autosplit.execution import artefact
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect
from autosplit.serving.streaming import StreamOptions
from tests.serving.process_case import (
    REQUESTS,
    running_server,
)

# ---- Streams


@pytest.fixture
def streams(saved, tmp_path, monkeypatch):
    """Returns a function that runs the edge program here as a stream, against a server here."""
    folder = saved[1]
    program = importlib.import_module("experiments.run_edge")

    def run(**options):
        defaults = {
            "camera": None, "model": None, "frames": 0, "stream": True, "alternatives": (),
            "streaming": program.StreamOptions(in_flight=2), "security": None,
            "allow_insecure": False, "ready_file": None, "repeat": 1, "warmup": 1,
            "shape_link": None, "connect_timeout_s": 10.0, "timeout_s": 30.0,
        }  # fmt: skip
        with serving(folder / "cloud") as address:
            program.run(program.RunOptions(**{
                **defaults, "split": str(folder / "edge"), "inputs": (str(folder / "in.npz"),),
                "output": tmp_path / "out.json", "address": address, **options,
            }))  # fmt: skip
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_a_stream_gives_what_single_requests_give(saved, streams, tmp_path):
    case, _ = saved
    report = streams()
    assert_same_outputs_of_stream(case, tmp_path, range(REQUESTS))
    assert report["counts"] == {"cloud": REQUESTS}
    assert report["network"] is None
    assert [answer["frame"] for answer in report["answers"]] == list(range(REQUESTS))
    assert report["plans"] == [
        {"split_id": case.split.manifest.split_id, "label": case.split.manifest.label}
    ]
    assert report["measured"]["total_s"] == statistics.median(
        answer["times"]["total_s"] for answer in report["answers"]
    )


def test_a_stream_takes_alternatives_and_a_part_of_the_frames(
    saved, make_case, streams, tmp_path
):
    case, _ = saved
    make_case["edge-only"]().split.save(tmp_path / "alone")
    report = streams(alternatives=(str(tmp_path / "alone"),), frames=2, shape_link=True)
    assert_same_outputs_of_stream(case, tmp_path, range(2))
    assert report["network"] == case.split.manifest.network
    assert [plan["label"] for plan in report["plans"]][1] == "edge-only"


def test_photographs_are_streamed_and_sent_one_by_one_alike(streams, tmp_path):
    for index in range(2):
        image = np.full((20, 24, 3), 90 * index, np.uint8)
        PIL.Image.fromarray(image).save(tmp_path / f"{index}.png")
    outputs = []
    for stream in (True, False):
        streams(inputs=(str(tmp_path),), stream=stream, shape_link=False)
        with np.load(tmp_path / "out.npz") as found:
            outputs.append({name: found[name] for name in found.files if name != "frame"})
    assert outputs[0].keys() == outputs[1].keys()
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])


def test_alternatives_are_of_no_use_without_a_stream(fails, tmp_path):
    assert "Add --stream" in fails(alternatives=[str(tmp_path)], address="127.0.0.1:9")


@pytest.mark.heavy
def test_a_server_process_that_is_killed_and_started_again_loses_no_frame(saved):
    case, folder = saved
    split = artefact.load(folder / "edge", sides=("edge",))
    frames = [tuple(array[at % REQUESTS] for array in case.inputs) for at in range(60)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(folder))
        address = wait_for(folder / "ready")
        client = stack.enter_context(connect(split, address))
        stream = client.stream(frames, StreamOptions(in_flight=3, patience_s=None))
        answers = [next(stream) for _ in range(20)]
        server.kill()
        server.wait()
        (folder / "ready").unlink()
        stack.enter_context(running_server(folder, address=address))
        answers += stream
    assert [answer.frame for answer in answers] == list(range(60))
    for answer in answers:
        assert answer.error is None
        for got, want in zip(answer.outputs, case.outputs(answer.frame % REQUESTS), strict=True):
            assert got.tobytes() == want.tobytes()


def wait_for(ready, timeout_s=60.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if ready.exists():
            return ready.read_text().strip()
        time.sleep(0.05)
    raise TimeoutError(f"no server wrote {ready}")


def assert_same_outputs_of_stream(case, folder, frames):
    with np.load(folder / "out.npz") as found:
        assert found["frame"].tolist() == list(frames)
        for frame in frames:
            for index, array in enumerate(case.outputs(frame)):
                assert found[f"out{index}"][frame].tobytes() == array.tobytes()
