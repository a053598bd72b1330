"""A stream outlives its connection; the edge answers while there is none."""

import contextlib
import dataclasses
import functools
import itertools
import socket
import threading
import time

import pytest

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.serving.cloud_server import serving
from autosplit.serving.edge_client import EdgeClient, connect
from autosplit.serving.shaper import shaping
from autosplit.serving.streaming import StreamOptions
from tests.serving.stream_case import (
    FAST,
    SOON,
    Script,
    assert_answered,
    run,
    running,
)

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
