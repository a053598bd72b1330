import contextlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError, ProtocolError
from autosplit.serving import coding
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.coding import AS_IS, Coding, CodingCost

LEVELS = st.sampled_from([None, *coding.ZSTD_LEVELS])


@given(st.binary(max_size=300), st.integers(0, 40), LEVELS)
def test_what_is_decoded_is_what_was_encoded(data, repeats, level):
    data *= repeats
    coded, kind = coding.encode(data, Coding(zstd_level=level))
    assert coding.decode(coded, kind, len(data)) == data
    assert len(coded) <= len(data)
    assert (kind == pb2.CODING_ZSTD) == (len(coded) < len(data))


@given(st.binary(min_size=50, max_size=300), st.data())
def test_damaged_frames_are_refused_or_have_the_right_size(data, choice):
    data *= 10
    coded, kind = coding.encode(data, Coding(zstd_level=1))
    place = choice.draw(st.integers(0, 8 * len(coded) - 1))
    damaged = bytearray(coded)
    damaged[place // 8] ^= 1 << place % 8
    for wrong in (bytes(damaged), coded[: place // 8], coded + b"\0", coded + coded):
        with contextlib.suppress(ProtocolError):
            assert len(coding.decode(wrong, kind, len(data))) == len(data)


def test_data_of_another_size_is_refused_however_it_is_coded():
    zeros = bytes(1000)
    coded, _ = coding.encode(zeros, Coding(zstd_level=3))
    for data, kind in ((zeros, pb2.CODING_NONE), (coded, pb2.CODING_ZSTD)):
        for size_bytes in (999, 1001):
            with pytest.raises(ProtocolError, match=f"1000 bytes; expected {size_bytes}"):
                coding.decode(data, kind, size_bytes)


def test_a_frame_without_its_size_is_refused():
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(ProtocolError, match="expected 1000"):
        coding.decode(compressor.compress(bytes(1000)), pb2.CODING_ZSTD, 1000)


def test_a_frame_that_needs_a_dictionary_is_refused():
    words = zstandard.train_dictionary(300, [bytes([i, i + 1] * 40) for i in range(200)])
    coded = zstandard.ZstdCompressor(dict_data=words).compress(bytes(1000))
    with pytest.raises(ProtocolError, match=r"dictionary [1-9]"):
        coding.decode(coded, pb2.CODING_ZSTD, 1000)


def test_a_slow_link_is_worth_coding_and_a_fast_one_is_not():
    sparse = np.random.default_rng(0).binomial(1, 0.05, 50_000).astype(np.uint8)
    costs = coding.measure_codings([[sparse], [sparse[::-1]]])
    assert costs[0] == CodingCost(coding=AS_IS, sent_bytes=50_000, encode_s=0, decode_s=0)
    assert all(cost.sent_bytes < 25_000 for cost in costs[1:])
    assert coding.fastest_coding(costs, 1e4).coding != AS_IS
    assert coding.fastest_coding(costs, 1e15).coding == AS_IS


def test_noise_is_never_coded():
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8)
    costs = coding.measure_codings([[noise]])
    assert {cost.sent_bytes for cost in costs} == {5000}
    for bytes_per_s in (1e2, 1e6, 1e12):
        assert coding.fastest_coding(costs, bytes_per_s).coding == AS_IS


@given(
    st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 1), st.floats(0, 1)), max_size=5),
    st.floats(1, 1e9),
)
def test_coding_is_used_only_where_the_link_saves_more_than_it_takes(drawn, bytes_per_s):
    plain = CodingCost(coding=AS_IS, sent_bytes=1e6, encode_s=0.0, decode_s=0.0)
    coded = [
        CodingCost(coding=Coding(zstd_level=i), sent_bytes=sent, encode_s=e, decode_s=d)
        for i, (sent, e, d) in enumerate(drawn)
    ]
    best = coding.fastest_coding((plain, *coded), bytes_per_s)
    saved_s = (plain.sent_bytes - best.sent_bytes) / bytes_per_s
    assert best == plain or saved_s > (best.encode_s + best.decode_s) * (1 - 1e-9) - 1e-12


@pytest.mark.parametrize("bytes_per_s", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_a_rate(bytes_per_s):
    with pytest.raises(InputError, match="bytes_per_s"):
        coding.choose_coding([[np.zeros(10, np.uint8)]], bytes_per_s)


def test_codings_are_measured_on_something():
    with pytest.raises(InputError, match="No samples"):
        coding.measure_codings([])
