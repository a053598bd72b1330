"""Clipping methods: from a histogram and a bit-width to the range that is kept."""

from collections.abc import Callable, Mapping

import jax

from autosplit.errors import InputError
from autosplit.quant.clipping.aciq import aciq_clip, gauss_clip, laplace_clip
from autosplit.quant.clipping.average import average_clip
from autosplit.quant.clipping.histogram import Histogram, histogram
from autosplit.quant.clipping.kl import kl_clip
from autosplit.quant.clipping.minmax import minmax_clip
from autosplit.quant.clipping.mse import lp_clip, mse_clip
from autosplit.quant.clipping.percentile import percentile_clip

ClipRule = Callable[[Histogram, jax.Array, bool], tuple[jax.Array, jax.Array]]
"""``rule(values, bits, symmetric) -> (low, high)``; ``low`` is ``-high`` where symmetric.

The clip is finite and lies within the range that was seen, widened to hold zero: every grid
holds zero.
"""

METHODS: Mapping[str, ClipRule] = {
    "minmax": minmax_clip,
    "average": average_clip,
    "percentile": percentile_clip,
    "mse": mse_clip,
    "kl": kl_clip,
    "aciq": aciq_clip,
    "aciq-laplace": laplace_clip,
    "aciq-gauss": gauss_clip,
}


def clip_rule(name: str) -> ClipRule:
    """Returns a clipping method by name; raises `InputError` listing the valid names."""
    if name not in METHODS:
        raise InputError(f"No clipping method is called {name!r}; expected one of {list(METHODS)}.")
    return METHODS[name]


__all__ = [
    "METHODS",
    "ClipRule",
    "Histogram",
    "clip_rule",
    "histogram",
    "lp_clip",
    "percentile_clip",
]
