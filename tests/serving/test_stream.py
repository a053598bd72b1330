"""A stream answers every frame once, in order, through whatever happens to the connection."""

import contextlib
import dataclasses
import functools
import itertools
import socket
import threading
import time
import types
from concurrent import futures

import grpc
import numpy as np
import pytest

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.hardware.network import Network
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import EdgeClient, connect
from autosplit.serving.link import ShapedLink, steady_conditions
from autosplit.serving.retries import RetryPolicy
from autosplit.serving.shaper import shaping
from autosplit.serving.streaming import StreamOptions

EAGER = StreamOptions()
SOON = RetryPolicy(first_s=0.01, longest_s=0.05)
FAST = steady_conditions(Network(uplink_bits_per_s=1e9))
LONG_S = 30.0  # only a test that hangs waits so long


@pytest.fixture
def frames():
    return list(np.random.default_rng(1).uniform(0, 15, (12, 4, 6)).astype(np.float32))


@pytest.fixture
def edge_only(split):
    """The same function, computed on the edge."""
    whole = type(split)(dataclasses.replace(split.manifest, split_id="cd" * 32, crossing=()))
    whole.edge_layers = lambda x: split.cloud_outputs(split.edge_layers(x))
    return whole


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


# ---- Without faults


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_every_frame_is_answered_in_order(split, frames, in_flight):
    with serving(split) as address:
        answers = run(split, address, frames, StreamOptions(in_flight=in_flight))
    assert_answered(split, frames, answers)
    for answer in answers:
        assert (answer.source, answer.attempts, answer.plan) == ("cloud", 1, 0)
        assert answer.label == split.manifest.label
        times = dataclasses.asdict(answer.times)
        total_s = times.pop("total_s")
        assert min(times.values()) >= 0
        assert sum(times.values()) <= total_s + 1e-9
        assert answer.request_bytes >= sum(spec.payload_bytes for spec in split.manifest.crossing)
        assert answer.response_bytes > 0
    assert answers[-1].bits_per_s > 0


def test_no_frame_and_one_frame(split, frames):
    with serving(split) as address:
        assert run(split, address, []) == []
        assert_answered(split, frames[:1], run(split, address, frames[:1]))


def test_frames_are_sent_while_earlier_ones_wait_for_their_answers(split, frames):
    held = []

    def answer_all_at_the_third(count, good):
        held.append(good)
        return held if count == 2 else []

    with running(Script(split, answer_all_at_the_third)) as address:
        answers = run(split, address, frames[:3], StreamOptions(in_flight=3))
    assert_answered(split, frames[:3], answers)


def test_no_more_frames_are_taken_than_may_be_in_flight(split, frames):
    taken = []

    def source():
        for index, frame in enumerate(itertools.cycle(frames)):
            taken.append(index)
            yield frame

    with serving(split) as address, connect(split, address) as client:
        answers = client.stream(source(), StreamOptions(in_flight=2))
        for consumed in range(1, 6):
            assert next(answers).frame == consumed - 1
            assert len(taken) <= consumed + 2
        answers.close()
        count = len(taken)
        time.sleep(0.05)
        assert len(taken) == count


def test_an_imitated_link_carries_one_message_at_a_time(split, frames):
    network = Network(uplink_bits_per_s=1e5, downlink_bits_per_s=1e6, round_trip_s=0.1)
    with serving(split) as address:
        before_s = time.perf_counter()
        answers = run(
            split, address, frames, StreamOptions(in_flight=12), link=ShapedLink(network=network)
        )
        took_s = time.perf_counter() - before_s
    assert_answered(split, frames, answers)
    sent_bits = 8 * sum(answer.request_bytes for answer in answers)
    assert took_s >= sent_bits / network.uplink_bits_per_s + network.round_trip_s
    for answer in answers:
        assert answer.times.total_s >= network.round_trip_s


