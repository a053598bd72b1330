"""What a bad link does to requests: each is answered, rightly, and computed once."""

import contextlib
import queue
import random
import threading
import types
from concurrent import futures

import grpc
import numpy as np
import pytest

from autosplit.hardware.bandwidth_trace import synthetic_trace
from autosplit.hardware.network import Network
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect
from autosplit.serving.link import LinkConditions, steady_conditions
from autosplit.serving.shaper import shaping
from autosplit.serving.streaming import StreamOptions

FRAMES = 30
QUICK = steady_conditions(Network(uplink_bits_per_s=2e6, round_trip_s=0.004))


@pytest.fixture
def frames():
    return list(np.random.default_rng(1).uniform(0, 15, (FRAMES, 4, 6)).astype(np.float32))


@pytest.fixture
def computed(split):
    """A list that gets the codes of everything that the cloud half computes."""
    seen, compute = [], split.cloud_outputs

    def cloud_outputs(codes):
        seen.append(np.asarray(codes[0]).tobytes())
        return compute(codes)

    split.cloud_outputs = cloud_outputs
    return seen


@pytest.fixture
def address(split, computed):
    with serving(split) as bound:
        computed.clear()  # what it computed to warm up
        yield bound


def expected_outputs(split, frame):
    other = type(split)(split.manifest)  # whose calls are not counted
    return [np.asarray(one) for one in other.cloud_outputs(other.edge_layers(frame))]


def check_answers(split, frames, answers, computed):
    """Fails unless each frame has its answer, in order, and was computed once."""
    assert len(set(computed)) == len(computed) == len(frames)
    assert [answer.frame for answer in answers] == list(range(len(frames)))
    for answer, frame in zip(answers, frames, strict=True):
        assert answer.error is None
        for got, want in zip(answer.outputs, expected_outputs(split, frame), strict=True):
            np.testing.assert_array_equal(got, want)


def every(count, change):
    """Returns a function from frames to the same frames that calls ``change`` at some of them."""

    def changing(frames):
        for number, frame in enumerate(frames):
            if number and number % count == 0:
                change()
            yield frame

    return changing


# ---- The link breaks


def test_a_link_that_falls_silent_delays_a_stream_and_loses_nothing(
    split, address, computed, frames
):
    with shaping(address, QUICK) as proxy, connect(split, proxy.address) as client:

        def fall_silent():
            proxy.cut()
            threading.Timer(0.3, proxy.restore).start()

        answers = list(client.stream(every(10, fall_silent)(frames)))
    check_answers(split, frames, answers, computed)


def test_a_link_that_breaks_in_mid_message_loses_nothing(split, address, computed, frames):
    with shaping(address, QUICK) as proxy, connect(split, proxy.address) as client:

        def break_off():
            proxy.cut(reset=True)
            threading.Timer(0.2, proxy.restore).start()

        answers = list(client.stream(every(7, break_off)(frames)))
        assert proxy.traffic().connections > 1
    check_answers(split, frames, answers, computed)


@pytest.mark.heavy
@pytest.mark.parametrize("reset", [False, True])
def test_a_link_that_is_cut_for_five_seconds(split, address, computed, frames, reset):
    with shaping(address, QUICK) as proxy, connect(split, proxy.address) as client:

        def cut():
            proxy.cut(reset=reset)
            threading.Timer(5.0, proxy.restore).start()

        answers = list(client.stream(every(15, cut)(frames)))
        assert max(answer.times.total_s for answer in answers) > 4.0
    check_answers(split, frames, answers, computed)


def test_a_single_request_survives_a_link_that_breaks(split, address, computed, frames):
    with shaping(address, QUICK) as proxy, connect(split, proxy.address) as client:
        for number, frame in enumerate(frames[:6]):
            if number % 2:
                proxy.cut(reset=True)
                threading.Timer(0.02, proxy.restore).start()
            outputs, _ = client.infer(frame)
            for got, want in zip(outputs, expected_outputs(split, frame), strict=True):
                np.testing.assert_array_equal(got, want)
    assert len(set(computed)) == len(computed) == 6


def test_a_link_of_changing_rate_with_losses_and_outages(split, address, computed, frames):
    trace = synthetic_trace(
        2e6, duration_s=2.0, step_s=0.05, outage_share=0.2, outage_s=0.1, seed=4
    )
    conditions = LinkConditions(
        uplink=trace, downlink=trace, delay_s=0.002, jitter_s=0.005, loss=0.05, retransmit_s=0.02
    )
    with shaping(address, conditions, seed=1) as proxy, connect(split, proxy.address) as client:
        answers = list(client.stream(frames))
        assert proxy.traffic().lost_packets > 0
    check_answers(split, frames, answers, computed)


# ---- Messages come twice and in another order


@contextlib.contextmanager
def disordering(address, longest_s=0.05, seed=0):
    """Yields the address of a proxy that repeats and reorders the messages of a stream."""
    draw = random.Random(seed)

    def disordered(messages):
        """Yields each message once or twice, each time after a wait of its own."""
        arrived, end, timers = queue.Queue(), object(), []

        def read():
            with contextlib.suppress(grpc.RpcError):
                for message in messages:
                    for _ in range(draw.choice((1, 2))):
                        waits_s = draw.uniform(0, longest_s)
                        timers.append(threading.Timer(waits_s, arrived.put, (message,)))
                        timers[-1].start()
            for timer in timers:
                timer.join()
            arrived.put(end)

        threading.Thread(target=read, daemon=True).start()
        yield from iter(arrived.get, end)

    with (
        grpc.insecure_channel(address) as channel,
        futures.ThreadPoolExecutor(max_workers=4) as workers,
    ):
        stub = pb2_grpc.SplitInferenceStub(channel)
        servicer = types.SimpleNamespace(
            Describe=lambda request, _: stub.Describe(request),
            Infer=lambda request, _: stub.Infer(request),
            InferStream=lambda requests, _: disordered(stub.InferStream(disordered(requests))),
        )
        server = grpc.server(workers)
        pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_messages_that_come_twice_and_in_disorder(split, address, computed, frames):
    with disordering(address) as proxy, connect(split, proxy) as client:
        answers = list(client.stream(frames, StreamOptions(in_flight=8)))
    check_answers(split, frames, answers, computed)
