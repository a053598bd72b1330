"""The server's promises to its clients: right answers, each computed once, refusals with words."""

import concurrent.futures
import contextlib
import dataclasses
import socket
import threading
import time
import urllib.request

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from autosplit.errors import InputError, ProtocolError
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import SERVICE, serving
from autosplit.serving.quotas import Quotas
from autosplit.serving.security import ServerSecurity
from autosplit.serving.server_options import ServerOptions
from autosplit.serving.tokens import new_token

CLIENT = b"c" * 16
LONG_S = 30.0  # for what must happen; nothing waits that long


class Gate:
    """Stands in for a split's cloud half: counts its calls, and holds them while closed."""

    def __init__(self, split):
        self.opened = threading.Event()
        self.opened.set()
        self.calls = 0
        self.entered = threading.Semaphore(0)
        self._compute = split.cloud_outputs
        split.cloud_outputs = self._pass

    def _pass(self, codes):
        self.calls += 1
        self.entered.release()
        assert self.opened.wait(LONG_S)
        return self._compute(codes)

    def reset(self):
        """Forgets the calls that compiled."""
        self.calls, self.entered = 0, threading.Semaphore(0)


@pytest.fixture
def gate(split):
    gate = Gate(split)
    yield gate
    gate.opened.set()


@contextlib.contextmanager
def stub_of(split, gate=None, **options):
    with serving(split, options=ServerOptions(**options)) as address:
        if gate is not None:
            gate.reset()
        with grpc.insecure_channel(address) as channel:
            yield pb2_grpc.SplitInferenceStub(channel)


@pytest.fixture
def make_request(split, images):
    """Returns a function from a request_id to a request; each has inputs of its own."""

    def make(request_id, client_id=CLIENT):
        payload = split.pack(split.edge_layers(np.roll(images, request_id, axis=0)))
        return codec.encode_request(split.manifest, payload, client_id, request_id)

    return make


def expected_outputs(split, request):
    codes = split.unpack(codec.decode_request(split.manifest, request))
    return type(split).cloud_outputs(split, codes)


def assert_answers(split, request, response):
    assert response.request_id == request.request_id
    found = codec.decode_response(split.manifest, response)
    for got, want in zip(found, expected_outputs(split, request), strict=True):
        np.testing.assert_array_equal(got, want)


def wait_for(condition):
    deadline_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


# ---- Answers


def test_a_call_and_a_stream_give_the_outputs_of_the_split(split, make_request):
    requests = {number: make_request(number) for number in range(1, 40)}
    with stub_of(split, stream_requests=4) as stub:
        assert_answers(split, requests[1], stub.Infer(requests[1], timeout=LONG_S))
        responses = list(stub.InferStream(iter(requests.values()), timeout=LONG_S))
    assert sorted(response.request_id for response in responses) == sorted(requests)
    for response in responses:
        assert response.status == 0
        assert_answers(split, requests[response.request_id], response)


def test_a_server_has_several_splits(split, make_request):
    other = type(split)(dataclasses.replace(split.manifest, split_id="cd" * 32))
    other.cloud_outputs = lambda codes: tuple(-one for one in split.cloud_outputs(codes))
    request = make_request(1)
    renamed = make_request(2)
    renamed.split_id = other.manifest.split_id
    asked = pb2.DescribeRequest(protocol_version=protocol.PROTOCOL_VERSION)
    with stub_of([other, split]) as stub:
        described = stub.Describe(asked, timeout=LONG_S)
        assert described == protocol.describe([split.manifest, other.manifest])
        asked.split_id = other.manifest.split_id
        assert stub.Describe(asked, timeout=LONG_S) == protocol.describe([other.manifest])
        assert_answers(split, request, stub.Infer(request, timeout=LONG_S))
        response = stub.Infer(renamed, timeout=LONG_S)
    found = codec.decode_response(other.manifest, response)
    renamed.split_id = split.manifest.split_id
    np.testing.assert_array_equal(found[0], -expected_outputs(split, renamed)[0])


# ---- What is refused


def wrong_version(request):
    request.protocol_version = 1


def wrong_split(request):
    request.split_id = "ef" * 32


def wrong_length(request):
    request.tensors[0].data += b"\0"


def wrong_data(request):
    request.tensors[0].data = bytes(byte ^ 1 for byte in request.tensors[0].data)


