import itertools

import grpc
import pytest

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.serving.retries import RetryPolicy, call

SOON = RetryPolicy(attempts=3, first_s=1e-4, longest_s=1e-3)


class Failure(grpc.RpcError):
    def __init__(self, status, **trailing):
        super().__init__()
        self.status = status
        self.trailing = tuple((name.replace("_", "-"), value) for name, value in trailing.items())

    def code(self):
        return grpc.StatusCode[self.status]

    def details(self):
        return "words of the server"

    def trailing_metadata(self):
        return self.trailing


def attempt(*results, timeout_s=5.0):
    """Calls a method with these results; returns what came of it and the requests that it got."""
    remaining, got = list(results), []

    def method(request, timeout, metadata):
        got.append((request, metadata))
        assert 0 < timeout <= timeout_s
        result = remaining.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    try:
        outcome = call(
            method, "message", address="there:1", timeout_s=timeout_s, policy=SOON,
            metadata=[("a", "b")],
        )  # fmt: skip
    except (ProtocolError, CloudUnavailableError) as error:
        outcome = error
    assert set(got) == {("message", (("a", "b"),))}
    return outcome, len(got)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("UNAVAILABLE"),
        Failure("CANCELLED"),
        Failure("RESOURCE_EXHAUSTED", retry_after_s="0.001"),
        Failure("RESOURCE_EXHAUSTED", retry_after_s="soon"),
    ],
)
def test_what_may_pass_is_tried_again(failure):
    assert attempt(failure, failure, "answer") == ("answer", 3)
    outcome, count = attempt(failure, failure, failure, "too late")
    assert isinstance(outcome, CloudUnavailableError)
    assert count == SOON.attempts


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", ProtocolError),
        ("FAILED_PRECONDITION", ProtocolError),
        ("NOT_FOUND", ProtocolError),
        ("RESOURCE_EXHAUSTED", ProtocolError),  # without a time: the message is too long
        ("UNAUTHENTICATED", ProtocolError),
        ("DEADLINE_EXCEEDED", CloudUnavailableError),
        ("INTERNAL", CloudUnavailableError),
        ("UNKNOWN", CloudUnavailableError),
    ],
)
def test_what_would_fail_again_is_not_tried_again(status, kind):
    outcome, count = attempt(Failure(status), "never")
    assert isinstance(outcome, kind)
    assert status in str(outcome)
    assert "there:1" in str(outcome)
    assert count == 1


def test_no_wait_goes_beyond_the_time_of_the_call():
    busy = Failure("RESOURCE_EXHAUSTED", retry_after_s="60")
    outcome, count = attempt(busy, "never", timeout_s=0.5)
    assert isinstance(outcome, CloudUnavailableError)
    assert count == 1


@pytest.mark.parametrize("draw", [0.0, 0.3, 1.0])
def test_waits_grow_to_the_longest_less_the_jitter(draw):
    policy = RetryPolicy(first_s=0.1, factor=3.0, longest_s=2.0, jitter=0.5)
    waits_s = list(itertools.islice(policy.waits_s(draw=lambda: draw), 8))
    share = 1 - 0.5 * draw
    assert waits_s == pytest.approx([share * min(2.0, 0.1 * 3**number) for number in range(8)])


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"factor": 0.5}, {"first_s": 0.0}, {"first_s": 3.0}, {"jitter": 2.0}]
)
def test_wrong_policies_are_refused(wrong):
    with pytest.raises(InputError, match="expected at least 1 attempt"):
        RetryPolicy(**wrong)