def test_wrong_frames_end_the_stream_after_the_answers_before_them(split, frames):
    with serving(split) as address, connect(split, address) as client:
        answers = client.stream([*frames[:2], frames[0][:2]])
        assert [next(answers).frame, next(answers).frame] == [0, 1]
        with pytest.raises(InputError, match="inputs do not fit"):
            next(answers)


def test_an_error_of_the_source_reaches_the_caller(split, frames):
    def source():
        yield frames[0]
        raise OSError("the camera was unplugged")

    with serving(split) as address, connect(split, address) as client:
        answers = client.stream(source())
        next(answers)
        with pytest.raises(OSError, match="unplugged"):
            next(answers)


# ---- Messages that come twice, late, in another order, or wrong


def test_reordered_and_duplicated_answers_are_sorted_out(split, frames):
    held = []

    def shuffle(count, good):
        held.append(good)
        if len(held) < 4:
            return []
        messages, held[:] = [*held[::-1], *held], []
        return messages

    script = Script(split, shuffle)
    with running(script) as address:
        answers = run(split, address, frames, StreamOptions(in_flight=4))
    assert_answered(split, frames, answers)
    assert len(script.computed) == len(frames)


def test_an_answer_to_nothing_that_was_asked_is_refused(split, frames):
    def invent(count, good):
        good.request_id += 1 << 40
        return [good]

    with (
        running(Script(split, invent)) as address,
        pytest.raises(ProtocolError, match="did not send"),
    ):
        run(split, address, frames)


def test_an_answer_that_was_changed_on_the_way_is_asked_for_again(split, frames):
    def damage(count, good):
        if count == 1:
            good.outputs[0].data = good.outputs[0].data[:-1] + bytes([good.outputs[0].data[-1] ^ 1])
        return [good]

    script = Script(split, damage)
    with running(script) as address:
        answers = run(split, address, frames[:3], StreamOptions(in_flight=1))
    assert_answered(split, frames[:3], answers)
    assert [answer.attempts for answer in answers] == [1, 2, 1]
    assert script.computed[1] == script.computed[2]


def test_a_wrong_answer_is_an_error_of_its_frame_only(split, frames):
    def spoil(count, good):
        if count == 1:
            del good.outputs[1]
        return [good]

    with running(Script(split, spoil)) as address:
        answers = run(split, address, frames[:3], StreamOptions(in_flight=1))
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert isinstance(answers[1].error, ProtocolError)
    assert answers[1].outputs is None
    assert_answered(split, [frames[0]], answers[:1])


def refusal(status, retry_after_s=0.0):
    def refuse_once(count, good):
        if count == 1:
            return [codec.encode_refusal(good.request_id, status, "not now", retry_after_s)]
        return [good]

    return refuse_once


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE]
)
def test_a_busy_server_is_asked_again_with_the_same_request(split, frames, status):
    script = Script(split, refusal(status, retry_after_s=0.05))
    with running(script) as address:
        answers = run(split, address, frames[:3], StreamOptions(in_flight=1))
    assert_answered(split, frames[:3], answers)
    assert [answer.attempts for answer in answers] == [1, 2, 1]
    assert script.computed[1] == script.computed[2]
    assert answers[1].times.total_s >= 0.05


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, ProtocolError),
        (grpc.StatusCode.NOT_FOUND, ProtocolError),
        (grpc.StatusCode.INTERNAL, CloudUnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, CloudUnavailableError),
    ],
)
def test_a_refusal_that_would_come_again_is_not_asked_for_again(split, frames, status, kind):
    script = Script(split, refusal(status))
    with running(script) as address:
        answers = run(split, address, frames[:3], StreamOptions(in_flight=1))
    assert [type(answer.error) for answer in answers] == [type(None), kind, type(None)]
    assert len(script.computed) == 3


# ---- Connections that break


def test_a_broken_stream_is_opened_again_and_nothing_is_lost(split, frames):
    script = Script(split, lambda count, good: None if count in (2, 3, 7) else [good])
    with running(script) as address:
        answers = run(split, address, frames)
    assert_answered(split, frames, answers)
    assert max(answer.attempts for answer in answers) > 1
    assert len(set(script.computed)) == len(frames)  # a repetition has the same ids


