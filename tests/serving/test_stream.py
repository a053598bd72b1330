"""A stream answers every frame once, in order, whatever messages come back."""

import dataclasses
import itertools
import time

import grpc
import pytest

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.hardware.network import Network
from autosplit.serving import codec
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import connect
from autosplit.serving.link import ShapedLink
from autosplit.serving.streaming import StreamOptions
from tests.serving.stream_case import (
    Script,
    assert_answered,
    run,
    running,
)

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
