"""The server's promises to its clients: right answers, each computed once, refusals with words."""

import dataclasses
import time

import grpc
import numpy as np
import pytest

from autosplit.errors import InputError, ProtocolError
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.cloud_server import serving
from autosplit.serving.server_options import ServerOptions
from tests.serving.server_case import (
    LONG_S,
    assert_answers,
    expected_outputs,
    stub_of,
)

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
