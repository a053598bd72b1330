"""Splits come and go in a directory while the server runs."""

import asyncio
import contextlib
import gc
import io
import json
import logging
import shutil
import threading
import weakref

import grpc
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import ArtefactError, InputError
from autosplit.execution.artefact import load
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.logs import LOGGER, JsonLines, log, write_logs
from autosplit.serving.registry import SplitRegistry, open_splits
from autosplit.serving.server_options import ServerOptions

LONG_S = 30.0


def network(p, x):
    return jax.nn.relu(x @ p["a"]) @ p["b"]


def make_split(seed):
    rng = np.random.default_rng(seed)
    params = {"a": rng.normal(size=(6, 9)), "b": rng.normal(size=(9, 3))}
    params = jax.tree.map(jnp.float32, params)
    graph = autosplit.trace(network, params, np.zeros((2, 6), np.float32))
    cut = next(cut for cut in graph.cuts() if 0 < sum(cut.on_edge) < len(cut.on_edge))
    return autosplit.split(graph, params, cut)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three saved splits, by their names."""
    folder = tmp_path_factory.mktemp("saved")
    for seed, name in enumerate("abc"):
        make_split(seed).save(folder / name)
    return folder


@pytest.fixture
def directory(saved, tmp_path):
    shutil.copytree(saved / "a", tmp_path / "served" / "a")
    return tmp_path / "served"


@pytest.fixture
def registry():
    return SplitRegistry(jax.devices()[:1], (1,), 10**6)


@pytest.fixture
def events():
    """The lines that the server logs during a test."""
    stream, before = io.StringIO(), (LOGGER.handlers[:], LOGGER.propagate, LOGGER.level)
    write_logs(stream, "info")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    LOGGER.handlers[:], LOGGER.propagate = before[:2]
    LOGGER.setLevel(before[2])


def id_of(folder):
    return json.loads((folder / "manifest.json").read_text())["body"]["split_id"]


def test_a_directory_is_followed(registry, directory, saved, events):
    assert registry.look(directory)
    assert list(registry.served) == [id_of(saved / "a")]
    assert not registry.look(directory)
    shutil.copytree(saved / "b", directory / "b")
    assert registry.look(directory)
    assert set(registry.served) == {id_of(saved / "a"), id_of(saved / "b")}
    shutil.rmtree(directory / "a")
    assert registry.look(directory)
    assert list(registry.served) == [id_of(saved / "b")]
    with pytest.raises(protocol.UnknownSplitError, match="copy it into"):
        registry.find(id_of(saved / "a"))
    assert [one["event"] for one in events()] == ["split loaded", "split loaded", "split dropped"]


def test_a_folder_that_gets_another_split_serves_that_one(registry, directory, saved):
    registry.look(directory)
    load(saved / "b")
    shutil.rmtree(directory / "a")
    shutil.copytree(saved / "b", directory / "a")
    assert registry.look(directory)
    assert list(registry.served) == [id_of(saved / "b")]


def test_a_half_copied_split_waits_until_it_is_whole(registry, directory, saved, events):
    registry.look(directory)
    (directory / "b").mkdir()
    names = ["manifest.json", *sorted(p.name for p in (saved / "b").iterdir())]
    for name in names[:-1]:
        shutil.copy(saved / "b" / name, directory / "b" / name)
        registry.look(directory)
    assert id_of(saved / "a") in registry.served  # the others are not disturbed
    shutil.copy(saved / "b" / names[-1], directory / "b" / names[-1])
    registry.look(directory)
    assert id_of(saved / "b") in registry.served
    assert "split not loaded" in {one["event"] for one in events()}


def test_a_dropped_split_is_freed(registry, directory):
    registry.look(directory)
    (served,) = map(weakref.ref, registry.served.values())
    shutil.rmtree(directory / "a")
    registry.look(directory)
    gc.collect()
    assert served() is None


def test_hidden_folders_and_files_are_no_splits(registry, directory, saved):
    shutil.copytree(saved / "b", directory / ".b.draft")
    (directory / "notes.txt").write_text("nothing")
    (directory / "empty").mkdir()
    registry.look(directory)
    assert list(registry.served) == [id_of(saved / "a")]


def test_a_split_that_needs_longer_messages_is_not_served(directory, events):
    registry = SplitRegistry(jax.devices()[:1], (1,), 10)
    assert not registry.look(directory)
    assert "message_bytes" in events()[-1]["error"]


def test_a_directory_that_vanishes_changes_nothing(registry, directory, events):
    registry.look(directory)

    async def run():
        watching = asyncio.create_task(registry.watch(directory, 0.01, changed))
        shutil.rmtree(directory)
        async with asyncio.timeout(LONG_S):
            while not any(one["event"] == "directory not readable" for one in events()):
                await asyncio.sleep(0.01)
        watching.cancel()

    async def changed():
        pytest.fail("nothing changed")

    asyncio.run(run())
    assert len(registry.served) == 1


def test_what_is_given_is_opened(saved, tmp_path):
    one = load(saved / "a")
    assert open_splits(one) == ([one], None)
    assert open_splits([one, one]) == ([one, one], None)
    (read,), watched = open_splits(saved / "a")
    assert (read.manifest, watched) == (load(saved / "a", sides=("cloud",)).manifest, None)
    assert open_splits(str(saved)) == ([], saved)
    assert open_splits(tmp_path) == ([], tmp_path)  # empty, to be filled
    (tmp_path / "a").touch()
    for nothing in (tmp_path, tmp_path / "a", tmp_path / "missing"):
        with pytest.raises(InputError, match="saved split"):
            open_splits(nothing)
    with pytest.raises(InputError, match="at least one"):
        open_splits([])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtefactError):
        open_splits(tmp_path)


def test_splits_come_and_go_without_a_restart(directory, saved):
    first, second = load(saved / "a"), load(saved / "b")
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    with (
        serving(directory, options=ServerOptions(watch_s=0.02, max_batch=2)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb2_grpc.SplitInferenceStub(channel)

        def wait_for(*splits):
            asked = pb2.DescribeRequest(protocol_version=protocol.PROTOCOL_VERSION)
            wanted = protocol.describe([split.manifest for split in splits])
            waited = threading.Event()
            for _ in range(int(LONG_S / 0.02)):
                if stub.Describe(asked, timeout=LONG_S) == wanted:
                    return
                waited.wait(0.02)
            pytest.fail("the served splits did not change")

        def infer(split, number):
            request = codec.encode_request(split.manifest, split.edge(x), b"c" * 16, number)
            response = stub.Infer(request, timeout=LONG_S)
            (found,) = codec.decode_response(split.manifest, response)
            np.testing.assert_array_equal(found, split.cloud(split.edge(x)))

        wait_for(first)
        infer(first, 1)
        shutil.copytree(saved / "b", directory / "b")
        wait_for(first, second)
        infer(second, 2)
        infer(first, 3)
        shutil.rmtree(directory / "a")
        wait_for(second)
        infer(second, 4)
        with pytest.raises(grpc.RpcError) as caught:
            infer(first, 5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# ---- Logs


def test_a_line_of_the_log_is_one_json_object(events):
    with contextlib.suppress(ZeroDivisionError):
        try:
            _ = 1 / 0
        finally:
            log(logging.ERROR, "failed", traceback=True, path="a\nb", error=ValueError("no"))
    log(logging.DEBUG, "below the level")
    (line,) = events()
    assert (line["level"], line["event"], line["path"], line["error"]) == (
        "error", "failed", "a\nb", "no",
    )  # fmt: skip
    assert "ZeroDivisionError" in line["traceback"]


def test_the_log_takes_any_record():
    record = logging.LogRecord("x", logging.INFO, "", 0, "%d splits", (2,), None)
    assert json.loads(JsonLines().format(record))["event"] == "2 splits"
