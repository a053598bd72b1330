"""Moving-average clipping: the usual extremes of a call, not the largest ever seen."""

from __future__ import annotations

import jax

from autosplit.quant.clipping.histogram import Histogram


def average_clip(
    values: Histogram, bits: jax.Array, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the moving averages of the smallest and the largest value of each call.

    For a tensor that was seen as a whole, such as a weight, this is the whole range.

    Args:
      values: histogram of the tensor, with averages from calibration.
      bits: i32[], unused: the range does not depend on it.
      symmetric: the range is that of the magnitudes of both averages.

    Returns:
      Low and high, f32[].

    Reference: Jacob et al. 2018 (arXiv 1712.05877), section 3.1.
    """
    del bits
    return values.kept(values.average_low, values.average_high, symmetric)
