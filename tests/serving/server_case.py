"""A server around a split whose computation a test holds, and what it must answer."""

import contextlib
import threading
import time

import grpc
import numpy as np

from autosplit.serving import codec
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.server_options import ServerOptions

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


@contextlib.contextmanager
def stub_of(split, gate=None, **options):
    with serving(split, options=ServerOptions(**options)) as address:
        if gate is not None:
            gate.reset()
        with grpc.insecure_channel(address) as channel:
            yield pb2_grpc.SplitInferenceStub(channel)


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