def test_only_requests_without_an_answer_are_sent_again(split, frames):
    script = Script(split, lambda count, good: None if count == 5 else [good])
    with running(script) as address:
        answers = run(split, address, frames, StreamOptions(in_flight=1))
    assert_answered(split, frames, answers)
    assert [answer.attempts for answer in answers] == [1] * 5 + [2] + [1] * 6


def test_a_server_that_is_killed_and_comes_back_goes_on_where_it_was(split, frames):
    with contextlib.ExitStack() as stack, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        stack.enter_context(running(Script(split), address))
        with connect(split, address, retry=SOON) as client:
            answers = client.stream(frames, StreamOptions(in_flight=2))
            first = [next(answers) for _ in range(3)]
            stack.close()
            again = functools.partial(stack.enter_context, running(Script(split), address))
            threading.Timer(0.3, again).start()
            first += answers
    assert_answered(split, frames, first)


def test_a_server_that_drains_and_is_replaced_loses_nothing(split, frames):
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        address = first.enter_context(serving(split))
        client = second.enter_context(connect(split, address, retry=SOON))
        answers = client.stream(frames, StreamOptions(in_flight=3))
        got = [next(answers) for _ in range(4)]
        first.close()
        second.enter_context(serving(split, address))
        got += answers
    assert_answered(split, frames, got)


def test_a_server_that_does_not_come_back_is_reported_frame_by_frame(split, frames):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(running(Script(split)))
        with connect(split, address, retry=SOON, timeout_s=0.3) as client:
            answers = client.stream(frames[:5], StreamOptions(in_flight=2))
            first = next(answers)
            stack.close()
            rest = list(answers)
    assert_answered(split, frames[:1], [first])
    assert [answer.frame for answer in rest] == [1, 2, 3, 4]
    lost = [answer for answer in rest if answer.error is not None]
    assert len(lost) >= 2  # what had been answered before the server went is not lost
    for answer in lost:
        assert isinstance(answer.error, CloudUnavailableError)
        assert answer.outputs is None
        assert address in str(answer.error)


def test_a_server_of_another_version_that_comes_back_ends_the_stream(split, frames):
    script = Script(split, lambda count, good: None)
    described = script.Describe
    calls = itertools.count()

    def describe(request, context):
        description = described(request, context)
        if next(calls) > 2:
            description.protocol_version += 1
        return description

    script.Describe = describe
    with running(script) as address, pytest.raises(ProtocolError, match="version"):
        run(split, address, frames)


def test_a_cut_link_is_bridged(split, frames):
    with (
        serving(split) as address,
        shaping(address, FAST) as proxy,
        connect(split, proxy.address, retry=SOON) as client,
    ):
        answers = client.stream(frames, StreamOptions(in_flight=2))
        got = [next(answers) for _ in range(3)]
        proxy.cut(reset=True)
        threading.Timer(0.3, proxy.restore).start()
        got += answers
    assert_answered(split, frames, got)


class Rerouted(EdgeClient):
    """Opens each further channel at the next address."""

    addresses = ()

    def open_channel(self):
        return dataclasses.replace(self, address=next(self.addresses)).reach()

    def reach(self):
        return EdgeClient.open_channel(self)


def test_a_silent_link_is_given_up_and_opened_again(split, frames):
    """The old connection stays dead; only a new one gets through."""
    with (
        serving(split) as address,
        shaping(address, FAST) as first,
        shaping(address, FAST) as second,
        connect(split, first.address, retry=SOON) as client,
    ):
        fields = {one.name: getattr(client, one.name) for one in dataclasses.fields(client)}
        rerouted = Rerouted(**fields)
        Rerouted.addresses = iter([first.address, second.address])
        answers = rerouted.stream(frames, StreamOptions(in_flight=2, stall_s=0.2))
        got = [next(answers) for _ in range(3)]
        first.cut()
        got += answers
    assert_answered(split, frames, got)


