"""The server under load and at its end: queue, deadlines, drain, health, metrics."""

import concurrent.futures
import contextlib
import socket
import threading
import time
import urllib.request

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from autosplit.errors import InputError
from autosplit.serving import protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import SERVICE, serving
from autosplit.serving.quotas import Quotas
from autosplit.serving.security import ServerSecurity
from autosplit.serving.server_options import ServerOptions
from autosplit.serving.tokens import new_token
from tests.serving.server_case import (
    LONG_S,
    assert_answers,
    stub_of,
    wait_for,
)

# ---- Queue, deadlines


def test_a_full_queue_refuses_and_says_when_to_come_back(split, gate, make_request):
    with stub_of(split, gate, queue=2) as stub:
        gate.opened.clear()
        calls = [stub.Infer.future(make_request(1), timeout=LONG_S)]
        assert gate.entered.acquire(timeout=LONG_S)  # one is computed, two wait
        calls += [stub.Infer.future(make_request(n), timeout=LONG_S) for n in (2, 3)]
        wait_for(lambda: refused(stub, make_request(4)))
        with pytest.raises(grpc.RpcError, match="at most 2") as caught:
            stub.Infer(make_request(4), timeout=LONG_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(caught.value.trailing_metadata())
        assert float(trailing["retry-after-s"]) > 0
        (response,) = stub.InferStream(iter([make_request(5)]), timeout=LONG_S)
        assert response.status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert response.retry_after_s > 0
        gate.opened.set()
        for number, call in enumerate(calls, 1):
            assert_answers(split, make_request(number), call.result())
        assert_answers(split, make_request(4), stub.Infer(make_request(4), timeout=LONG_S))


def refused(stub, request):
    """Returns whether a request is refused at once; one that waits is left to its deadline."""
    try:
        stub.Infer(request, timeout=0.05)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return False


def test_a_request_is_not_computed_after_its_deadline(split, gate, make_request):
    with stub_of(split, gate) as stub:
        gate.opened.clear()
        first = stub.Infer.future(make_request(1), timeout=LONG_S)
        assert gate.entered.acquire(timeout=LONG_S)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(make_request(2), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(0.3)  # the server's clock for it started when it arrived
        gate.opened.set()
        first.result()
        assert_answers(split, make_request(3), stub.Infer(make_request(3), timeout=LONG_S))
        assert gate.calls == 2
        # Sent again with more time, it is computed.
        assert_answers(split, make_request(2), stub.Infer(make_request(2), timeout=LONG_S))


def test_the_server_listens_while_it_computes(split, gate, make_request):
    with stub_of(split, gate) as stub:
        gate.opened.clear()
        call = stub.Infer.future(make_request(1), timeout=LONG_S)
        assert gate.entered.acquire(timeout=LONG_S)
        asked = pb2.DescribeRequest(protocol_version=protocol.PROTOCOL_VERSION)
        assert stub.Describe(asked, timeout=LONG_S).splits
        gate.opened.set()
        call.result()


# ---- The end


@pytest.fixture
def stopping(split, gate):
    """Yields a stub and a function that stops its server on a thread."""
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(1) as pool:
        address = stack.enter_context(serving(split, options=ServerOptions(drain_s=LONG_S)))
        gate.reset()
        with grpc.insecure_channel(address) as channel:
            yield pb2_grpc.SplitInferenceStub(channel), lambda: pool.submit(stack.close)
            gate.opened.set()


def test_what_was_accepted_is_answered_before_the_server_stops(
    split, gate, make_request, stopping
):
    stub, stop = stopping
    gate.opened.clear()
    calls = [stub.Infer.future(make_request(n), timeout=LONG_S) for n in range(1, 5)]
    stream = stub.InferStream(iter([make_request(n) for n in range(5, 9)]), timeout=LONG_S)
    assert gate.entered.acquire(timeout=LONG_S)
    time.sleep(0.1)
    stopped = stop()
    wait_for(lambda: turned_away(stub, make_request(99)))
    assert not stopped.done()
    gate.opened.set()
    for number, call in enumerate(calls, 1):
        assert_answers(split, make_request(number), call.result())
    for response in (next(stream) for _ in range(4)):
        assert_answers(split, make_request(response.request_id), response)
    stopped.result()
    assert gate.calls == 8


def turned_away(stub, request):
    try:
        stub.Infer(request, timeout=0.1)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def test_an_open_stream_is_told_that_the_server_stops(split, make_request, stopping):
    stub, stop = stopping
    more = threading.Event()

    def requests():
        yield make_request(1)
        more.wait(LONG_S)

    stream = stub.InferStream(requests(), timeout=LONG_S)
    assert_answers(split, make_request(1), next(stream))
    stopped = stop()
    with pytest.raises(grpc.RpcError, match="stops") as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    more.set()
    stopped.result()


def test_the_drain_has_an_end(split, gate, make_request):
    with contextlib.ExitStack() as clients:
        with serving(split, options=ServerOptions(drain_s=0.1)) as address:
            gate.reset()
            channel = clients.enter_context(grpc.insecure_channel(address))
            gate.opened.clear()
            call = pb2_grpc.SplitInferenceStub(channel).Infer.future(make_request(1))
            assert gate.entered.acquire(timeout=LONG_S)
        gate.opened.set()
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


# ---- Who watches


def test_health_follows_the_server(split):
    states = health_pb2.HealthCheckResponse
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serving(split))
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                asked = health_pb2.HealthCheckRequest(service=name)
                assert stub.Check(asked, timeout=LONG_S).status == states.SERVING
            watched = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=LONG_S)
            assert next(watched).status == states.SERVING
            stack.close()
            assert next(watched).status == states.NOT_SERVING


