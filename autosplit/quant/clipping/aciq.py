"""ACIQ: the clip that is best for a Laplace or a Gauss density, in closed form.

With ``2^M`` levels in ``[mu - alpha, mu + alpha]`` the expected squared error is that of
clipping plus that of rounding (`laplace_mse`, `gauss_mse`); the table holds the alpha that
minimises it, for the scale 1. A tensor on one side of zero (after a ReLU) is half of such
a density, spends all levels on that half and so takes the entry of one bit more.

Reference: Banner et al. 2019 (arXiv 1810.05723), section 3, and its published tables. What
is not in them: the entry of 0 bits of Gauss is the minimum of `gauss_mse`. Deviations: the
scale of a one-sided tensor is measured from zero, and the zeros of a ReLU do not count
(`Histogram.without_spike`); symmetric levels of one bit lie at the ends of the clip, not in
the middle of its halves, so the clip is put at these middles; over 8 bits, where the tables
end, the whole range is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jax.typing import ArrayLike

from autosplit.quant.clipping.histogram import Histogram

MAX_BITS = 8

# alpha / b for 0 to 9 bits; the last is for half-range tensors of 8 bits.
LAPLACE = (
    1.05, 1.86, 2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995,
    9.89675982, 11.16268502,
)  # fmt: skip

# alpha / sigma for 0 to 9 bits.
GAUSS = (
    0.76577508, 1.24, 1.71063519, 2.15159277, 2.55913646, 2.93620062, 3.28691474, 3.6151146,
    3.92403714, 4.2,
)  # fmt: skip


def laplace_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns ``mu -+ alpha(bits) b`` with ``b = mean|x - mu|``, within what was seen.

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: weights: ``-+(|mu| + alpha b)``. Otherwise a tensor without negative values
        gets ``[0, alpha(bits + 1) b]`` with b the mean, one without positive ones the mirror.

    Returns:
      Low and high, f32[].
    """
    spread = _spread(values, symmetric)
    return _around(values, bits, symmetric, spread, spread.b, LAPLACE)


def gauss_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns ``mu -+ alpha(bits) sigma``, within what was seen; the rest as `laplace_clip`."""
    spread = _spread(values, symmetric)
    return _around(values, bits, symmetric, spread, spread.sigma, GAUSS)


def aciq_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the clip of the density that fits better, Laplace or Gauss.

    The better fit is the one of the larger likelihood. With b and sigma estimated, the mean
    log-likelihoods are ``-log(2 e b)`` and ``-log(2 pi e sigma^2) / 2``, so Laplace is taken
    where ``b < sqrt(pi / (2 e)) sigma = 0.760 sigma`` (a Laplace density has 0.707, a Gauss
    density 0.798). The published choice is the smaller of `laplace_mse` and `gauss_mse`. That
    compares two hypotheses by how pleasant they are, not by how true: at 4 bits it takes
    Gauss for a tensor that is exactly Laplace (0.023 against 0.046 b^2).

    Args:
      values: histogram of the tensor.
      bits: i32[], 1 to 24.
      symmetric: as for `laplace_clip`.

    Returns:
      Low and high, f32[].
    """
    spread = _spread(values, symmetric)
    is_laplace = spread.b < jnp.sqrt(jnp.pi / (2 * jnp.e)) * spread.sigma
    scale = jnp.where(is_laplace, spread.b, spread.sigma)
    table = jnp.where(is_laplace, jnp.array(LAPLACE), jnp.array(GAUSS))
    return _around(values, bits, symmetric, spread, scale, table)


def laplace_mse(alpha: ArrayLike, b: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Predicts the squared error: ``2 b^2 exp(-alpha / b) + alpha^2 / (3 * 4^bits)``.

    The formula that the table `LAPLACE` minimises.

    Args:
      alpha: half the clip.
      b: mean distance from the mean, over 0.
      bits: 0 to 15.

    Returns:
      f32, of the shape of all three.
    """
    alpha, b = jnp.asarray(alpha), jnp.asarray(b)
    return 2 * b**2 * jnp.exp(-alpha / b) + _rounding_mse(alpha, bits)


def gauss_mse(alpha: ArrayLike, sigma: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Predicts the squared error of a clipped Gauss density, which `GAUSS` minimises.

    ``(sigma^2 + alpha^2) (1 - erf(alpha / (sigma sqrt 2)))
    - sqrt(2 / pi) alpha sigma exp(-alpha^2 / (2 sigma^2)) + alpha^2 / (3 * 4^bits)``.
    Arguments as for `laplace_mse`, with the standard deviation for b.
    """
    alpha, sigma = jnp.asarray(alpha), jnp.asarray(sigma)
    outside = (sigma**2 + alpha**2) * (1 - erf(alpha / (sigma * jnp.sqrt(2))))
    edge = jnp.sqrt(2 / jnp.pi) * alpha * sigma * jnp.exp(-(alpha**2) / (2 * sigma**2))
    return outside - edge + _rounding_mse(alpha, bits)


def _rounding_mse(alpha: jax.Array, bits: ArrayLike) -> jax.Array:
    return alpha**2 / (3.0 * (1 << (2 * jnp.asarray(bits))))


class _Spread(NamedTuple):
    """Whether a tensor counts as half a density, that density's mean, and its two scales."""

    half: jax.Array
    mean: jax.Array
    b: jax.Array
    sigma: jax.Array


def _spread(values: Histogram, symmetric: bool) -> _Spread:
    half = jnp.logical_and((values.low >= 0) | (values.high <= 0), not symmetric)
    shares = jnp.where(half, values.without_spike().shares, values.shares)
    centers, reach = values.unit.centers, values.reach
    mean = jnp.where(half, 0.0, jnp.sum(shares * centers))
    b = jnp.sum(shares * jnp.abs(centers - mean))
    sigma = jnp.sqrt(jnp.sum(shares * (centers - mean) ** 2))
    return _Spread(half, mean * reach, b * reach, sigma * reach)


def _around(
    values: Histogram,
    bits: jax.Array,
    symmetric: bool,
    spread: _Spread,
    scale: jax.Array,
    table: ArrayLike | tuple[float, ...],
) -> tuple[jax.Array, jax.Array]:
    """Puts the clip of a density with this scale around the mean, within what was seen."""
    entries, bits = jnp.asarray(table), jnp.asarray(bits)
    entry = entries[jnp.clip(bits + spread.half, 0, len(entries) - 1)]
    alpha = jnp.where(bits > MAX_BITS, jnp.inf, entry * scale)
    if symmetric:
        high = jnp.abs(spread.mean) + jnp.where(bits == 1, alpha / 2, alpha)
        return values.kept(-high, high, symmetric)
    # Of half a density the mean is 0, and what was seen ends there.
    return values.kept(spread.mean - alpha, spread.mean + alpha, symmetric)
