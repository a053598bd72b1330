"""Servers of scripted answers, and what a stream must have answered."""

import contextlib
import types
from concurrent import futures

import grpc
import numpy as np

from autosplit.hardware.network import Network
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.edge_client import connect
from autosplit.serving.link import steady_conditions
from autosplit.serving.retries import RetryPolicy
from autosplit.serving.streaming import StreamOptions

EAGER = StreamOptions()
SOON = RetryPolicy(first_s=0.01, longest_s=0.05)
FAST = steady_conditions(Network(uplink_bits_per_s=1e9))
LONG_S = 30.0  # only a test that hangs waits so long


class Script:
    """A server whose answers a test chooses.

    ``respond(request, good)`` gets the number of earlier requests and returns messages to send;
    None breaks the stream.
    """

    def __init__(self, split, respond=lambda count, good: [good]):
        self.split = split
        self.respond = respond
        self.computed = []

    def Describe(self, request, context):  # noqa: N802
        return protocol.describe([self.split.manifest])

    def InferStream(self, requests, context):  # noqa: N802
        for request in requests:
            count = len(self.computed)
            self.computed.append((request.client_id, request.request_id))
            messages = self.respond(count, self.good(request))
            if messages is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server goes away")
            yield from messages

    def good(self, request):
        payload = codec.decode_request(self.split.manifest, request)
        outputs = self.split.cloud_outputs(self.split.unpack(payload))
        return codec.encode_response(
            self.split.manifest, request.request_id, outputs, queue_s=0.0, unpack_s=0.0, cloud_s=0.0
        )


@contextlib.contextmanager
def running(script, address="127.0.0.1:0"):
    threads = futures.ThreadPoolExecutor(max_workers=8)
    server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
    servicer = types.SimpleNamespace(
        Describe=script.Describe, InferStream=script.InferStream, Infer=None
    )
    pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    assert port
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def expected(split, frame):
    return split.cloud_outputs(split.edge_layers(frame))


def assert_answered(split, frames, answers):
    """Every frame has one answer, in order, and it is its own."""
    assert [answer.frame for answer in answers] == list(range(len(frames)))
    for frame, answer in zip(frames, answers, strict=True):
        assert answer.error is None
        for got, want in zip(answer.outputs, expected(split, frame), strict=True):
            np.testing.assert_array_equal(got, want)


def run(split, address, frames, options=EAGER, **settings):
    with connect(split, address, **({"retry": SOON} | settings)) as client:
        return list(client.stream(frames, options))