def test_reflection_names_the_services_and_their_messages(split):
    for offered in (True, False):
        with (
            serving(split, options=ServerOptions(reflection=offered)) as address,
            grpc.insecure_channel(address) as channel,
        ):
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
            answers = stub.ServerReflectionInfo(iter([asked, symbol]), timeout=LONG_S)
            if not offered:
                with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                    next(answers)
                continue
            listed, described = answers
            assert SERVICE in {one.name for one in listed.list_services_response.service}
            pool = DescriptorPool()
            for file in described.file_descriptor_response.file_descriptor_proto:
                pool.AddSerializedFile(file)
            assert "InferStream" in pool.FindServiceByName(SERVICE).methods_by_name


def test_metrics_count_what_happened(split, make_request):
    port = free_port()
    with stub_of(split, metrics_address=f"127.0.0.1:{port}") as stub:
        for number in (1, 2, 2):
            stub.Infer(make_request(number), timeout=LONG_S)
        bad = make_request(3)
        bad.split_id = "ef" * 32
        with pytest.raises(grpc.RpcError):
            stub.Infer(bad, timeout=LONG_S)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG_S) as page:
            lines = page.read().decode().splitlines()
    values = {name: float(value) for name, value in (
        line.rsplit(" ", 1) for line in lines if not line.startswith("#")
    )}  # fmt: skip
    split_id = split.manifest.split_id[:12]
    assert values[f'autosplit_requests_total{{split="{split_id}",status="OK"}}'] == 3
    assert values['autosplit_requests_total{split="none",status="NOT_FOUND"}'] == 1
    assert values["autosplit_repeated_requests_total"] == 1
    stage = f'autosplit_stage_seconds_count{{split="{split_id}",stage="cloud"}}'
    assert values[stage] == 2
    received = values[f'autosplit_bytes_total{{direction="in",split="{split_id}"}}']
    assert received == sum(make_request(number).ByteSize() for number in (1, 2, 2))
    assert (values["autosplit_queued_requests"], values["autosplit_splits"]) == (0, 1)


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def test_metrics_on_an_address_that_cannot_be_bound_are_refused(split):
    with pytest.raises(InputError, match="metrics"), stub_of(split, metrics_address="nowhere"):
        pass


# ---- Security and quotas, as far as the server puts them in front


def test_tokens_and_quotas_stand_before_the_split(split, make_request, tmp_path):
    token, line = new_token("camera")
    (tmp_path / "tokens").write_text(line + "\n")
    security = ServerSecurity(tokens=tmp_path / "tokens")
    quotas = Quotas(requests_per_s=0.01, burst_s=100.0)
    with stub_of(split, security=security, quotas=quotas) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(make_request(1), timeout=LONG_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {token}"),)
        response = stub.Infer(make_request(1), timeout=LONG_S, metadata=metadata)
        assert_answers(split, make_request(1), response)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(make_request(2), timeout=LONG_S, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