@pytest.mark.heavy
def test_a_link_that_is_cut_for_five_seconds(split, edge_only, frames):
    many = list(itertools.islice(itertools.cycle(frames), 200))

    def camera():
        for frame in many:
            time.sleep(0.05)
            yield frame

    with (
        serving(split) as address,
        shaping(address, FAST) as proxy,
        connect(split, proxy.address, alternatives=[edge_only]) as client,
    ):
        got = []
        for answer in client.stream(camera(), StreamOptions(patience_s=0.5)):
            got.append(answer)
            if answer.frame == 20:
                proxy.cut()
                threading.Timer(5.0, proxy.restore).start()
    assert_answered(split, many, got)
    sources = [source for source, _ in itertools.groupby(answer.source for answer in got)]
    assert sources == ["cloud", "fallback", "cloud"]


# ---- Fallback


def test_the_edge_answers_while_the_link_is_down_and_the_cloud_after_it(split, edge_only, frames):
    endless = itertools.cycle(frames)
    got, seen = [], []
    with (
        serving(split) as address,
        shaping(address, FAST) as proxy,
        connect(split, proxy.address, alternatives=[edge_only], retry=SOON) as client,
    ):
        options = StreamOptions(in_flight=2, patience_s=0.05, stall_s=0.3)

        def source():
            for frame in endless:
                seen.append(frame)
                time.sleep(0.002)
                yield frame

        answers = client.stream(source(), options)

        def until(wanted):
            for answer in answers:
                got.append(answer)
                if answer.source == wanted:
                    return

        until("cloud")
        proxy.cut()
        until("fallback")
        proxy.restore()
        until("cloud")
        proxy.cut(reset=True)
        until("fallback")
        proxy.restore()
        until("cloud")
        answers.close()
    assert_answered(split, seen[: len(got)], got)
    assert {answer.plan for answer in got if answer.source == "fallback"} == {1}


def test_without_patience_a_frame_waits_for_the_cloud(split, edge_only, frames):
    script = Script(split, lambda count, good: None if count < 3 else [good])
    with running(script) as address:
        answers = run(
            split, address, frames, StreamOptions(patience_s=None), alternatives=[edge_only]
        )
    assert_answered(split, frames, answers)
    assert {answer.source for answer in answers} == {"cloud"}


def test_an_edge_only_first_split_needs_no_answer_of_the_cloud(split, edge_only, frames):
    with serving(split) as address:
        answers = run(edge_only, address, frames, alternatives=[split])
    assert_answered(split, frames, answers)
    assert {answer.source for answer in answers} == {"edge"}


# ---- Wrong use


def test_splits_of_different_functions_are_refused(split):
    other = type(split)(dataclasses.replace(split.manifest, outputs=split.manifest.outputs[:1]))
    with pytest.raises(InputError, match="plans of one function"), connect(
        split, "127.0.0.1:1", alternatives=[other]
    ):
        pass


def test_splits_that_send_nothing_need_no_server(edge_only):
    with pytest.raises(InputError, match="no cloud half"), connect(edge_only, "127.0.0.1:1"):
        pass


def test_plain_text_leaves_this_machine_only_when_asked_for(split):
    with pytest.raises(InputError, match="without encryption"), connect(split, "192.0.2.1:1"):
        pass


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"stall_s": 0.0}, {"patience_s": -1.0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(InputError, match="expected at least 1 frame"):
        StreamOptions(**wrong)


def test_threads_end_with_the_stream(split, frames):
    before = set(threading.enumerate())
    with serving(split) as address, connect(split, address) as client:
        during = set(threading.enumerate()) - before
        answers = client.stream(itertools.cycle(frames))
        next(answers)
        answers.close()
        left = {thread.name for thread in set(threading.enumerate()) - before - during}
    assert not left & {"edge", "stream"}


