import contextlib
import copy
import dataclasses
import socket
import subprocess
import sys
import time
import types
from concurrent import futures

import grpc
import numpy as np
import pytest

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.hardware.network import Network
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect, infer_on_edge
from autosplit.serving.link import ShapedLink

STAGES = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")


@pytest.fixture
def address(split):
    with serving(split) as bound:
        yield bound


@pytest.fixture
def stub(address):
    with grpc.insecure_channel(address) as channel:
        yield pb2_grpc.SplitInferenceStub(channel)


@pytest.fixture
def request_message(split, images):
    payload = split.pack(split.edge_layers(images))
    return pb2.InferRequest(
        protocol_version=protocol.PROTOCOL_VERSION,
        split_id=split.manifest.split_id,
        request_id=5,
        tensors=codec.encode_payload(split.manifest.crossing, payload),
    )


def answering(description, response):
    """Makes a servicer that answers with whatever it was given."""

    def infer(request, context):
        if isinstance(response, Exception):
            raise response
        response.request_id = response.request_id or request.request_id
        return response

    return types.SimpleNamespace(Describe=lambda request, context: description, Infer=infer)


@contextlib.contextmanager
def foreign_server(*servicers):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    for servicer in servicers:
        pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


# ---- What is computed and measured


def test_both_halves_give_the_outputs_of_the_whole(split, address, images):
    expected = split.cloud_outputs(split.edge_layers(images))
    with connect(split, address) as client:
        for _ in range(2):
            outputs, _ = client.infer(images)
            for got, want in zip(outputs, expected, strict=True):
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want)


def test_stages_do_not_overlap(split, address, images):
    link = ShapedLink(network=Network(uplink_bits_per_s=1e6, round_trip_s=0.01))
    for chosen in (None, link):
        with connect(split, address, link=chosen) as client:
            _, times = client.infer(images)
        stages = [getattr(times, name) for name in STAGES]
        assert all(stage >= 0 for stage in stages)
        assert sum(stages) <= times.total_s + 1e-9


def test_the_shaped_link_takes_at_least_the_time_of_its_bytes(
    split, address, images, request_message
):
    network = Network(uplink_bits_per_s=2e5, downlink_bits_per_s=4e5, round_trip_s=0.03)
    payload_bytes = sum(spec.payload_bytes for spec in split.manifest.crossing)
    answer_bytes = sum(spec.payload_bytes for spec in split.manifest.outputs)
    with connect(split, address, link=ShapedLink(network=network)) as client:
        before_s = time.perf_counter()
        _, times = client.infer(images)
        waited_s = time.perf_counter() - before_s
    assert times.uplink_s >= 8 * payload_bytes / 2e5
    assert times.downlink_s >= 8 * answer_bytes / 4e5
    assert times.round_trip_s == 0.03
    assert waited_s >= times.total_s >= 8 * payload_bytes / 2e5 + 8 * answer_bytes / 4e5 + 0.03


def test_an_edge_only_split_needs_no_server(split, images):
    manifest = dataclasses.replace(split.manifest, crossing=())
    cloud_outputs, edge_layers = split.cloud_outputs, split.edge_layers
    split.manifest = manifest
    split.edge_layers = lambda x: cloud_outputs(edge_layers(x))
    outputs, times = infer_on_edge(split, images)
    np.testing.assert_array_equal(outputs[0], split.edge_layers(images)[0])
    assert times.total_s >= times.edge_s > 0
    assert {getattr(times, name) for name in STAGES} == {0.0, times.edge_s}
    with pytest.raises(InputError, match="sends nothing"), serving(split):
        pass


def test_a_split_with_a_cloud_half_is_not_run_on_the_edge_alone(split, images):
    with pytest.raises(InputError, match=r"sends \['relu', 'mean'\]"):
        infer_on_edge(split, images)


def test_wrong_inputs_are_refused_on_the_edge(split, address, images):
    with connect(split, address) as client:
        for wrong in ((), (images[:2],), (images.astype(np.float64),), (images, images)):
            with pytest.raises(InputError, match="inputs do not fit"):
                client.infer(*wrong)


# ---- What the server refuses


def break_version(request):
    request.protocol_version = 2


def leave_version_out(request):
    request.ClearField("protocol_version")


def break_split(request):
    request.split_id = "cd" * 32


def break_length(request):
    request.tensors[0].data += b"\0"


def break_name(request):
    request.tensors[1].name = "median"


def break_shape(request):
    request.tensors[0].shape[:] = [6, 4]


def break_bits(request):
    request.tensors[0].bits = 5


def drop_tensor(request):
    del request.tensors[1]


def add_unknown_field(request):
    request.MergeFromString(b"\xa0\x06\x01")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (break_version, "FAILED_PRECONDITION", "client speaks protocol version 2; .* only 1"),
        (leave_version_out, "FAILED_PRECONDITION", "version 0"),
        (break_split, "NOT_FOUND", "client names split cdcd"),
        (break_length, "INVALID_ARGUMENT", "'relu' has number of bytes 13; expected 12"),
        (break_name, "INVALID_ARGUMENT", "name 'median'; expected 'mean'"),
        (break_shape, "INVALID_ARGUMENT", r"shape \(6, 4\); expected \(4, 6\)"),
        (break_bits, "INVALID_ARGUMENT", "bits 5; expected 4"),
        (drop_tensor, "INVALID_ARGUMENT", "Found 1 tensors; expected 2"),
        (add_unknown_field, "INVALID_ARGUMENT", r"unknown fields \[100\]"),
    ],
)
def test_a_wrong_request_is_refused_before_it_is_computed(
    split, stub, request_message, change, status, words
):
    assert stub.Infer(request_message, timeout=10).request_id == 5
    split.unpack = split.cloud_outputs = None  # calling either would be another status
    change(request_message)
    with pytest.raises(grpc.RpcError, match=words) as caught:
        stub.Infer(request_message, timeout=10)
    assert caught.value.code() is grpc.StatusCode[status]


