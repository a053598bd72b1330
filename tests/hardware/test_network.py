"""`Network`: seconds and joules for a payload in each direction."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware.network import Network

LINK = Network(uplink_bits_per_s=8e6, downlink_bits_per_s=16e6)
RADIO = dataclasses.replace(LINK, uplink_j_per_bit=0.5, downlink_j_per_bit=0.25)


def test_rates_apply_to_their_direction():
    assert LINK.uplink_s(500_000) == 0.5
    assert LINK.downlink_s(500_000) == 0.25


def test_downlink_left_out_equals_the_uplink():
    symmetric = Network(uplink_bits_per_s=8e6, message_overhead_bytes=7)
    assert symmetric.downlink_s(123) == symmetric.uplink_s(123)


def test_every_message_pays_its_overhead():
    framed = dataclasses.replace(LINK, message_overhead_bytes=1000)
    assert framed.uplink_s(0) == 1e-3
    assert framed.downlink_s(0) == 0.5e-3


def test_round_trip_is_no_part_of_a_direction():
    # Whoever prices an inference adds it once.
    far = dataclasses.replace(LINK, round_trip_s=1.0)
    assert far.uplink_s(100) == LINK.uplink_s(100)
    assert far.downlink_s(100) == LINK.downlink_s(100)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_arrays_of_payloads(payloads):
    seconds = LINK.uplink_s(np.array(payloads))
    np.testing.assert_allclose(seconds, [LINK.uplink_s(p) for p in payloads])


def test_energy_is_per_bit_and_pays_the_overhead():
    assert RADIO.uplink_j(1000) == 4000
    assert RADIO.downlink_j(1000) == 2000
    framed = dataclasses.replace(RADIO, message_overhead_bytes=1000)
    assert framed.uplink_j(0) == 4000
    assert framed.downlink_j(0) == 2000


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_energy_of_arrays_of_payloads_grows_as_their_time(payloads):
    joules = RADIO.uplink_j(np.array(payloads))
    np.testing.assert_allclose(joules, RADIO.uplink_s(np.array(payloads)) * 8e6 * 0.5)


def test_energy_left_out_is_not_known_in_its_direction_only():
    sends = dataclasses.replace(LINK, uplink_j_per_bit=0.0)
    assert sends.uplink_j(5) == 0
    assert np.isnan(sends.downlink_j(5))
    assert np.isnan(LINK.uplink_j(np.zeros(3))).tolist() == [True] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"uplink_bits_per_s": 0.0},
        {"uplink_bits_per_s": float("nan")},
        {"uplink_bits_per_s": float("inf")},
        {"downlink_bits_per_s": float("inf")},
        {"downlink_bits_per_s": float("nan")},
        {"downlink_bits_per_s": -1.0},
        {"downlink_bits_per_s": 0.0},
        {"round_trip_s": -0.1},
        {"round_trip_s": float("nan")},
        {"message_overhead_bytes": -1},
        {"message_overhead_bytes": float("inf")},
        {"uplink_j_per_bit": -1e-9},
        {"downlink_j_per_bit": float("nan")},
    ],
    ids=str,
)
def test_wrong_fields_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(LINK, **wrong)