def wrong_client(request):
    request.client_id = b"short"


REFUSED = [
    (wrong_version, "FAILED_PRECONDITION", "version 1"),
    (wrong_split, "NOT_FOUND", "efef"),
    (wrong_length, "INVALID_ARGUMENT", "13"),
    (wrong_data, "INVALID_ARGUMENT", "hecksum"),
    (wrong_client, "INVALID_ARGUMENT", "16"),
]


def test_a_wrong_request_is_refused_and_not_computed(split, gate, make_request):
    with stub_of(split, gate) as stub:
        for change, status, words in REFUSED:
            request = make_request(5)
            change(request)
            with pytest.raises(grpc.RpcError, match=words) as caught:
                stub.Infer(request, timeout=LONG_S)
            assert caught.value.code() is grpc.StatusCode[status], change
            (response,) = stub.InferStream(iter([request]), timeout=LONG_S)
            assert response.status == grpc.StatusCode[status].value[0]
            assert response.request_id == 5
            assert words in response.message
        assert gate.calls == 0
        good = make_request(5)  # the refused ones have left nothing under its number
        assert_answers(split, good, stub.Infer(good, timeout=LONG_S))


def test_a_message_too_long_for_the_split_is_refused(split, make_request):
    request = make_request(1)
    request.tensors[0].data = bytes(10**6)
    with stub_of(split) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request, timeout=LONG_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("address", ["127.0.0.1", "host.invalid:0", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_bound_is_refused(split, address):
    options = ServerOptions(allow_insecure=True)
    with pytest.raises(InputError, match="host:port"), serving(split, address, options):
        pass


def test_a_server_that_others_could_reach_needs_security(split):
    with pytest.raises(InputError, match="other machines"), serving(split, "0.0.0.0:0"):
        pass


@pytest.mark.parametrize("name", ["max_batch", "queue", "devices"])
def test_options_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        ServerOptions(**{name: 0})


def test_more_devices_than_there_are_are_refused(split):
    with pytest.raises(InputError, match="devices; expected 99"), stub_of(split, devices=99):
        pass


def test_a_server_does_not_start_with_outputs_that_differ_from_its_manifest(split):
    split.cloud_outputs = lambda codes: (codes[1],)
    with pytest.raises(ProtocolError, match="Found 1 values; expected 2"), serving(split):
        pass


def test_a_failure_inside_is_told_without_its_words_and_not_kept(split, gate, make_request):
    with stub_of(split, gate) as stub:
        compute = gate._compute
        gate._compute = lambda codes: 1 / 0
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(make_request(1), timeout=LONG_S)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "zero" not in caught.value.details()
        gate._compute = compute
        assert_answers(split, make_request(1), stub.Infer(make_request(1), timeout=LONG_S))


# ---- Once


def test_a_repeated_request_is_computed_once(split, gate, make_request):
    request = make_request(1)
    with stub_of(split, gate) as stub:
        responses = [stub.Infer(request, timeout=LONG_S) for _ in range(3)]
        responses += list(stub.InferStream(iter([request, request]), timeout=LONG_S))
        assert gate.calls == 1
        assert stub.Infer(make_request(1, b"d" * 16), timeout=LONG_S).request_id == 1
        assert gate.calls == 2  # another client's first request
    for response in responses:
        assert_answers(split, request, response)


def test_a_repetition_joins_the_request_under_way(split, gate, make_request):
    request = make_request(1)
    with stub_of(split, gate) as stub:
        gate.opened.clear()
        lost = stub.Infer.future(request, timeout=LONG_S)
        assert gate.entered.acquire(timeout=LONG_S)
        lost.cancel()  # as when the connection breaks
        again = [stub.Infer.future(request, timeout=LONG_S) for _ in range(2)]
        time.sleep(0.05)
        gate.opened.set()
        for one in again:
            assert_answers(split, request, one.result())
        assert gate.calls == 1


def test_a_number_used_twice_for_different_data_is_refused(split, make_request):
    first, second = make_request(1), make_request(2)
    second.request_id = 1
    with stub_of(split) as stub:
        stub.Infer(first, timeout=LONG_S)
        with pytest.raises(grpc.RpcError, match="its own request_id") as caught:
            stub.Infer(second, timeout=LONG_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


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
