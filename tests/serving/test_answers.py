import asyncio

import pytest

from autosplit.errors import ProtocolError
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.answers import Answers

SAME = ("ab", 7)
RESPONSE = pb2.InferResponse(request_id=1, message="x" * 100)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def key(number):
    return b"c" * 16, number


def in_loop(check):
    """Runs a check on an event loop, where futures are made."""

    async def run():
        check()

    asyncio.run(run())


def keep(answers, number):
    answer = answers.open(key(number), SAME, 1.0)
    answers.keep(key(number), RESPONSE)
    return answer


def test_a_kept_answer_is_found_until_it_is_too_old():
    def check():
        clock = Clock()
        answers = Answers(10**6, 60.0, clock)
        assert answers.find(key(1), SAME, 1.0) is None
        kept = keep(answers, 1)
        assert answers.find(key(1), SAME, 1.0) is kept
        assert kept.response.result() is RESPONSE
        assert answers.kept_bytes == RESPONSE.ByteSize()
        clock.now_s = 60.1
        assert answers.find(key(1), SAME, 1.0) is None
        assert answers.kept_bytes == 0

    in_loop(check)


def test_the_oldest_answers_make_room():
    def check():
        answers = Answers(3 * RESPONSE.ByteSize(), 60.0, Clock())
        for number in range(5):
            keep(answers, number)
        found = [answers.find(key(number), SAME, 1.0) is not None for number in range(5)]
        assert found == [False, False, True, True, True]

    in_loop(check)


def test_a_request_under_way_is_never_forgotten():
    def check():
        clock = Clock()
        answers = Answers(0, 0.0, clock)
        waiting = answers.open(key(1), SAME, 1.0)
        clock.now_s = 10**6
        keep(answers, 2)
        assert answers.find(key(2), SAME, 1.0) is None
        assert answers.find(key(1), SAME, 1.0) is waiting

    in_loop(check)


def test_a_repetition_prolongs_the_deadline_and_never_shortens_it():
    def check():
        answers = Answers(10**6, 60.0, Clock())
        waiting = answers.open(key(1), SAME, 1.0)
        answers.find(key(1), SAME, 5.0)
        answers.find(key(1), SAME, 3.0)
        assert waiting.deadline_s == 5.0

    in_loop(check)


def test_a_refused_request_is_new_again():
    def check():
        answers = Answers(10**6, 60.0, Clock())
        waiting = answers.open(key(1), SAME, 1.0)
        answers.drop(key(1), ValueError("no"))
        assert isinstance(waiting.response.exception(), ValueError)
        assert answers.find(key(1), SAME, 1.0) is None

    in_loop(check)


@pytest.mark.parametrize("other", [("ab", 8), ("cd", 7)])
def test_another_request_under_a_used_number_is_refused(other):
    def check():
        answers = Answers(10**6, 60.0, Clock())
        answers.open(key(1), SAME, 1.0)
        with pytest.raises(ProtocolError, match="own request_id"):
            answers.find(key(1), other, 1.0)

    in_loop(check)
