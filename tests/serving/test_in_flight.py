import itertools
import threading

import pytest

from autosplit.errors import ProtocolError
from autosplit.serving.in_flight import InFlight, Request

LONG_S = 30.0


def make(request_id, frame=0):
    return Request(
        request_id=request_id, frame=frame, plan=0, inputs=(), message=None, message_bytes=10,
        started_s=0.0, ready_s=0.0, edge_s=0.0, pack_s=0.0,
    )  # fmt: skip


@pytest.fixture
def flight():
    """Five requests; the first three were sent on connection 1."""
    table = InFlight()
    for number in range(5):
        table.add(make(10 + number, frame=number))
    assert table.connect() == 1
    for number in range(3):
        request = table.next_to_send(1)
        assert request.request_id == 10 + number
        request.sent_now()
    return table


def ids(requests):
    return [request.request_id for request in requests]


def test_a_request_is_answered_once(flight):
    request, awaited = flight.settle(11)
    assert (request.frame, awaited) == (1, True)
    assert flight.settle(11) == (None, False)
    assert flight.duplicates == 1
    assert ids(flight.waiting()) == [10, 12, 13, 14]


@pytest.mark.parametrize("request_id", [9, 15, 2**63])
def test_an_answer_to_nothing_is_refused(flight, request_id):
    with pytest.raises(ProtocolError, match="which this stream did not send"):
        flight.settle(request_id)


def test_a_new_connection_sends_what_has_no_answer_oldest_first(flight):
    flight.settle(10)
    connection = flight.connect()
    assert flight.next_to_send(connection - 1) is None
    assert ids(flight.next_to_send(connection) for _ in range(4)) == [11, 12, 13, 14]


def test_a_request_that_was_given_up_is_not_sent_again_but_its_answer_is_known(flight):
    first, second = flight.waiting()[:2]
    assert flight.give_up(first)
    assert not flight.give_up(first)
    assert ids(flight.sent()) == [10, 11, 12]
    assert flight.settle(10) == (first, False)
    assert flight.give_up(second)
    assert ids(flight.next_to_send(flight.connect()) for _ in range(1)) == [12]
    assert flight.settle(11) == (None, False)  # its connection is gone, and so is it


def test_a_request_that_was_never_sent_is_given_up_for_good(flight):
    last = flight.waiting()[-1]
    assert flight.give_up(last)
    assert ids(flight.sent()) == [10, 11, 12]
    assert flight.next_to_send(1).request_id == 13


def test_a_postponed_request_waits_its_time_and_lets_others_pass(flight):
    request, _ = flight.settle(10)
    flight.postpone(request, 0.05)
    assert ids(flight.next_to_send(1) for _ in range(3)) == [13, 14, 10]


def test_probes_do_not_survive_their_connection(flight):
    flight.add(make(15, frame=None))
    connection = flight.connect()
    assert ids(flight.next_to_send(connection) for _ in range(5)) == [10, 11, 12, 13, 14]
    assert ids(flight.waiting()) == [10, 11, 12, 13, 14]


def test_senders_end_when_everything_is_answered(flight):
    flight.end()
    got = []
    thread = threading.Thread(
        target=lambda: got.extend(iter(lambda: flight.next_to_send(1), None)), daemon=True
    )
    thread.start()
    for request_id in range(10, 15):
        assert not flight.ended
        flight.settle(request_id)
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert flight.ended


def test_every_request_is_settled_once_by_whichever_thread_is_first():
    table, won = InFlight(), []
    for number in range(200):
        table.add(make(number))

    def settle():
        for number in range(200):
            if table.settle(number)[0] is not None:
                won.append(number)

    threads = [threading.Thread(target=settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert sorted(won) == list(range(200))
    assert table.duplicates == 3 * 200
    assert list(itertools.chain(table.waiting(), table.sent())) == []
