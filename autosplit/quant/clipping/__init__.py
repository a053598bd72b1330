"""Clipping methods: from a histogram and a bit-width to the range that is kept."""

from collections.abc import Callable, Mapping

import jax

from autosplit.errors import InputError
from autosplit.quant.clipping.aciq import aciq_clip
from autosplit.quant.clipping.histogram import Histogram, histogram
from autosplit.quant.clipping.minmax import minmax_clip
from autosplit.quant.clipping.mse import mse_clip

ClipRule = Callable[[Histogram, jax.Array, bool], tuple[jax.Array, jax.Array]]
"""``rule(values, bits, symmetric) -> (low, high)``; ``low`` is ``-high`` where symmetric."""

METHODS: Mapping[str, ClipRule] = {
    "minmax": minmax_clip,
    "mse": mse_clip,
    "aciq": aciq_clip,
}


def clip_rule(name: str) -> ClipRule:
    """Returns a clipping method by name; raises `InputError` listing the valid names."""
    if name not in METHODS:
        raise InputError(f"No clipping method is called {name!r}; expected one of {list(METHODS)}.")
    return METHODS[name]


__all__ = ["METHODS", "ClipRule", "Histogram", "clip_rule", "histogram"]