def test_a_message_too_long_for_the_split_is_refused(stub, request_message):
    request_message.tensors[0].data = bytes(10**6)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request_message, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_description_is_given_only_to_the_same_version(stub, split):
    good = stub.Describe(pb2.DescribeRequest(protocol_version=1), timeout=10)
    assert good.split_id == split.manifest.split_id
    with pytest.raises(grpc.RpcError, match="version 9") as caught:
        stub.Describe(pb2.DescribeRequest(protocol_version=9), timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_refusal_reaches_the_user_as_a_protocol_error(split, address, images):
    with connect(split, address) as client:
        other = copy.copy(split)
        other.manifest = dataclasses.replace(split.manifest, split_id="ef" * 32)
        with pytest.raises(ProtocolError, match=rf"{address} rejected .*NOT_FOUND.*same saved"):
            dataclasses.replace(client, split=other).infer(images)


def test_a_server_does_not_start_with_outputs_that_differ_from_its_manifest(split):
    split.cloud_outputs = lambda codes: (codes[1],)
    with pytest.raises(ProtocolError, match="Found 1 values; expected 2"), serving(split):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "host.invalid:0", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_bound_is_refused(split, address):
    with pytest.raises(InputError, match="host:port"), serving(split, address):
        pass


def test_a_port_has_one_server(split, address):
    with pytest.raises(InputError, match="free port"), serving(split, address):
        pass


# ---- What the client refuses


def good_response(split, images):
    outputs = split.cloud_outputs(split.edge_layers(images))
    return pb2.InferResponse(
        protocol_version=1, outputs=codec.encode_values(split.manifest.outputs, outputs)
    )


def test_a_server_of_another_version_or_split_is_refused(split, images):
    for change, words in (
        ({"protocol_version": 2}, "server speaks protocol version 2"),
        ({"split_id": "cd" * 32}, "server names split cdcd"),
        ({"crossing": [pb2.TensorSpec(name="more")]}, "describes other tensors"),
    ):
        description = protocol.describe(split.manifest)
        description.MergeFrom(pb2.DescribeResponse(**change))
        servicer = answering(description, good_response(split, images))
        with (
            foreign_server(servicer) as address,
            pytest.raises(ProtocolError, match=words),
            connect(split, address),
        ):
            pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol_version": 2}, "server speaks protocol version 2"),
        ({"request_id": 1}, "answered request 1"),
        ({"outputs": [pb2.Tensor(name="more")]}, "Found 3 tensors; expected 2"),
        ({"cloud_s": 1e6}, "expected times within the call"),
        ({"unpack_s": -1.0}, "expected times within the call"),
        ({"unpack_s": float("nan")}, "expected times within the call"),
    ],
)
def test_a_wrong_response_is_refused(split, images, change, words):
    response = good_response(split, images)
    response.MergeFrom(pb2.InferResponse(**change))
    servicer = answering(protocol.describe(split.manifest), response)
    with (
        foreign_server(servicer) as address,
        connect(split, address) as client,
        pytest.raises(ProtocolError, match=words),
    ):
        client.infer(images)


def test_a_server_that_fails_inside_is_reported_with_its_address(split, images):
    servicer = answering(protocol.describe(split.manifest), RuntimeError("no memory"))
    with (
        foreign_server(servicer) as address,
        connect(split, address) as client,
        pytest.raises(CloudUnavailableError, match=rf"{address} .*look at its log"),
    ):
        client.infer(images)


def test_a_server_of_something_else_is_refused(split):
    with (
        foreign_server() as address,
        pytest.raises(ProtocolError, match="UNIMPLEMENTED"),
        connect(split, address),
    ):
        pass


def test_a_server_that_is_not_there_is_reported_in_bounded_time(split):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        before_s = time.perf_counter()
        with (
            pytest.raises(CloudUnavailableError, match=rf"{address} .*serve_cloud"),
            connect(split, address, connect_timeout_s=20),
        ):
            pass
        assert time.perf_counter() - before_s < 20


def test_a_server_that_is_silent_is_reported_in_bounded_time(split):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(CloudUnavailableError, match=f"{address} did not answer.*0.2 s"),
            connect(split, address, connect_timeout_s=0.2),
        ):
            pass


def test_a_server_that_stops_between_requests_is_reported(split, images):
    with serving(split) as address, contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(split, address))
        client.infer(images)
        running = stack.pop_all()
    with running, pytest.raises(CloudUnavailableError, match=address):
        client.infer(images)


def test_grpc_is_loaded_only_by_what_sends_or_serves():
    program = (
        "import sys, autosplit.serving, autosplit.serving.link, autosplit.serving.stage_times\n"
        "assert not {'grpc', 'google.protobuf'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
