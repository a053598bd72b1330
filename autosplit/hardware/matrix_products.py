"""Layers as matrix products: what a systolic array computes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from autosplit.workload import WorkloadTable

Array: TypeAlias = Any
"""NumPy or JAX array, or a number."""


class Products(NamedTuple):
    """Layers as matrix products ``[pixels, window] x [window, filters]``; all i64.

    Attributes:
      pixels: output pixels of one run, all images together.
      window: elements of one filter.
      filters: output channels of one run.
      channels: input channels of one run.
      inner_pixels: output pixels, less those along two edges of each image and one row.
      ifmap_elements: different input elements that one run needs.
      ifmap_uses: how often it needs one: an element per window that it is in.
      runs: how often the product is computed, one after the other; 0: no MACs.
    """

    pixels: Array
    window: Array
    filters: Array
    channels: Array
    inner_pixels: Array
    ifmap_elements: Array
    ifmap_uses: Array
    runs: Array


class _Axis(NamedTuple):
    """One run along the height or the width; all i64[L]."""

    outputs: np.ndarray
    taps: np.ndarray
    covered: np.ndarray  # stored pixels that at least one window covers
    uses: np.ndarray  # the same, once per window


def products_of(workloads: WorkloadTable) -> Products:
    """Describes layers as matrix products.

    ``pixels = batch * out_height * out_width``, ``window = kernel_height * kernel_width *
    in_channels / groups``, ``filters = out_channels / groups``.

    Groups run one after the other, as the layers that SCALE-Sim makes of a depthwise
    one, and so do repeats. A transposed convolution of stride u is ``u * u`` ordinary
    ones with every u-th tap, each of which reads the input anew. Padding is computed
    like data, and costs no reading. Layers without MACs have 0 runs.

    Args:
      workloads: L layers.

    Returns:
      Arrays i64[L].

    >>> from autosplit.workload import Workload, tabulate
    >>> gemm = Workload(kind="gemm", in_height=2, out_height=2, in_channels=3, out_channels=5)
    >>> products = products_of(tabulate([gemm]))
    >>> [int(column[0]) for column in (products.pixels, products.window, products.filters)]
    [2, 3, 5]
    """
    w = workloads
    rows, columns = _axis(w, "height"), _axis(w, "width")
    channels = w.in_channels // w.groups
    inner = np.maximum(rows.outputs - 1, 0) * (columns.outputs - 1) - columns.outputs
    phases = w.upsample_height * w.upsample_width
    return Products(
        pixels=w.batch * rows.outputs * columns.outputs,
        window=rows.taps * columns.taps * channels,
        filters=w.out_channels // w.groups,
        channels=channels,
        inner_pixels=w.batch * np.maximum(inner, 0),
        ifmap_elements=w.batch * rows.covered * columns.covered * channels,
        ifmap_uses=w.batch * rows.uses * columns.uses * channels,
        runs=np.where(w.is_conv | w.is_gemm, w.groups * w.repeat * phases, 0),
    )


def _axis(workloads: WorkloadTable, axis: str) -> _Axis:
    """Describes one run along ``axis``; with inserted zeros, every such run is alike.

    Windows wider than the stride cover all pixels from the first to the last; narrower
    ones leave gaps. The holes of a dilated window count as covered. The last window may
    reach beyond the input, as SCALE-Sim's do.
    """
    size, outputs, kernel, stride, dilation, upsample = (
        getattr(workloads, f"{name}_{axis}")
        for name in ("in", "out", "kernel", "stride", "dilation", "upsample")
    )
    outputs, taps = ceil_div(outputs, upsample), ceil_div(kernel, upsample)
    reach = dilation * (taps - 1) + 1
    left = np.maximum(size - (outputs - 1) * stride, 0)
    covered = (outputs - 1) * np.minimum(stride, reach) + np.minimum(left, reach)
    covered = np.minimum(covered, size)
    uses = (outputs - 1) * taps + np.minimum(ceil_div(left, dilation), taps)
    return _Axis(outputs, taps, covered, np.maximum(uses, covered))


def ceil_div(numerator: Array, denominator: Array) -> Array:
    """Divides whole numbers, rounding up.

    >>> ceil_div(7, 2)
    4
    """
    return -(-numerator // denominator)
