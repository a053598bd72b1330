"""`BandwidthTrace` against a loop that sends segment by segment, and its file format."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.hardware import BandwidthTrace, Network, load_trace, synthetic_trace

LIFT = BandwidthTrace(times_s=[10, 12, 20, 21], bits_per_s=[8e6, 0, 4e6, 2e6])

durations = st.floats(0.01, 100)
rates = st.one_of(st.just(0.0), st.floats(1e3, 1e9))


@st.composite
def traces(draw):
    rows = draw(st.lists(st.tuples(durations, rates), min_size=1, max_size=8))
    if not any(rate for _, rate in rows):
        rows.append((1.0, draw(st.floats(1e3, 1e9))))
    first = draw(st.floats(-100, 100))
    ends = np.cumsum([duration for duration, _ in rows])
    return BandwidthTrace(
        times_s=first + np.append(0, ends[:-1]), bits_per_s=[rate for _, rate in rows]
    )


def sent_one_after_the_other(trace, num_bytes, start_s):
    """Seconds until the last bit has left, one segment at a time."""
    times = trace.times_s.tolist()
    last = times[-1] - times[-2] if len(times) > 1 else 1.0
    lengths = [b - a for a, b in zip(times, [*times[1:], times[-1] + last], strict=True)]
    left, elapsed = num_bytes * 8, 0.0
    offset = math.fmod(start_s - times[0], sum(lengths))
    offset += sum(lengths) if offset < 0 else 0
    row = 0
    while row < len(lengths) - 1 and offset >= lengths[row]:
        offset -= lengths[row]
        row += 1
    while True:
        # A start just before the first time may round to just behind the last segment's end.
        span, rate = max(lengths[row] - offset, 0.0), trace.bits_per_s[row]
        if left <= span * rate:
            return elapsed + (left / rate if left else 0.0)
        left -= span * rate
        elapsed += span
        row, offset = (row + 1) % len(lengths), 0.0


@settings(max_examples=200)
@example(
    trace=BandwidthTrace(
        times_s=np.array([1.5622069e-187, 1.6276602, 34.6276602]), bits_per_s=[0.0, 0.0, 1000.0]
    ),
    periods=0.0,
    start=0.0,
)
@given(
    trace=traces(),
    periods=st.floats(0, 20),
    start=st.floats(-500, 500),
)
def test_closed_form_equals_sending_segment_by_segment(trace, periods, start):
    num_bytes = periods * trace.mean_bits_per_s * trace.period_s / 8
    found = float(trace.transfer_s(num_bytes, start))
    # At the border of an outage a rounding of the last bit decides on which side it leaves.
    few = 1e-9 * max(num_bytes, trace.mean_bits_per_s * trace.period_s / 8)
    earlier = sent_one_after_the_other(trace, max(num_bytes - few, 0), start)
    later = sent_one_after_the_other(trace, num_bytes + few, start)
    slack = 1e-9 * (trace.period_s * (periods + 1))
    assert earlier - slack <= found <= later + slack


@given(
    rate=st.floats(1e3, 1e9),
    num_bytes=st.integers(0, 10**8),
    start=st.floats(-1e4, 1e4),
    times=st.lists(st.integers(0, 1000), min_size=1, max_size=5, unique=True).map(sorted),
)
def test_constant_trace_equals_a_network(rate, num_bytes, start, times):
    trace = BandwidthTrace(times_s=times, bits_per_s=[rate] * len(times))
    expected = Network(uplink_bits_per_s=rate).uplink_s(num_bytes)
    assert float(trace.transfer_s(num_bytes, start)) == pytest.approx(expected, abs=1e-8)
    assert trace.mean_bits_per_s == pytest.approx(rate)


def test_known_transfers():
    # Megabyte after megabyte: 2 s at 1 MB/s, 8 s of nothing, 1 s at 0.5, 1 s at 0.25, over again.
    assert LIFT.period_s == 12
    assert LIFT.mean_bits_per_s == pytest.approx(22e6 / 12)
    cases = [
        (1_000_000, 10.0, 1.0),
        (2_000_000, 10.0, 2.0),  # leaves before the outage: does not wait for its end
        (2_500_000, 10.0, 11.0),
        (1_000_000, 11.5, 9.5),
        (500_000, 15.0, 6.0),  # starts in the outage
        (250_000, 21.0, 1.0),
        (1_250_000, 21.0, 2.0),  # wraps
        (2_750_000, 10.0, 12.0),  # a period
        (27_500_000, 10.0, 120.0),
        (27_500_001, 10.0, 120.000001),
        (1_000_000, -2.0, 1.0),  # before the first row: a period earlier
        (1_000_000, 22 + 12 * 1000, 1.0),
        (0, 15.0, 0.0),
    ]
    size, start, expected = np.array(cases).T
    np.testing.assert_allclose(LIFT.transfer_s(size, start), expected, rtol=1e-9)


@settings(max_examples=50)
@given(trace=traces(), size=st.integers(1, 10**7), more=st.integers(1, 10**7))
def test_more_bytes_and_later_starts_never_end_earlier(trace, size, more):
    starts = np.linspace(0, 2 * trace.period_s, 57)
    seconds = trace.transfer_s(np.array([[size], [size + more]]), starts)
    slack = 1e-9 * (seconds.max() + trace.period_s)
    assert seconds.shape == (2, 57)
    assert np.all(np.diff(seconds, axis=0) >= -slack)
    assert np.all(np.diff(starts + seconds, axis=1) >= -slack)


@settings(max_examples=50)
@given(trace=traces(), first=st.integers(1, 10**7), second=st.integers(1, 10**7))
def test_two_transfers_in_a_row_take_as_long_as_one(trace, first, second):
    whole = float(trace.transfer_s(first + second, 3.0))
    half = float(trace.transfer_s(first, 3.0))
    rest = float(trace.transfer_s(second, 3.0 + half))
    # One bit left over waits for the end of an outage.
    few = 1e-9 * (first + second + trace.mean_bits_per_s * trace.period_s)
    more = float(trace.transfer_s(first + second + few, 3.0))
    fewer = float(trace.transfer_s(max(first + second - few, 0), 3.0))
    slack = 1e-9 * (whole + trace.period_s)
    assert fewer - slack <= half + rest <= more + slack


def test_sizes_and_starts_broadcast():
    seconds = LIFT.transfer_s(np.array([[1e5], [2e5]]), np.array([0.0, 5.0, 15.0]))
    assert seconds.shape == (2, 3)
    assert seconds[1, 2] == LIFT.transfer_s(2e5, 15.0)
    assert LIFT.transfer_s(1, 0).shape == ()
    assert LIFT.transfer_s(np.zeros(0), 0).shape == (0,)


def test_a_million_starts_are_a_matter_of_a_second():
    trace = synthetic_trace(5e6, duration_s=3600)
    seconds = trace.transfer_s(50_000, np.linspace(0, 3600, 1_000_000))
    assert seconds.min() > 0
    # Starts that fall into a good second see less than the mean rate's time, others more.
    assert seconds.min() < 50_000 * 8 / 5e6 < seconds.max()


def test_a_trace_keeps_its_own_read_only_numbers():
    times = np.array([0.0, 1.0])
    trace = BandwidthTrace(times_s=times, bits_per_s=[1.0, 2.0])
    times[1] = 0.0
    assert trace.times_s[1] == 1
    with pytest.raises(ValueError, match="read-only"):
        trace.bits_per_s[0] = 0


@settings(max_examples=20)
@given(trace=traces())
def test_csv_keeps_every_number(tmp_path_factory, trace):
    file = tmp_path_factory.mktemp("trace") / "drive.csv"
    trace.to_csv(file)
    again = load_trace(file)
    assert again.name == "drive"
    np.testing.assert_array_equal(again.times_s, trace.times_s)
    np.testing.assert_array_equal(again.bits_per_s, trace.bits_per_s)


def write(folder, text):
    file = folder / "trace.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_comments_empty_lines_and_spaces_are_skipped(tmp_path, newline):
    lines = ["# drive", "", " time_s , bits_per_s ", "# home", " 0 , 1e6", "", "2.5,0", ""]
    trace = load_trace(write(tmp_path, "\ufeff" + newline.join(lines)))
    assert trace.times_s.tolist() == [0, 2.5]
    assert trace.bits_per_s.tolist() == [1e6, 0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "0 lines"),
        ("# nothing\n\n", "0 lines"),
        ("time_s,bits_per_s\n", "1 lines"),
        ("# c\ntime,rate\n0,1\n", r"line 2: the header is 'time,rate'"),
        ("0,1\n1,2\n", r"line 1: the header is '0,1'"),
        ("time_s,bits_per_s\n0,1\n1\n", r"line 3: '1' has 1 columns"),
        ("time_s,bits_per_s\n0,1\n\n1,2,3\n", r"line 4: '1,2,3' has 3 columns"),
        ("time_s,bits_per_s\n0,fast\n", r"line 2: '0,fast' holds no two numbers"),
        ("time_s,bits_per_s\n0,\n", "line 2: '0,' holds no two numbers"),
        ("time_s,bits_per_s\n0,1\n1,nan\n", "line 3: the rate is nan"),
        ("time_s,bits_per_s\n0,1\n1,inf\n", "line 3: the rate is inf"),
        ("time_s,bits_per_s\n0,1\nnan,1\n", "line 3: the time is nan"),
        ("time_s,bits_per_s\n0,1\n# c\n1,-5\n", r"line 4: the rate is -5\.0"),
        ("time_s,bits_per_s\n0,1\n2,1\n2,1\n", r"line 4: the time 2\.0 s follows 2\.0 s"),
        ("time_s,bits_per_s\n0,1\n2,1\n1,1\n", r"line 4: the time 1\.0 s follows 2\.0 s"),
        ("time_s,bits_per_s\n0,0\n1,0\n", "never has a rate above 0"),
        (b"\xff\xfe\x00\x81", "cannot be read"),
    ],
    ids=repr,
)
def test_wrong_files_say_what_and_where(tmp_path, text, found):
    with pytest.raises(InputError, match=found) as caught:
        load_trace(write(tmp_path, text))
    assert "trace.csv" in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        load_trace(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"times_s": [0.0]}, "expected two vectors of one length"),
        ({"times_s": np.zeros((2, 2)), "bits_per_s": np.ones((2, 2))}, "two vectors"),
        ({"times_s": [], "bits_per_s": []}, "never has a rate above 0"),
        ({"times_s": [1.0, 0.0]}, "row 1: the time 0"),
        ({"bits_per_s": [1.0, -1.0]}, "row 1: the rate is -1"),
        ({"bits_per_s": [math.nan, 1.0]}, "row 0: the rate is nan"),
        ({"bits_per_s": [0.0, 0.0]}, "never has a rate above 0"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(wrong, found):
    right = BandwidthTrace(times_s=[0.0, 1.0], bits_per_s=[1.0, 2.0])
    with pytest.raises(InputError, match=found):
        dataclasses.replace(right, **wrong)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, np.array([1.0, -1.0])], ids=str)
def test_wrong_sizes_are_named(wrong):
    with pytest.raises(InputError, match="num_bytes"):
        LIFT.transfer_s(wrong, 0.0)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf], ids=str)
def test_wrong_starts_are_named(wrong):
    with pytest.raises(InputError, match="start_s"):
        LIFT.transfer_s(1, wrong)


@settings(max_examples=20)
@given(
    mean=st.floats(1e3, 1e9),
    spread=st.floats(0, 1.5),
    share=st.floats(0, 0.6),
    seed=st.integers(0, 1000),
)
def test_synthetic_traces_keep_their_mean(mean, spread, share, seed):
    trace = synthetic_trace(
        mean, duration_s=50, step_s=0.5, spread=spread, outage_share=share, seed=seed
    )
    assert len(trace.times_s) == 100
    assert trace.mean_bits_per_s == pytest.approx(mean)
    again = synthetic_trace(
        mean, duration_s=50, step_s=0.5, spread=spread, outage_share=share, seed=seed
    )
    np.testing.assert_array_equal(trace.bits_per_s, again.bits_per_s)


def test_synthetic_traces_have_the_shape_they_were_asked_for():
    trace = synthetic_trace(
        1e6, duration_s=20_000, spread=0.4, correlation_s=8, outage_share=0.2, outage_s=4, seed=3
    )
    on = trace.bits_per_s > 0
    assert on.mean() == pytest.approx(0.8, abs=0.03)
    outages = np.sum(np.diff(on.astype(int)) < 0)
    assert np.sum(~on) / outages == pytest.approx(4, rel=0.1)
    both = on[1:] & on[:-1]
    level = np.log(trace.bits_per_s, where=on, out=np.zeros(len(on)))
    level -= level[on].mean()
    assert level[on].std() == pytest.approx(0.4, rel=0.15)
    correlation = np.mean(level[1:][both] * level[:-1][both]) / level[on].var()
    assert correlation == pytest.approx(np.exp(-1 / 8), abs=0.03)


def test_synthetic_seeds_differ_and_nothing_random_gives_a_constant():
    one, two = (synthetic_trace(1e6, seed=seed) for seed in (1, 2))
    assert np.any(one.bits_per_s != two.bits_per_s)
    flat = synthetic_trace(1e6, spread=0, outage_share=0)
    np.testing.assert_allclose(flat.bits_per_s, 1e6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean_bits_per_s": 0},
        {"duration_s": math.inf},
        {"step_s": math.nan},
        {"duration_s": 0.5},
        {"spread": -1},
        {"correlation_s": 0},
        {"outage_share": 1.0},
        {"outage_share": -0.1},
        {"outage_s": 0.5},
    ],
    ids=str,
)
def test_wrong_synthetic_arguments_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        synthetic_trace(**{"mean_bits_per_s": 1e6, **wrong})


def test_outages_too_short_for_their_share_are_refused():
    with pytest.raises(InputError, match="cannot fill"):
        synthetic_trace(1e6, outage_share=0.9, outage_s=1.0)
