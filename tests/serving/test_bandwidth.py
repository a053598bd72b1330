import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.serving.bandwidth import BandwidthEstimate, Transfer

ROUND_TRIP_S = 0.04


def simulate(rate_at, ready, message_bytes, server_s=0.003):
    """Sends messages over a link that carries one at a time; ``rate_at`` tells its bits/s."""
    free_s, transfers = 0.0, []
    for ready_s, size in zip(ready, message_bytes, strict=True):
        free_s = max(free_s, ready_s)
        free_s += 8 * size / rate_at(free_s)
        received_s = free_s + ROUND_TRIP_S + server_s
        transfers.append(
            Transfer(sent_s=ready_s, received_s=received_s, server_s=server_s, message_bytes=size)
        )
    return transfers


def estimate(transfers):
    found = BandwidthEstimate(round_trip_s=ROUND_TRIP_S)
    for one in transfers:
        found = found.after(one)
    return found


def small(took_s):
    received_s = 50.0 + ROUND_TRIP_S + took_s
    return Transfer(sent_s=50.0, received_s=received_s, server_s=0.0, message_bytes=500)


SIZES = st.lists(st.integers(5_000, 200_000), min_size=2, max_size=20)


@given(rate=st.floats(1e5, 1.9e6), sizes=SIZES, gap_s=st.floats(0, 3))
def test_the_rate_is_found_whether_messages_queue_or_not(rate, sizes, gap_s):
    ready = [1 + index * gap_s for index in range(len(sizes))]
    transfers = simulate(lambda at_s: rate, ready, sizes)
    assert estimate(transfers).bits_per_s == pytest.approx(rate, rel=1e-6)


@given(rate=st.floats(2e6, 1e9), sizes=SIZES, gap_s=st.floats(0, 3))
def test_a_rate_that_the_messages_do_not_show_is_not_overrated(rate, sizes, gap_s):
    ready = [1 + index * gap_s for index in range(len(sizes))]
    found = estimate(simulate(lambda at_s: rate, ready, sizes)).bits_per_s
    assert found <= rate * (1 + 1e-6)
    # What it predicts for the largest message is wrong by no more than the noise.
    assert 8 * max(sizes) / found <= 8 * max(sizes) / rate + ROUND_TRIP_S


def test_nothing_is_known_before_the_first_transfer():
    fresh = BandwidthEstimate(round_trip_s=ROUND_TRIP_S)
    assert fresh.bits_per_s is None
    assert fresh.while_waiting(1000, 0.0, 0.0, 100.0) is None


@pytest.mark.parametrize(("before", "after"), [(1e6, 1e5), (1e5, 1e6), (3e6, 4e5)])
def test_a_change_is_followed_within_a_few_seconds(before, after):
    ready = [0.5 * index for index in range(60)]
    transfers = simulate(lambda at_s: before if at_s < 15 else after, ready, [20_000] * 60)
    settled = [one for one in transfers if one.received_s < 15]
    assert estimate(settled).bits_per_s == pytest.approx(before, rel=1e-6)
    assert estimate(transfers).bits_per_s == pytest.approx(after, rel=0.05)


def test_what_the_server_took_is_not_the_link():
    slow_server = simulate(lambda at_s: 1e6, [0.0, 5.0], [10_000] * 2, server_s=2.0)
    assert estimate(slow_server).bits_per_s == pytest.approx(1e6)


def test_responses_in_another_order_average_out():
    transfers = simulate(lambda at_s: 1e6, [0.0] * 8, [20_000] * 8)
    swapped = [transfers[at] for at in (1, 0, 3, 2, 5, 4, 7, 6)]
    assert estimate(swapped).bits_per_s == pytest.approx(1e6, rel=0.2)


def test_a_request_that_takes_too_long_lowers_the_rate_before_its_answer():
    known = estimate(simulate(lambda at_s: 1e6, [0.0], [10_000]))
    rates = [known.while_waiting(10_000, 1.0, 0.01, 1.0 + waited_s) for waited_s in (0.0, 1.0, 9.0)]
    assert rates[0] == known.bits_per_s
    assert known.bits_per_s > rates[1] > rates[2]
    assert rates[2] == pytest.approx(8e4 / (9.0 - 0.01 - ROUND_TRIP_S))


def test_an_estimate_is_not_changed_by_the_next_one():
    first = BandwidthEstimate(round_trip_s=ROUND_TRIP_S)
    copy = dataclasses.replace(first)
    first.after(Transfer(sent_s=0.0, received_s=1.0, server_s=0.0, message_bytes=100))
    assert first == copy


def test_small_messages_do_not_hide_what_a_large_one_showed():
    """They take some milliseconds for other reasons than their bits."""
    known = estimate(simulate(lambda at_s: 1e8, [0.0], [500_000]))
    slow = small(took_s=0.002)
    assert known.after(slow).bits_per_s == known.bits_per_s


def test_a_small_message_shows_at_least_its_own_rate():
    known = estimate(simulate(lambda at_s: 1e5, [0.0], [50_000]))
    assert known.after(small(took_s=0.001)).bits_per_s == pytest.approx(8 * 500 / 0.02)
