"""Cycles and memory accesses of a systolic array, in the closed forms of SCALE-Sim.

Everything here is a pure function of arrays that broadcast against each other:
layers, devices, dataflows and bit-widths may each have an axis. It runs on NumPy
and, traced, under ``jax.jit`` and ``jax.vmap``; the dataflow is a number, so that
one program serves all three. Products of sizes pass 2**31: integers have 64 bits
(NumPy's default; in JAX with ``jax.enable_x64``).
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np

from autosplit.errors import InputError
from autosplit.hardware.matrix_products import Array, Products, ceil_div

_SETS = 100  # SCALE-Sim manages a read buffer as a hundred sets,
_ACTIVE_SETS = 50  # half of which serve the array while the others are filled


class Dataflow(enum.IntEnum):
    """What stays in the array while the rest streams through it."""

    OUTPUT_STATIONARY = 0
    WEIGHT_STATIONARY = 1
    INPUT_STATIONARY = 2


class SystolicArray(NamedTuple):
    """An array and its buffers; all i64.

    Attributes:
      rows, columns: multipliers.
      dataflow: see `Dataflow`.
      ifmap_words, filter_words, ofmap_words: elements that each SRAM holds.
    """

    rows: Array
    columns: Array
    dataflow: Array
    ifmap_words: Array
    filter_words: Array
    ofmap_words: Array


class SystolicCounts(NamedTuple):
    """What `count_systolic` returns: cycles, shares from 0 to 1, and elements moved."""

    cycles: Array
    folds: Array
    mapping_efficiency: Array
    compute_utilization: Array
    overall_utilization: Array
    sram_ifmap_reads: Array
    sram_filter_reads: Array
    sram_ofmap_writes: Array
    dram_ifmap_reads: Array
    dram_filter_reads: Array
    dram_ofmap_writes: Array


class _Folds(NamedTuple):
    """How a product is cut into pieces as large as the array."""

    row_size: Array  # extent that is mapped onto the rows
    column_size: Array
    steps: Array  # extent that streams through
    row_folds: Array
    column_folds: Array
    ifmap_passes: Array  # how often the whole ifmap streams through
    filter_passes: Array


class _FilterBlock(NamedTuple):
    """Filters that stream through ``filter_passes`` times before the next block starts."""

    size: Array
    full_blocks: Array  # blocks of that size
    last: Array  # size of the one after them


def count_systolic(products: Products, array: SystolicArray) -> SystolicCounts:
    """Counts what SCALE-Sim counts, without simulating.

    With Sr, Sc, T = (pixels, filters, window), (window, filters, pixels) and (window,
    pixels, filters) for output, weight and input stationary on R rows and C columns,
    ``cycles = ceil(Sr / R) * ceil(Sc / C) * (fill + T - 2) - 1`` with ``fill = R + C``
    for output stationary, else ``2 R + C``, times ``runs``.

    DRAM reads follow its double buffer: it takes in what it lacks until half of it is
    full, then forgets all of that at once. So the ifmap is read once if it is smaller
    than that half, and once per pass over it if not; filters likewise, block by block.

    Args:
      products: see `matrix_products.products_of`.
      array: broadcastable against them.

    Returns:
      Counts, in their common shape; ``folds`` and shares of one run, the rest of all.

    Raises:
      InputError: integers of fewer than 64 bits.

    Reference:
      SCALE-Sim 2.0.2 (Samajdar et al., ISPASS 2020) in its CALC mode, which never
      stalls: all fields are equal to its reports, also where these follow from slips,
      which are: with output stationary, ofmap writes to SRAM are ``R + C`` a fold too
      many; with the other two, every partial sum is written to DRAM too; a write
      buffer whose half is a multiple of C, and is filled more than once, counts the
      ``C - 1`` empty places of its one unfinished line as written.

      One exception: DRAM reads of an ifmap that does not fit half of the SRAM and whose
      windows overlap, unless it is weight stationary and taps are so far apart that
      nothing is left of one when the next needs it. There SCALE-Sim's number depends on
      which addresses each forgetting hits, and when the next one comes depends on what
      those have cost before: a recursion over the addresses, not a formula. Here it is
      estimated, for the most part too low: overlap within a fold is taken as found. It
      lies between ``ifmap_elements`` and ``sram_ifmap_reads``, as SCALE-Sim's does.

      SCALE-Sim also reports average DRAM bandwidths; they follow from a prefetch of 10
      words a cycle, which it calls arbitrary, and are left out.

    >>> from autosplit.hardware.matrix_products import products_of
    >>> from autosplit.workload import Workload, tabulate
    >>> alexnet_conv1 = Workload(kind="conv", in_height=224, in_width=224, in_channels=3,
    ...     out_height=55, out_width=55, out_channels=96, kernel_height=11, kernel_width=11,
    ...     stride_height=4, stride_width=4)
    >>> scale = SystolicArray(32, 32, Dataflow.WEIGHT_STATIONARY, *[64 * 1024] * 3)
    >>> int(count_systolic(products_of(tabulate([alexnet_conv1])), scale).cycles[0])
    112283
    """
    xp = _namespace(*products, *array)
    folds = _folds(xp, products, array)
    pixels, window, filters, runs = (
        products.pixels, products.window, products.filters, products.runs
    )  # fmt: skip
    rows, columns = array.rows, array.columns
    is_os = array.dataflow == Dataflow.OUTPUT_STATIONARY
    num_folds = folds.row_folds * folds.column_folds
    cycles = num_folds * (xp.where(is_os, rows, 2 * rows) + columns + folds.steps - 2) - 1
    mapping = folds.row_size * folds.column_size / (num_folds * rows * columns)
    # SCALE-Sim's denominator here is not its cycles per fold, save for output stationary.
    fold_cycles = xp.where(is_os, rows + columns - 2, 2 * (rows + columns) - 3) + folds.steps
    macs = pixels * window * filters
    written = pixels * filters * xp.where(is_os, 1, folds.row_folds)
    reads = dram_reads(products, array)
    return SystolicCounts(
        cycles=runs * cycles,
        folds=num_folds,
        mapping_efficiency=mapping,
        compute_utilization=mapping * folds.steps / fold_cycles,
        overall_utilization=macs / (xp.maximum(cycles, 1) * rows * columns),
        sram_ifmap_reads=runs * pixels * window * folds.ifmap_passes,
        sram_filter_reads=runs * window * filters * folds.filter_passes,
        sram_ofmap_writes=runs * (written + xp.where(is_os, num_folds * (rows + columns), 0)),
        dram_ifmap_reads=reads[0],
        dram_filter_reads=reads[1] + runs * _filter_rereads(xp, products, array, folds),
        dram_ofmap_writes=runs * (written + _empty_places(xp, written, array)),
    )


def dram_reads(products: Products, array: SystolicArray) -> tuple[Array, Array]:
    """Counts the reads of buffers that keep what fits into half of them.

    That is SCALE-Sim's count but for what its buffer rereads because it forgets all
    at once. Unlike that, it never falls when a buffer shrinks.

    Args:
      products: see `matrix_products.products_of`.
      array: broadcastable against them.

    Returns:
      Elements of the ifmap and of the filters that are read from DRAM, all runs.

    Raises:
      InputError: integers of fewer than 64 bits.

    >>> gemm = Products(pixels=50, window=4000, filters=64, channels=4000, inner_pixels=0,
    ...                 ifmap_elements=200_000, ifmap_uses=200_000, runs=1)
    >>> array = SystolicArray(32, 32, Dataflow.OUTPUT_STATIONARY, *[65_536] * 3)
    >>> [int(reads) for reads in dram_reads(gemm, array)]
    [400000, 512000]
    """
    xp = _namespace(*products, *array)
    folds = _folds(xp, products, array)
    block = _filter_block(xp, products, array, folds)
    capacity = _capacity(array.filter_words)
    full_passes = xp.where(block.size < capacity, 1, folds.filter_passes)
    last_passes = xp.where(block.last < capacity, 1, folds.filter_passes)
    filters = block.full_blocks * block.size * full_passes + block.last * last_passes
    return (
        products.runs * _ifmap_reads(xp, products, array, folds),
        products.runs * filters,
    )


def _folds(xp: Any, products: Products, array: SystolicArray) -> _Folds:
    pixels, window, filters = products.pixels, products.window, products.filters
    is_os = array.dataflow == Dataflow.OUTPUT_STATIONARY
    is_ws = array.dataflow == Dataflow.WEIGHT_STATIONARY
    is_is = array.dataflow == Dataflow.INPUT_STATIONARY
    row_size = xp.where(is_os, pixels, window)
    column_size = xp.where(is_is, pixels, filters)
    row_folds = ceil_div(row_size, array.rows)
    column_folds = ceil_div(column_size, array.columns)
    return _Folds(
        row_size=row_size,
        column_size=column_size,
        steps=xp.where(is_os, window, xp.where(is_ws, pixels, filters)),
        row_folds=row_folds,
        column_folds=column_folds,
        ifmap_passes=xp.where(is_is, 1, column_folds),
        filter_passes=xp.where(is_os, row_folds, xp.where(is_ws, 1, column_folds)),
    )


def _ifmap_reads(xp: Any, products: Products, array: SystolicArray, folds: _Folds) -> Array:
    """Counts reads of one run; between the cases that are exact it interpolates.

    With weight stationary, taps of a kernel are folds apart when channels fill the
    rows, so an element is needed again after ``gap`` others or more. None is found in
    a buffer of ``capacity <= gap``; else that share, ``gap / capacity``, is lost of
    the uses beyond the first, with the gap shrunk by the uses that need no reading:
    ``reads = elements + (uses - elements) * gap / capacity * reads / uses``.
    """
    elements, uses = products.ifmap_elements, products.ifmap_uses
    capacity = xp.maximum(_capacity(array.ifmap_words), 1)
    is_ws = array.dataflow == Dataflow.WEIGHT_STATIONARY
    tap_rows = products.channels // array.rows * array.rows
    gap = xp.maximum(tap_rows * products.inner_pixels - 2 * array.rows * array.rows, 0)
    lost = xp.where(is_ws, xp.minimum(gap / capacity, 1.0), 0.0)
    mixed = xp.floor(elements / (1 - (1 - elements / xp.maximum(uses, 1)) * lost))
    per_pass = xp.where(lost < 1, mixed.astype(xp.int64), uses)
    return xp.where(elements < capacity, elements, per_pass * folds.ifmap_passes)


def _filter_block(
    xp: Any, products: Products, array: SystolicArray, folds: _Folds
) -> _FilterBlock:
    """With output stationary, a block is the filters of one column fold; else all filters."""
    is_os = array.dataflow == Dataflow.OUTPUT_STATIONARY
    full_blocks = xp.where(is_os, folds.column_folds - 1, 0)
    return _FilterBlock(
        size=products.window * array.columns,
        full_blocks=full_blocks,
        last=products.window * (products.filters - full_blocks * array.columns),
    )


def _filter_rereads(
    xp: Any, products: Products, array: SystolicArray, folds: _Folds
) -> Array:
    """Counts filters that are read again since the buffer forgot them in mid-block.

    A block that fits is read in its first pass and found in the others, unless that
    pass fills the buffer. Then the next pass reads again what came before that
    moment, ``capacity - held`` elements, with ``held`` those of earlier blocks, and
    the buffer holds this block alone. So the event recurs every ``period`` blocks.
    """
    size, full_blocks, last = _filter_block(xp, products, array, folds)
    capacity = xp.maximum(_capacity(array.filter_words), 1)
    fits = size < capacity
    period = xp.maximum(ceil_div(capacity, size) - 1, 1)
    later = xp.maximum(full_blocks - 1, 0)
    events = xp.where(fits, later // period, 0)
    held = xp.where(fits, (later % period + 1) * size, full_blocks * size * folds.filter_passes)
    held = xp.where(full_blocks > 0, held, 0)
    held = xp.where(fits, held, held % capacity)  # what does not fit leaves every time
    forgotten = (last < capacity) & (held + last >= capacity)
    rereads = events * (capacity - period * size) + xp.where(forgotten, capacity - held, 0)
    return xp.where(folds.filter_passes > 1, rereads, 0)


def _empty_places(xp: Any, written: Array, array: SystolicArray) -> Array:
    """Counts the places of an unfinished line that SCALE-Sim's write buffer drains as data."""
    columns, half = array.columns, array.ofmap_words // 2
    drained = (half % columns == 0) & (half > columns) & (written > half + 1)
    return xp.where(drained, columns - 1, 0)


def _capacity(words: Array) -> Array:
    return words // _SETS * _ACTIVE_SETS


def _namespace(*values: Array) -> Any:
    """Returns the library of the arrays; that of NumPy if there is no other among them."""
    spaces = [v.__array_namespace__() for v in values if hasattr(v, "__array_namespace__")]
    for value in values:
        dtype = getattr(value, "dtype", np.dtype(np.int64))
        if dtype.kind not in "iu" or dtype.itemsize < 8:
            raise InputError(
                f"Systolic counts were asked of numbers of type {dtype}; expected 64-bit integers, "
                "which hold every product exactly. In JAX, run it under jax.enable_x64()."
            )
    return next((space for space in spaces if space is not np), np)
