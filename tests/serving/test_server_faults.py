"""What goes wrong around a server does not reach its other clients, and loses nothing silently."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.execution.manifest import TensorSpec
from autosplit.serving import codec
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.server_options import ServerOptions

ROOT = pathlib.Path(__file__).parents[2]
LONG_S = 60.0
MIB = 2**20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")  # and settings


def make_request(split, images, number, client_id=b"c" * 16):
    payload = split.pack(split.edge_layers(images))
    return codec.encode_request(split.manifest, payload, client_id, number)


def assert_serves(split, images, address, client_id=b"z" * 16):
    with grpc.insecure_channel(address) as channel:
        stub = pb2_grpc.SplitInferenceStub(channel)
        number = time.monotonic_ns()
        response = stub.Infer(make_request(split, images, number, client_id), timeout=LONG_S)
    found = codec.decode_response(split.manifest, response)
    expected = split.cloud_outputs(split.edge_layers(images))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        PREFACE[:10],
        PREFACE,
        PREFACE + bytes.fromhex("00ffff000100000001") + b"half of the headers",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(2000),
    ],
)
def test_a_half_written_message_hurts_nobody(split, images, sent):
    with serving(split) as address:
        host, port = address.split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                broken = stack.enter_context(socket.create_connection((host, int(port))))
                broken.sendall(sent)
            assert_serves(split, images, address)
        assert_serves(split, images, address)


def test_a_message_cut_off_in_the_middle_is_not_computed(split, images):
    """A proxy passes on the first half of a request, then closes both connections."""
    calls, compute = [], split.cloud_outputs
    split.cloud_outputs = lambda codes: (calls.append(1), compute(codes))[1]
    with serving(split) as address, contextlib.closing(socket.create_server(("", 0))) as proxy:
        calls.clear()
        port = int(address.split(":")[1])

        def forward():
            client, _ = proxy.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                server.sendall(client.recv(65536)[:-20])

        thread = threading.Thread(target=forward)
        thread.start()
        options = (("grpc.enable_retries", 0),)
        with grpc.insecure_channel(f"127.0.0.1:{proxy.getsockname()[1]}", options) as channel:
            stub = pb2_grpc.SplitInferenceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.Infer(make_request(split, images, 1), timeout=2.0)
        thread.join()
        assert not calls
        assert_serves(split, images, address)


def test_a_client_that_does_not_read_is_not_read_from(split, images):
    """Its answers of 1 MiB fill the connection; then the server takes no more of its requests."""
    specs = (*split.manifest.outputs,
             TensorSpec(name="big", shape=(MIB,), dtype="uint8", bits=32,
                        payload_bytes=MIB))  # fmt: skip
    split.manifest = dataclasses.replace(split.manifest, outputs=specs)
    calls, compute = [], split.cloud_outputs
    split.cloud_outputs = lambda codes: (
        calls.append(1), (*compute(codes), np.zeros(MIB, np.uint8)),
    )[1]  # fmt: skip
    window, requests = 3, 40
    limit = (("grpc.max_receive_message_length", 4 * MIB),)
    with (
        serving(split, options=ServerOptions(stream_requests=window, drain_s=1.0)) as address,
        grpc.insecure_channel(address, limit) as channel,
        grpc.insecure_channel(address, limit) as other,
    ):
        calls.clear()
        numbered = (make_request(split, images, number) for number in range(requests))
        slow = pb2_grpc.SplitInferenceStub(channel).InferStream(numbered, timeout=LONG_S)
        before = -1
        while before != len(calls):
            before = len(calls)
            time.sleep(0.2)
        assert window <= before < requests / 2
        quick = make_request(split, images, 1, b"q" * 16)
        assert pb2_grpc.SplitInferenceStub(other).Infer(quick, timeout=LONG_S).request_id == 1
        assert len(list(slow)) == requests  # once it reads, it gets all
        assert len(calls) == requests + 1


@pytest.mark.heavy
def test_a_thousand_connections_are_served(split, images):
    count = 1000

    async def one(address, number):
        # Channels with equal arguments would share a connection.
        async with grpc.aio.insecure_channel(address, (("one", number),)) as channel:
            stub = pb2_grpc.SplitInferenceStub(channel)
            request = make_request(split, images, number)
            response = await stub.Infer(request, timeout=LONG_S)
            await everybody.wait()  # until then, all connections stay open
            again = await stub.Infer(request, timeout=LONG_S)
            assert (response.request_id, again.request_id) == (number, number)
            assert response.outputs == again.outputs
            return codec.decode_response(split.manifest, response)

    async def run(address):
        calls = [asyncio.create_task(one(address, number)) for number in range(count)]
        async with asyncio.timeout(LONG_S):
            while len(open_connections(address)) < count and not any(c.done() for c in calls):
                await asyncio.sleep(0.1)
        everybody.set()
        return await asyncio.gather(*calls)

    everybody = asyncio.Event()
    expected = split.cloud_outputs(split.edge_layers(images))
    with serving(split, options=ServerOptions(queue=count)) as address:
        for found in asyncio.run(run(address)):
            np.testing.assert_array_equal(found[0], expected[0])


def open_connections(address):
    """Returns the established connections to a port, as the kernel lists them."""
    port = f"{int(address.split(':')[1]):04X}"
    tables = [pathlib.Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return [row for row in rows if row[1].endswith(f":{port}") and row[3] == "01"]


# ---- A server of its own process


def network(p, x):
    for _ in range(3):
        x = jnp.tanh(x @ p["a"])
    return x @ p["b"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(8, 8)), "b": rng.normal(size=(8, 3))}
    params = jax.tree.map(jnp.float32, params)
    x = rng.normal(size=(2, 8)).astype(np.float32)
    graph = autosplit.trace(network, params, x)
    cut = next(cut for cut in graph.cuts() if 0 < sum(cut.on_edge) < len(cut.on_edge))
    split = autosplit.split(graph, params, cut)
    folder = tmp_path_factory.mktemp("split") / "split"
    split.save(folder)
    return split, folder, x


@contextlib.contextmanager
def server_process(folder, ready, port=0, environment=None, **options):
    ready.unlink(missing_ok=True)
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "experiments.serve_cloud", f"--split={folder}",
               f"--address=127.0.0.1:{port}", f"--ready_file={ready}", *given]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
    ) as process:  # fmt: skip
        try:
            deadline_s = time.monotonic() + LONG_S
            while not ready.exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            yield process, ready.read_text().strip()
        finally:
            process.kill()
            process.communicate()


@pytest.mark.heavy
def test_a_server_killed_in_mid_request_comes_back_and_the_retry_is_answered(saved, tmp_path):
    split, folder, x = saved
    options = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50))
    answered, unanswered, stop = {}, [], threading.Event()
    with contextlib.ExitStack() as stack:
        process, address = stack.enter_context(server_process(folder, tmp_path / "ready"))
        channel = stack.enter_context(grpc.insecure_channel(address, options))
        stub = pb2_grpc.SplitInferenceStub(channel)

        def ask():
            number = 0
            while not stop.is_set():
                number += 1
                request = codec.encode_request(split.manifest, split.edge(x), b"c" * 16, number)
                while number not in answered:
                    try:
                        answered[number] = stub.Infer(request, timeout=5.0)
                    except grpc.RpcError as error:
                        unanswered.append(error.code())
                        time.sleep(0.05)

        client = threading.Thread(target=ask)
        client.start()
        while len(answered) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(answered)
        again = server_process(folder, tmp_path / "ready", port=int(address.split(":")[1]))
        stack.enter_context(again)
        while len(answered) < before + 20:
            time.sleep(0.01)
        stop.set()
        client.join()
    lost = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert set(unanswered) <= lost
    assert unanswered  # the client knew
    assert sorted(answered) == list(range(1, len(answered) + 1))
    expected = split.cloud(split.edge(x))
    for response in answered.values():
        np.testing.assert_array_equal(codec.decode_response(split.manifest, response)[0], expected)


@pytest.mark.heavy
def test_a_terminated_server_answers_what_it_accepted(saved, tmp_path):
    split, folder, x = saved
    payload = split.edge(x)
    with (
        server_process(folder, tmp_path / "ready") as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb2_grpc.SplitInferenceStub(channel)
        requests = (
            codec.encode_request(split.manifest, payload, b"c" * 16, n) for n in range(10**6)
        )
        stream = stub.InferStream(requests, timeout=LONG_S)
        answers = [next(stream) for _ in range(50)]
        process.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            answers.extend(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert process.wait(timeout=LONG_S) == 0
    # Together the answers are those of the first requests: what was not computed was refused.
    refused = [response for response in answers if response.status]
    assert {response.status for response in refused} <= {grpc.StatusCode.UNAVAILABLE.value[0]}
    assert len(refused) < len(answers)
    assert sorted(response.request_id for response in answers) == list(range(len(answers)))


@pytest.mark.heavy
def test_requests_are_spread_over_devices(saved, tmp_path):
    split, folder, x = saved
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    with (
        server_process(folder, tmp_path / "ready", environment=flags) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb2_grpc.SplitInferenceStub(channel)
        requests = [
            codec.encode_request(split.manifest, split.edge(x * n), b"c" * 16, n)
            for n in range(1, 200)
        ]
        for response in stub.InferStream(iter(requests), timeout=LONG_S):
            (found,) = codec.decode_response(split.manifest, response)
            expected = split.cloud(split.edge(x * response.request_id))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        process.terminate()
        _, errors = process.communicate(timeout=LONG_S)
    assert '"devices": ["cpu:0", "cpu:1", "cpu:2"]' in errors
