"""The accelerators of Auto-Split's experiments: layers as tiles, DMA against arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import InputError
from autosplit.hardware.energy import Energy, compulsory_bytes, moved_j
from autosplit.hardware.spec import MAC_BITS, check_bits, mac_bits, require_positive
from autosplit.workload import WorkloadTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiled:
    """Prices a layer as weights loaded once, then tiles of input streamed and multiplied.

    ``cycles = dma * weights * w_bits / 8
               + sum over tiles of max(dma * tile * a_bits / 8, macs + partial adds)``

    A tile is a window of ``tile_height`` x ``tile_width`` input pixels and
    ``tile_channels`` input channels. It is loaded once and serves all filters,
    ``tile_filters`` at a time. Each cycle the array multiplies ``tile_channels``
    channels of ``pixel_lanes`` output pixels by ``tile_filters`` filters, one tap
    of the kernel, so a tile takes ``taps * ceil(pixels / pixel_lanes) *
    ceil(filters / tile_filters)`` cycles, times ``ceil(bits / 8)`` of the wider
    operand. Channels or filters short of a tile leave multipliers idle. Tiles of
    the second and later channels add their products to the partial sums of the
    earlier ones, ``adds_per_cycle`` at a time. No layer ends before its output is
    written, on a channel of its own as fast as the reading one.

    Groups share the array block-diagonally as long as both their channels and
    their filters fit, otherwise they run one after the other. A matrix product is
    a 1x1 convolution; what it reads beside the first operand, such as the second
    operand of an attention product, is streamed before it. Layers without MACs
    cost the larger of their reading and their writing. Batch and repeat multiply
    everything but the weights.

    DRAM traffic is priced as it is streamed: pixels where windows overlap are paid
    for again in joules as they are in seconds.

    Attributes:
      name: for tables and reports.
      clock_hz: cycles per second.
      tile_height, tile_width, tile_channels: input window of one tile.
      tile_filters: filters that multiply in parallel.
      macs_per_cycle: multipliers; a multiple of ``tile_channels * tile_filters``.
      dma_cycles_per_byte: cost of memory traffic.
      adds_per_cycle: additions of partial sums.
      memory_bytes: capacity; None means without limit.
      energy: what the work costs in joules; None means that it is not known.

    Reference:
      "Auto-Split: A General Framework of Collaborative Edge-Cloud AI", KDD 2021
      (arXiv 2108.13041) and its proof of concept (MIT licence), for the equation
      above and the constants in ``device_presets``. Deviations, most of them slips of the
      proof of concept that are mended here:

      * It simulates convolutions alone. Here every layer costs something.
      * Depthwise layers are charged one cycle a byte and no extra cycles above 8
        bits, grouped ones as if dense. Here all follow one equation.
      * A tile's rows are ``n - K / S + 1``, for want of a bracket around ``n - K``.
      * Windows step by a whole tile and reach back by one halo, so from the third
        on they leave output pixels out. Here they tile the output exactly.
      * A multiplier does all taps of a kernel in a cycle, and their number changes
        with the kernel's width. Here one does one MAC a cycle, and there are as
        many as its own count for 3x3 kernels: 168 and 65,536.
      * Partial adds use the lanes along a tile's rows only, 5 of 256. Here the
        lanes are additions per cycle.
      * The bits of the weights do not widen the multiplication. Here they do.
      * Output traffic is counted, not charged. Here it bounds the layer from below.
      * Batch, repeat, dilation and inserted zeros are new. Padding is streamed as
        if it were data, up to the size of the input; the original has none.

    >>> from autosplit.workload import Workload, tabulate
    >>> chip = Tiled(
    ...     name="chip", clock_hz=1e6, tile_height=4, tile_width=4, tile_channels=2,
    ...     tile_filters=2, macs_per_cycle=4, dma_cycles_per_byte=0.5, adds_per_cycle=1,
    ... )
    >>> add = Workload(kind="vector", input_elements=2000, output_elements=1000)
    >>> chip.latency_s(tabulate([add]), np.array([8]), np.array([4, 8]))
    array([[[0.0005, 0.001 ]]])
    """

    name: str
    clock_hz: float
    tile_height: int
    tile_width: int
    tile_channels: int
    tile_filters: int
    macs_per_cycle: int
    dma_cycles_per_byte: float
    adds_per_cycle: int
    memory_bytes: float | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        owner = f"Tiled({self.name!r})"
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("name", "energy")]
        require_positive(owner, {n: getattr(self, n) for n in names})
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value != int(value):
                raise InputError(f"{owner}.{field.name} is {value}; expected a whole number.")
        products = self.tile_channels * self.tile_filters
        if self.macs_per_cycle % products:
            raise InputError(
                f"{owner}.macs_per_cycle is {self.macs_per_cycle}; expected a multiple of "
                f"tile_channels * tile_filters = {products}. Change one of the three."
            )

    @property
    def pixel_lanes(self) -> int:
        """Output pixels that multiply in parallel."""
        return self.macs_per_cycle // (self.tile_channels * self.tile_filters)

    @property
    def peak_macs_per_s(self) -> float:
        """MACs per second at up to 8 bits with every multiplier busy."""
        return self.macs_per_cycle * self.clock_hz

    @property
    def memory_bytes_per_s(self) -> float:
        """Bytes per second in each direction."""
        return self.clock_hz / self.dma_cycles_per_byte

    def latency_s(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns seconds, f64[L, Kw, Ka]; see `Device.latency_s`."""
        w_bits, a_bits = check_bits(w_bits, "w_bits"), check_bits(a_bits, "a_bits")
        weight_s = self.move_s(workloads.weight_elements[:, None] * w_bits / 8)[:, :, None]
        streamed_s = self.move_s(_untiled_inputs(workloads)[:, None] * a_bits / 8)[:, None, :]
        written_s = self.move_s(workloads.output_elements[:, None] * a_bits / 8)[:, None, :]
        tiles_s = self._tile_cycles(workloads, w_bits, a_bits) / self.clock_hz
        return np.maximum(weight_s + streamed_s + tiles_s, written_s)

    def move_s(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns seconds to stream ``num_bytes`` through the memory once."""
        cycles = np.asarray(num_bytes, np.float64) * self.dma_cycles_per_byte
        return cycles / self.clock_hz

    def energy_j(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns joules, f64[L, Kw, Ka], NaN where unknown; see `Energy.layer_j`."""
        latency_s = self.latency_s(workloads, w_bits, a_bits)
        if self.energy is None:
            return np.full_like(latency_s, np.nan)
        streamed = dataclasses.replace(
            workloads, input_elements=self._streamed_inputs(workloads)
        )
        dram_bytes = compulsory_bytes(streamed, np.asarray(w_bits), np.asarray(a_bits))
        return self.energy.layer_j(workloads, w_bits, a_bits, latency_s, dram_bytes=dram_bytes)

    def move_j(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns joules to stream ``num_bytes`` through the memory once, NaN where unknown."""
        return moved_j(self.energy, num_bytes, self.move_s(num_bytes))

    def _streamed_inputs(self, workloads: WorkloadTable) -> np.ndarray:
        """Returns i64[L], elements read that are no weights, overlaps of windows included."""
        tiled = sum(kind.tiles * kind.elements for kind in self._kinds_of_tile(workloads))
        return _untiled_inputs(workloads) + tiled

    def _tile_cycles(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns f64[L, Kw, Ka]: kinds of tile that differ, each times its number."""
        passes = -(-mac_bits(w_bits, a_bits) // MAC_BITS)
        cycles = np.zeros((len(workloads), len(w_bits), len(a_bits)))
        for kind in self._kinds_of_tile(workloads):
            dma = self.dma_cycles_per_byte * kind.elements[:, None, None] * a_bits / 8
            busy = kind.macs[:, None, None] * passes + kind.adds[:, None, None]
            cycles += kind.tiles[:, None, None] * np.maximum(dma, busy)
        return cycles

    def _kinds_of_tile(self, workloads: WorkloadTable) -> Iterator[_Tile]:
        """Yields tiles that differ: along each axis only the last may be smaller.

        Only the first channels have no partial sums to add to: 2 x 2 x 4 kinds,
        however many tiles.
        """
        taps = _ceil(workloads.kernel_height, workloads.upsample_height) * _ceil(
            workloads.kernel_width, workloads.upsample_width
        )
        filters = workloads.out_channels // workloads.groups
        filter_tiles = _ceil(filters, self.tile_filters)
        calls = np.where(_has_macs(workloads), workloads.batch * workloads.repeat, 0)
        for rows in _spans(workloads, "height", self.tile_height):
            for columns in _spans(workloads, "width", self.tile_width):
                pixels = rows.outputs * columns.outputs
                macs = taps * _ceil(pixels, self.pixel_lanes) * filter_tiles
                adds = _ceil(pixels * filters, self.adds_per_cycle)
                for block in self._channel_blocks(workloads):
                    yield _Tile(
                        tiles=calls * rows.tiles * columns.tiles * block.tiles,
                        elements=rows.window * columns.window * block.channels,
                        macs=macs,
                        adds=adds * block.accumulates,
                    )

    def _channel_blocks(self, workloads: WorkloadTable) -> tuple[_ChannelBlock, ...]:
        """Returns the kinds of channel tile: first, middle, last, and left-over groups."""
        groups = workloads.groups
        channels = workloads.in_channels // groups
        filters = workloads.out_channels // groups
        fitting = np.minimum(self.tile_channels // channels, self.tile_filters // filters)
        together = np.clip(fitting, 1, groups)
        rounds, left_over = groups // together, groups % together
        tiles = _ceil(channels * together, self.tile_channels)
        several = tiles > 1
        full = np.full_like(channels, self.tile_channels)
        last = channels * together - (tiles - 1) * self.tile_channels
        never = np.zeros_like(several)
        return (
            _ChannelBlock(rounds * several, full, never),
            _ChannelBlock(rounds * np.maximum(tiles - 2, 0), full, several),
            _ChannelBlock(rounds, last, several),
            _ChannelBlock((left_over > 0).astype(np.int64), left_over * channels, never),
        )


class _Tile(NamedTuple):
    """Tiles of one kind; all i64[L]."""

    tiles: np.ndarray
    elements: np.ndarray  # of the input, in one tile
    macs: np.ndarray  # cycles of one tile at up to 8 bits
    adds: np.ndarray  # cycles of one tile


class _Span(NamedTuple):
    """Tiles of one kind along the height or the width; all i64[L]."""

    tiles: np.ndarray
    outputs: np.ndarray  # output pixels of one tile
    window: np.ndarray  # stored input pixels that they need


class _ChannelBlock(NamedTuple):
    """Tiles of one kind along channels and groups."""

    tiles: np.ndarray  # i64[L]
    channels: np.ndarray  # i64[L], of one tile
    accumulates: np.ndarray  # bool[L], adds to the partial sums of earlier channels


def _spans(workloads: WorkloadTable, axis: str, tile: int) -> tuple[_Span, _Span]:
    """Returns the full tiles along ``axis`` and the last one, which may be smaller."""
    outputs = getattr(workloads, f"out_{axis}")
    stride = getattr(workloads, f"stride_{axis}")
    upsample = getattr(workloads, f"upsample_{axis}")
    reach = getattr(workloads, f"dilation_{axis}") * (getattr(workloads, f"kernel_{axis}") - 1) + 1
    # A kernel wider than the tile still makes one output pixel from a wider window.
    per_tile = np.clip((tile * upsample - reach) // stride + 1, 1, outputs)
    tiles = _ceil(outputs, per_tile)
    last = outputs - (tiles - 1) * per_tile

    def window(pixels: np.ndarray) -> np.ndarray:
        stored = _ceil((pixels - 1) * stride + reach, upsample)
        return np.minimum(stored, getattr(workloads, f"in_{axis}"))

    return (
        _Span(tiles - 1, per_tile, window(per_tile)),
        _Span(np.ones_like(tiles), last, window(last)),
    )


def _untiled_inputs(workloads: WorkloadTable) -> np.ndarray:
    """Returns i64[L], elements read that no tile covers: all, where there are no MACs."""
    image = workloads.in_height * workloads.in_width * workloads.in_channels
    tiled = np.where(_has_macs(workloads), workloads.batch * workloads.repeat * image, 0)
    return np.maximum(workloads.input_elements - tiled, 0)


def _has_macs(workloads: WorkloadTable) -> np.ndarray:
    return workloads.is_conv | workloads.is_gemm


def _ceil(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    return -(-numerator // denominator)
