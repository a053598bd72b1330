"""The edge client against a real server, and against servers that answer wrongly."""

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
from autosplit.serving.retries import RETRY_AFTER, RetryPolicy
from autosplit.serving.security import ClientSecurity

STAGES = (
    "edge_s", "pack_s", "uplink_s", "queue_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s"
)  # fmt: skip
SOON = RetryPolicy(first_s=0.01, longest_s=0.05)


@pytest.fixture
def address(split):
    with serving(split) as bound:
        yield bound


def answering(description, response):
    """Makes a servicer that answers with whatever it was given; functions are called."""

    def infer(request, context):
        if callable(response):
            return response(request, context)
        if isinstance(response, Exception):
            raise response
        response.request_id = response.request_id or request.request_id
        return response

    return types.SimpleNamespace(
        Describe=lambda request, context: description, Infer=infer, InferStream=None
    )


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


def test_the_shaped_link_takes_at_least_the_time_of_its_bytes(split, address, images):
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


def test_a_split_with_a_cloud_half_is_not_run_on_the_edge_alone(split, images):
    with pytest.raises(InputError, match=r"sends \['relu', 'mean'\]"):
        infer_on_edge(split, images)


def test_wrong_inputs_are_refused_on_the_edge(split, address, images):
    with connect(split, address) as client:
        for wrong in ((), (images[:2],), (images.astype(np.float64),), (images, images)):
            with pytest.raises(InputError, match="inputs do not fit"):
                client.infer(*wrong)


# ---- What the client refuses


def good_response(split, images):
    outputs = split.cloud_outputs(split.edge_layers(images))
    return codec.encode_response(
        split.manifest, 0, outputs, queue_s=0.0, unpack_s=0.0, cloud_s=0.0
    )


def test_a_server_of_another_version_or_split_is_refused(split, images):
    for change, words in (
        ({"protocol_version": 3}, "server speaks protocol version 3"),
        ({"split_id": "cd" * 32}, "cdcd"),
        ({"crossing": [pb2.TensorSpec(name="more")]}, "other tensors"),
    ):
        description = protocol.describe([split.manifest])
        whole = {name: value for name, value in change.items() if name == "protocol_version"}
        description.MergeFrom(pb2.DescribeResponse(**whole))
        if not whole:
            description.splits[0].MergeFrom(pb2.SplitDescription(**change))
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
        ({"protocol_version": 3}, "server speaks protocol version 3"),
        ({"request_id": 1}, "answered request 1"),
        ({"outputs": [pb2.Tensor(name="more")]}, "Found 3 tensors; expected 2"),
        ({"cloud_s": 1e6}, "expected times within the call"),
        ({"unpack_s": -1.0}, "expected times within the call"),
        ({"queue_s": 1e6}, "expected times within the call"),
        ({"unpack_s": float("nan")}, "expected times within the call"),
        ({"crc32": 7}, "(?i)crc|checksum|changed"),
    ],
)
def test_a_wrong_response_is_refused(split, images, change, words):
    response = good_response(split, images)
    response.MergeFrom(pb2.InferResponse(**change))
    servicer = answering(protocol.describe([split.manifest]), response)
    with (
        foreign_server(servicer) as address,
        connect(split, address) as client,
        pytest.raises(ProtocolError, match=words),
    ):
        client.infer(images)


def test_a_server_that_fails_inside_is_reported_with_its_address(split, images):
    servicer = answering(protocol.describe([split.manifest]), RuntimeError("no memory"))
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


def test_a_refusal_reaches_the_user_as_a_protocol_error(split, address, images):
    with connect(split, address) as client:
        other = copy.copy(split)
        other.manifest = dataclasses.replace(split.manifest, split_id="ef" * 32)
        with pytest.raises(ProtocolError, match=rf"{address} rejected .*NOT_FOUND"):
            dataclasses.replace(client, split=other).infer(images)


# ---- What the client repeats


def failing(times, status, good, trailing=()):
    """Makes an answer that fails so often, and a list that gets the requests."""
    seen = []

    def respond(request, context):
        seen.append((request.client_id, request.request_id, request.crc32))
        if len(seen) <= times:
            context.abort_with_status(Abort(status, "not now", trailing))
        good.request_id = request.request_id
        return good

    return respond, seen


@dataclasses.dataclass(frozen=True)
class Abort(grpc.Status):
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple


@pytest.mark.parametrize(
    ("status", "trailing"),
    [
        (grpc.StatusCode.UNAVAILABLE, ()),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ((RETRY_AFTER, "0.01"),)),
    ],
)
def test_a_request_that_may_be_repeated_is_repeated_as_it_was(split, images, status, trailing):
    respond, seen = failing(2, status, good_response(split, images), trailing)
    with (
        foreign_server(answering(protocol.describe([split.manifest]), respond)) as address,
        connect(split, address, retry=SOON) as client,
    ):
        outputs, _ = client.infer(images)
        expected = split.cloud_outputs(split.edge_layers(images))
        np.testing.assert_array_equal(outputs[0], expected[0])
        assert len(seen) == 3
        assert len(set(seen)) == 1
        client.infer(images)
    assert len({request_id for _, request_id, _ in seen}) == 2
    assert len({client_id for client_id, _, _ in seen}) == 1


def test_a_request_is_given_up_after_its_attempts(split, images):
    good = good_response(split, images)
    respond, seen = failing(99, grpc.StatusCode.UNAVAILABLE, good)
    with (
        foreign_server(answering(protocol.describe([split.manifest]), respond)) as address,
        connect(split, address, retry=SOON) as client,
        pytest.raises(CloudUnavailableError, match="not now"),
    ):
        client.infer(images)
    assert len(seen) == SOON.attempts


def test_the_token_is_sent_with_every_call(split, images):
    tokens = []

    def respond(request, context):
        tokens.append(dict(context.invocation_metadata()).get("authorization"))
        good = good_response(split, images)
        good.request_id = request.request_id
        return good

    security = ClientSecurity(token="secret", encrypted=False)
    with (
        foreign_server(answering(protocol.describe([split.manifest]), respond)) as address,
        connect(split, address, security=security) as client,
    ):
        client.infer(images)
    assert tokens == ["Bearer secret"]


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
