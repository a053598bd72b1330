"""Histograms, and the clips that are read off or searched on them, against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.errors import InputError
from autosplit.quant.clipping import METHODS, clip_rule, histogram, percentile_clip
from autosplit.quant.clipping.average import average_clip
from autosplit.quant.clipping.histogram import BINS
from autosplit.quant.clipping.minmax import minmax_clip
from autosplit.quant.clipping.mse import expected_error, lp_clip, mse_clip

RATIOS = np.unique(np.r_[np.geomspace(0.01, 1, 120), np.linspace(0.5, 1, 80)])

make_histogram = jax.jit(histogram)
find_mse_clip = jax.jit(mse_clip, static_argnums=2)
find_lp_clip = jax.jit(lp_clip, static_argnums=2)
expect_error = jax.jit(expected_error, static_argnums=4)

SAMPLES = (
    "gauss", "laplace", "half laplace", "uniform", "heavy tails", "relu spike", "negative",
    "silu", "two values", "far from zero", "tiny", "huge",
)  # fmt: skip


def exact_error(x, low, high, bits, symmetric, p=2):
    """Quantizes every value in float64: mean p-th power of the error."""
    x, low, high = np.float64(x), float(low), float(high)
    if symmetric and bits == 1:
        return np.mean(np.abs(np.abs(x) - high) ** p)
    if symmetric:
        qmax = 2 ** (bits - 1) - 1
        levels = np.clip(np.rint(x / high * qmax), -qmax, qmax) * high / qmax
    else:
        low, high = min(low, 0), max(high, 0)
        scale = (high - low) / (2**bits - 1)
        zero = np.rint(-low / scale)
        levels = (np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1) - zero) * scale
    return np.mean(np.abs(x - levels) ** p)


def part(x, ratio, symmetric):
    """The clip at a ratio of the range."""
    reach = float(np.abs(x).max())
    low, high = (-reach, reach) if symmetric else (float(x.min()), float(x.max()))
    return ratio * low, ratio * high


class TestHistogram:
    @given(x=hnp.arrays(np.float32, 20, elements=st.floats(-1e3, 1e3, width=32)))
    def test_counts_every_value_once_near_where_it_is(self, x):
        found = jax.tree.map(np.asarray, make_histogram(x))
        assert float(found.counts.sum()) == x.size
        assert float(found.low) == pytest.approx(x.min(), abs=2e-38)
        assert float(found.high) == pytest.approx(x.max(), abs=2e-38)
        # The sorted bins hold the sorted values, up to a bin.
        centers = np.repeat(np.asarray(found.centers), np.asarray(found.counts, int))
        slack = float(found.width) + 1e-4 * np.abs(x).max() + 1e-30
        assert np.abs(centers - np.sort(x)).max() <= slack

    def test_equals_numpy_away_from_the_borders(self, sample):
        x = sample("gauss")
        found = np.asarray(make_histogram(x).counts)
        # float64 puts a value on a border into the neighbouring bin.
        expected, _ = np.histogram(np.float64(x), bins=BINS, range=(x.min(), x.max()))
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 2

    def test_weights_are_summed(self):
        x, weight = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([[2.0, 3.0]])
        found = make_histogram(x, sample_weight=weight)
        assert (float(found.counts[0]), float(found.counts[-1])) == (4.0, 6.0)

    def test_empty_and_constant(self):
        empty = make_histogram(np.zeros((0, 3)))
        assert (float(empty.counts.sum()), float(empty.low), float(empty.high)) == (0, 0, 0)
        constant = make_histogram(np.full(7, 2.5))
        assert float(constant.counts.sum()) == 7
        assert np.unique(constant.centers).tolist() == [2.5]

    def test_values_that_are_not_finite_are_left_out(self, sample):
        x = sample("gauss", 500)
        bad = np.r_[np.inf, x, -np.inf, np.nan].astype(np.float32)
        found, expected = make_histogram(bad, 2.0), make_histogram(x, 2.0)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
        none = make_histogram(np.full(503, np.nan, np.float32))
        assert (float(none.counts.sum()), float(none.low), float(none.high)) == (0, 0, 0)

    @pytest.mark.parametrize("size", [1e-34, 3e38])
    def test_any_magnitude_has_the_same_counts(self, size, sample):
        x = np.r_[-1, 0.1 * sample("gauss", 498), 1].astype(np.float32)
        found = make_histogram(x * np.float32(size))
        assert np.isfinite(found.centers).all()
        assert np.abs(np.cumsum(found.counts - make_histogram(x).counts)).max() <= 2
        assert float(found.unit.reach) == pytest.approx(1)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_spike_of_a_relu_goes(self, sign):
        x = sign * np.maximum(np.random.default_rng(0).normal(size=100_000), 0)
        values = make_histogram(x.astype(np.float32))
        counts, flat = np.asarray(values.counts)[::sign], values.without_spike().counts[::sign]
        assert counts[0] > 50_000
        assert flat[0] == counts[1]
        np.testing.assert_array_equal(flat[1:], counts[1:])

    def test_without_zero_there_is_no_spike(self):
        for x in (jnp.array([1.0, 1.0, 2.0]), jnp.array([-1.0, -1.0, -2.0]), jnp.full(5, 3.0)):
            values = make_histogram(x)
            np.testing.assert_array_equal(values.without_spike().counts, values.counts)


class TestMse:
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("name", SAMPLES)
    def test_as_good_as_brute_force(self, name, symmetric, sample):
        x = sample(name)
        values = make_histogram(x)
        for bits in (2, 3, 4, 6, 8):
            clip = find_mse_clip(values, bits, symmetric)
            tried = (part(x, ratio, symmetric) for ratio in RATIOS)
            # At many bits the error jumps with the clip, where many values are alike.
            best = min(exact_error(x, *ends, bits, symmetric) for ends in tried)
            rounding = 1e-11 * np.abs(np.float64(x)).max() ** 2
            assert exact_error(x, *clip, bits, symmetric) <= 1.02 * best + rounding, bits

    def test_each_end_finds_its_own_place(self, sample):
        # The long side is clipped, which must not clip the other one.
        x = np.r_[sample("gauss", 8000), 40.0].astype(np.float32)
        clip = find_mse_clip(make_histogram(x), 4, False)
        lows, highs = RATIOS[RATIOS > 0.4][::8], RATIOS[::4]
        ends = [(low, high) for low in lows * x.min() for high in highs * x.max()]
        best = min(exact_error(x, *pair, 4, False) for pair in ends)
        together = min(exact_error(x, *part(x, r, False), 4, False) for r in RATIOS)
        assert exact_error(x, *clip, 4, False) <= 1.03 * best
        assert best < 0.8 * together

    @pytest.mark.parametrize("p", [2, 3.0])
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_expected_error_equals_monte_carlo(self, bits, symmetric, p, sample):
        # Values spread evenly over each bin are what the closed form assumes.
        rng = np.random.default_rng(0)
        x = sample("laplace", 2000)
        values = make_histogram(x)
        counts, width = np.asarray(values.counts, int), float(values.width)
        centers = np.repeat(np.asarray(values.centers, np.float64), counts)
        spread = (centers + width * (rng.random((50, centers.size)) - 0.5)).ravel()
        for ratio in (0.3, 1.0):
            ends = part(x, ratio, symmetric)
            found = float(expect_error(values, *ends, bits, symmetric, p)) / centers.size
            assert found == pytest.approx(exact_error(spread, *ends, bits, symmetric, p), rel=2e-2)

    def test_constant_tensors_keep_their_range(self):
        for value in (5.0, -5.0):
            values = make_histogram(jnp.full(100, value))
            for symmetric in (True, False):
                # Any other clip cuts every value.
                for bits in range(1, 9):
                    clip = find_mse_clip(values, bits, symmetric)
                    assert float(clip[int(symmetric or value > 0)]) == (5 if symmetric else value)

    @given(scale=st.floats(1e-10, 1e10))
    def test_the_part_does_not_depend_on_the_scale(self, scale, sample):
        x = jnp.asarray(sample("laplace", 500))
        _, scaled = find_mse_clip(make_histogram(x * np.float32(scale)), 4, True)
        _, high = find_mse_clip(make_histogram(x), 4, True)
        assert float(scaled) == pytest.approx(scale * float(high), rel=0.05)

    def test_more_bits_clip_less(self, sample):
        values = make_histogram(sample("laplace"))
        highs = [float(find_mse_clip(values, bits, True)[1]) for bits in range(2, 9)]
        assert highs == sorted(highs)


class TestLp:
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("name", ["gauss", "half laplace", "heavy tails", "silu"])
    def test_as_good_as_brute_force(self, name, symmetric, sample):
        x = sample(name)
        values = make_histogram(x)
        for p in (2.4, 4.0):
            for bits in (2, 4, 6):
                clip = find_lp_clip(values, bits, symmetric, jnp.float32(p))
                tried = (part(x, ratio, symmetric) for ratio in RATIOS[::2])
                best = min(exact_error(x, *ends, bits, symmetric, p) for ends in tried)
                assert exact_error(x, *clip, bits, symmetric, p) <= 1.02 * best, (p, bits)

    def test_a_larger_p_clips_less(self, sample):
        values = make_histogram(sample("laplace"))
        ps = jnp.linspace(2.0, 4.0, 10)
        _, highs = jax.vmap(lambda p: find_lp_clip(values, 4, True, p))(ps)
        assert (np.diff(highs) >= 0).all()
        assert highs[-1] > 1.2 * highs[0]

    def test_a_p_of_two_is_mse(self, sample):
        values = make_histogram(sample("gauss"))
        for symmetric in (True, False):
            found = find_lp_clip(values, 4, symmetric, jnp.float32(2))
            np.testing.assert_allclose(found, find_mse_clip(values, 4, symmetric), rtol=0.05)


class TestPercentile:
    @pytest.mark.parametrize("percent", [99.99, 99.0, 90.0])
    @pytest.mark.parametrize("name", ["gauss", "silu", "relu spike", "heavy tails"])
    def test_equals_quantiles(self, name, percent, sample):
        x = sample(name, 200_000)
        values = make_histogram(x)
        low, high = percentile_clip(values, 4, False, percent)
        expected = np.quantile(np.float64(x), [1 - percent / 100, percent / 100])
        # The far tail is sparse: neighbouring values lie some bins apart.
        slack = (2 if percent < 99.9 else 12) * float(values.width)
        assert float(low) == pytest.approx(min(expected[0], 0), abs=slack)
        assert float(high) == pytest.approx(expected[1], abs=slack)
        reach = max(-float(low), float(high))
        assert [float(end) for end in percentile_clip(values, 4, True, percent)] == [-reach, reach]

    def test_of_all_is_the_whole_range(self, sample):
        values = make_histogram(sample("gauss"))
        everything = functools.partial(percentile_clip, percent=100.0)
        np.testing.assert_array_equal(everything(values, 4, False), minmax_clip(values, 4, False))


class TestExtremes:
    def test_minmax_keeps_the_whole_range(self, sample):
        x = sample("heavy tails")
        values = make_histogram(x)
        for bits in range(1, 9):
            reach = np.abs(x).max()
            assert minmax_clip(values, bits, True) == (-reach, reach)
            assert minmax_clip(values, bits, False) == (x.min(), x.max())

    def test_average_is_that_of_the_calls(self):
        seen = {"low": jnp.float32(-2), "high": jnp.float32(5)}
        ends = {"average_low": jnp.float32(-1.5), "average_high": jnp.float32(1.0)}
        values = type(histogram(jnp.zeros(1)))(counts=jnp.ones(BINS), **seen, **ends)
        assert average_clip(values, 4, False) == (-1.5, 1.0)
        assert average_clip(values, 4, True) == (-1.5, 1.5)

    def test_average_of_one_call_is_its_range(self, sample):
        values = make_histogram(sample("gauss"))
        for symmetric in (True, False):
            assert average_clip(values, 4, symmetric) == minmax_clip(values, 4, symmetric)


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(InputError, match=r"minmax.*mse.*kl.*aciq-gauss"):
        clip_rule("entropy")


@pytest.mark.parametrize("name", list(METHODS))
def test_bits_do_not_recompile(name, sample):
    traces = []

    @functools.partial(jax.jit, static_argnums=2)
    def counted(values, bits, symmetric):
        traces.append(1)
        return clip_rule(name)(values, bits, symmetric)

    values = make_histogram(sample("gauss", 500))
    each = np.array([counted(values, jnp.int32(bits), False) for bits in range(1, 9)])
    assert len(traces) == 1
    together = jax.jit(jax.vmap(lambda b: clip_rule(name)(values, b, False)))(jnp.arange(1, 9))
    np.testing.assert_allclose(np.stack(together, -1), each, rtol=1e-5)


def test_neither_does_p(sample):
    traces = []

    @jax.jit
    def counted(values, bits, p):
        traces.append(1)
        return lp_clip(values, bits, True, p)

    values = make_histogram(sample("gauss", 500))
    for bits, p in ((2, 2.0), (4, 3.1), (8, 4.0)):
        counted(values, jnp.int32(bits), jnp.float32(p))
    assert len(traces) == 1
