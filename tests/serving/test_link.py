import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware.network import Network
from autosplit.serving.link import ShapedLink, sleep_until, steady_conditions


@given(
    message_bytes=st.integers(0, 10**8),
    uplink=st.floats(1e3, 1e10),
    downlink=st.floats(1e3, 1e10),
    round_trip_s=st.floats(0, 2),
    overhead=st.integers(0, 1000),
)
def test_request_and_response_take_what_the_network_says(
    message_bytes, uplink, downlink, round_trip_s, overhead
):
    network = Network(
        uplink_bits_per_s=uplink,
        downlink_bits_per_s=downlink,
        round_trip_s=round_trip_s,
        message_overhead_bytes=overhead,
    )
    link = ShapedLink(network=network)
    bits = 8 * (message_bytes + overhead)
    assert link.request_s(message_bytes) == pytest.approx(bits / uplink + round_trip_s / 2)
    assert link.response_s(message_bytes) == pytest.approx(bits / downlink + round_trip_s / 2)


def test_sleeping_never_ends_early():
    for wait_s in (0.0, 0.001, 0.02):
        deadline_s = time.perf_counter() + wait_s
        sleep_until(deadline_s)
        assert time.perf_counter() >= deadline_s


def test_a_past_deadline_is_not_waited_for():
    sleep_until(time.perf_counter() - 3600)


@pytest.mark.parametrize(
    ("field", "value"),
    [("delay_s", -1), ("jitter_s", float("nan")), ("retransmit_s", float("inf")), ("loss", 1.0),
     ("loss", -0.1), ("packet_header_bytes", -1)],
)  # fmt: skip
def test_conditions_that_no_link_has_are_refused(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}; expected"):
        dataclasses.replace(steady_conditions(Network(uplink_bits_per_s=1e6)), **{field: value})


@given(uplink=st.floats(1e3, 1e9), downlink=st.none() | st.floats(1e3, 1e9))
def test_steady_conditions_carry_bytes_as_the_network_says(uplink, downlink):
    network = Network(uplink_bits_per_s=uplink, downlink_bits_per_s=downlink, round_trip_s=0.3)
    conditions = steady_conditions(network, loss=0.25)
    for start_s in (0.0, 7.3):
        assert conditions.uplink.transfer_s(5000, start_s) == pytest.approx(network.uplink_s(5000))
        took_s = conditions.downlink.transfer_s(700, start_s)
        assert took_s == pytest.approx(network.downlink_s(700))
    assert 2 * conditions.delay_s == network.round_trip_s
    assert conditions.loss == 0.25
