"""Every clipping method against brute force, Monte Carlo or its published formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.errors import InputError
from autosplit.quant.clipping import METHODS, clip_rule, histogram
from autosplit.quant.clipping.aciq import aciq_clip
from autosplit.quant.clipping.histogram import BINS
from autosplit.quant.clipping.mse import expected_error, mse_clip

RATIOS = np.unique(np.r_[np.geomspace(0.01, 1, 160), np.linspace(0.5, 1, 120)])

make_histogram = jax.jit(histogram)
find_mse_clip = jax.jit(mse_clip, static_argnums=2)
expect_error = jax.jit(expected_error, static_argnums=3)


def sample(name, size=8000):
    rng = np.random.default_rng(sum(map(ord, name)))
    draw = {
        "gauss": lambda: rng.normal(size=size),
        "laplace": lambda: rng.laplace(size=size),
        "half laplace": lambda: np.abs(rng.laplace(size=size)),
        "uniform": lambda: rng.uniform(-1, 3, size),
        "heavy tails": lambda: rng.standard_t(2.5, size),
        "relu spike": lambda: np.maximum(rng.normal(size=size), 0),
        "negative": lambda: -np.abs(rng.normal(size=size)) - 0.1,
        "two values": lambda: np.where(rng.random(size) < 0.5, 0.3, 10.0),
        "far from zero": lambda: 5 + 1e-4 * rng.random(size),
        "tiny": lambda: 1e-14 * rng.normal(size=size),
        "huge": lambda: 1e14 * rng.normal(size=size),
    }[name]
    return draw().astype(np.float32)


SAMPLES = (
    "gauss", "laplace", "half laplace", "uniform", "heavy tails", "relu spike", "negative",
    "two values", "far from zero", "tiny", "huge",
)  # fmt: skip


def exact_mse(x, ratio, bits, symmetric):
    """Quantizes every value in float64."""
    x = np.float64(x)
    if symmetric:
        clip, qmax = ratio * np.abs(x).max(), max(2 ** (bits - 1) - 1, 1)
        if bits == 1:
            return np.mean((np.abs(x) - clip) ** 2)
        levels = np.clip(np.rint(x / clip * qmax), -qmax, qmax) * clip / qmax
    else:
        low, high = min(ratio * x.min(), 0), max(ratio * x.max(), 0)
        scale = (high - low) / (2**bits - 1)
        zero = np.rint(-low / scale)
        levels = (np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1) - zero) * scale
    return np.mean((x - levels) ** 2)


class TestHistogram:
    @given(x=hnp.arrays(np.float32, 20, elements=st.floats(-1e3, 1e3, width=32)))
    def test_counts_every_value_once_near_where_it_is(self, x):
        found = jax.tree.map(np.asarray, make_histogram(x))
        assert float(found.counts.sum()) == x.size
        assert (float(found.low), float(found.high)) == (x.min(), x.max())
        # The sorted bins hold the sorted values, up to a bin.
        centers = np.repeat(np.asarray(found.centers), np.asarray(found.counts, int))
        slack = float(found.width) + 1e-4 * np.abs(x).max() + 1e-30
        assert np.abs(centers - np.sort(x)).max() <= slack

    def test_equals_numpy_away_from_the_borders(self):
        x = sample("gauss")
        found = np.asarray(histogram(jnp.asarray(x)).counts)
        # float64 puts a value on a border into the neighbouring bin.
        expected, _ = np.histogram(np.float64(x), bins=BINS, range=(x.min(), x.max()))
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 2

    def test_weights_are_summed(self):
        x, weight = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([[2.0, 3.0]])
        found = histogram(x, sample_weight=weight)
        assert (float(found.counts[0]), float(found.counts[-1])) == (4.0, 6.0)

    def test_empty_and_constant(self):
        empty = histogram(jnp.zeros((0, 3)))
        assert (float(empty.counts.sum()), float(empty.low), float(empty.high)) == (0, 0, 0)
        constant = histogram(jnp.full(7, 2.5))
        assert float(constant.counts.sum()) == 7
        assert np.unique(constant.centers).tolist() == [2.5]


class TestMse:
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("name", SAMPLES)
    def test_as_good_as_brute_force(self, name, symmetric):
        x = sample(name)
        values = histogram(jnp.asarray(x))
        # The error of a uniform tensor jumps with the ratio at many bits.
        slack = 1.02 if name == "uniform" else 1.01
        for bits in range(2, 9):
            ratio = float(find_mse_clip(values, bits, symmetric))
            best = min(exact_mse(x, r, bits, symmetric) for r in RATIOS)
            rounding = 1e-11 * np.abs(np.float64(x)).max() ** 2
            assert exact_mse(x, ratio, bits, symmetric) <= slack * best + rounding, bits

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_expected_error_equals_monte_carlo(self, bits, symmetric):
        # Values spread evenly over each bin are what the closed form assumes.
        rng = np.random.default_rng(0)
        values = histogram(jnp.asarray(sample("laplace", 2000)))
        counts, width = np.asarray(values.counts, int), float(values.width)
        centers = np.repeat(np.asarray(values.centers, np.float64), counts)
        spread = centers + width * (rng.random((50, centers.size)) - 0.5)
        reach = max(-float(values.low), float(values.high))
        for ratio in (0.3, 1.0):
            found = float(expect_error(values, ratio, bits, symmetric)) / centers.size
            # The extremes set the clip, so they come along (and are averaged away).
            ends = [float(values.low), float(values.high), reach if symmetric else 0.0]
            every = np.r_[spread.ravel(), ends]
            assert found == pytest.approx(exact_mse(every, ratio, bits, symmetric), rel=2e-2)

    def test_constant_tensors_keep_their_range(self):
        for value in (5.0, -5.0):
            values = histogram(jnp.full(100, value))
            for symmetric in (True, False):
                # Any ratio but 1 clips every value.
                ratios = [float(find_mse_clip(values, b, symmetric)) for b in range(1, 9)]
                assert ratios == pytest.approx([1.0] * 8)

    def test_zeros_and_nothing_give_a_usable_ratio(self):
        for x in (jnp.zeros(5), jnp.zeros(0)):
            ratio = float(find_mse_clip(histogram(x), 4, False))
            assert 0 < ratio <= 1

    @given(scale=st.floats(1e-10, 1e10))
    def test_the_ratio_does_not_depend_on_the_scale(self, scale):
        x = jnp.asarray(sample("laplace", 500))
        ratio = find_mse_clip(histogram(x * np.float32(scale)), 4, True)
        assert float(ratio) == pytest.approx(float(find_mse_clip(histogram(x), 4, True)), rel=0.05)

    def test_more_bits_clip_less(self):
        values = histogram(jnp.asarray(sample("laplace")))
        ratios = [float(find_mse_clip(values, bits, True)) for bits in range(2, 9)]
        assert ratios == sorted(ratios)


def best_laplace_clip(bits):
    """Minimises the published MSE_Laplace (b = 1) numerically."""

    def mse(alpha):
        return 2 * np.exp(-alpha) + alpha**2 / (3 * 4**bits)

    return scipy.optimize.minimize_scalar(mse, bounds=(0.1, 20), method="bounded").x


class TestAciq:
    @pytest.mark.parametrize("bits", range(2, 9))
    def test_two_sided_clip_is_the_optimum_of_the_formula(self, bits):
        x = sample("laplace", 20_000)
        values = histogram(jnp.asarray(x))
        spread = np.abs(x - x.mean()).mean()
        clip = float(aciq_clip(values, bits, True)) * np.abs(x).max()
        expected = best_laplace_clip(bits) * spread + abs(x.mean())
        assert clip == pytest.approx(min(expected, np.abs(x).max()), rel=1e-2)

    @pytest.mark.parametrize("bits", range(2, 8))
    def test_half_range_takes_the_entry_of_one_bit_more(self, bits):
        x = np.r_[sample("half laplace", 20_000), 60.0].astype(np.float32)
        clip = float(aciq_clip(histogram(jnp.asarray(x)), bits, False)) * x.max()
        assert clip == pytest.approx(best_laplace_clip(bits + 1) * x.mean(), rel=1e-2)

    def test_the_ratio_is_at_most_one(self):
        values = histogram(jnp.asarray(sample("uniform")))
        assert float(aciq_clip(values, 8, True)) == 1.0
        assert 0 < float(aciq_clip(histogram(jnp.zeros(3)), 4, True)) <= 1


def test_minmax_keeps_the_whole_range():
    values = histogram(jnp.asarray(sample("heavy tails")))
    for bits in range(1, 9):
        assert float(clip_rule("minmax")(values, jnp.int32(bits), True)) == 1.0


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(InputError, match=r"minmax.*mse.*aciq"):
        clip_rule("entropy")


@pytest.mark.parametrize("name", list(METHODS))
def test_bits_do_not_recompile(name):
    traces = []

    @functools.partial(jax.jit, static_argnums=2)
    def counted(values, bits, symmetric):
        traces.append(1)
        return clip_rule(name)(values, bits, symmetric)

    values = histogram(jnp.asarray(sample("gauss", 300)))
    each = [float(counted(values, jnp.int32(bits), False)) for bits in range(1, 9)]
    assert len(traces) == 1
    assert all(0 < ratio <= 1 for ratio in each)
    together = jax.jit(jax.vmap(lambda b: clip_rule(name)(values, b, False)))(jnp.arange(1, 9))
    np.testing.assert_allclose(together, each, rtol=1e-5)
