"""The arithmetic and traffic of a layer: the word that graph and hardware share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

KINDS = ("conv", "gemm", "vector")

FLOAT_BITS = 32
"""Stands for "not quantized" wherever bit-widths are listed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """Describes one layer as a grouped convolution, plus what it moves.

    A GEMM of ``[M, K] x [K, N]`` is a 1x1 convolution with ``in_height = out_height
    = M``, ``in_channels = K``, ``out_channels = N``. A layer without
    multiply-accumulates (pool, add, softmax) is of kind ``"vector"``, has zero
    ``macs`` and keeps the default dimensions.

    Attributes:
      kind: ``"conv"``, ``"gemm"`` or ``"vector"``.
      batch: images per call.
      in_height, in_width, in_channels: input of one image, without padding.
      out_height, out_width, out_channels: output of one image.
      kernel_height, kernel_width: filter size, before dilation.
      stride_height, stride_width: filter step.
      dilation_height, dilation_width: spacing of the filter taps.
      upsample_height, upsample_width: zeros are inserted between input pixels at
        this factor before the filter is applied (1: ordinary convolution;
        a transposed convolution of stride s has s).
      groups: channel groups; ``groups == in_channels`` is depthwise.
      repeat: how often the whole workload runs (batched GEMM, scan length).
      input_elements: elements of all data tensors read, all repeats together.
      output_elements: elements written.
      weight_elements: elements of the weight (and bias) read.
      vector_ops: elementwise and reduction operations beside the MACs.
    """

    kind: str
    batch: int = 1
    in_height: int = 1
    in_width: int = 1
    in_channels: int = 1
    out_height: int = 1
    out_width: int = 1
    out_channels: int = 1
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    dilation_height: int = 1
    dilation_width: int = 1
    upsample_height: int = 1
    upsample_width: int = 1
    groups: int = 1
    repeat: int = 1
    input_elements: int = 0
    output_elements: int = 0
    weight_elements: int = 0
    vector_ops: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call, inserted zeros not counted.

        >>> Workload(kind="gemm", in_height=2, out_height=2, in_channels=3, out_channels=5).macs
        30
        """
        if self.kind == "vector":
            return 0
        taps = _ceil(self.kernel_height, self.upsample_height) * _ceil(
            self.kernel_width, self.upsample_width
        )
        outputs = self.batch * self.out_height * self.out_width * self.out_channels
        return self.repeat * outputs * taps * (self.in_channels // self.groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkloadTable:
    """The workloads of all layers as arrays, for vectorised device models.

    Attributes:
      is_conv, is_gemm: bool[L]; where both are False the layer is of kind "vector".
      macs: i64[L].
      All other fields: i64[L], named as in `Workload`.
    """

    is_conv: np.ndarray
    is_gemm: np.ndarray
    macs: np.ndarray
    batch: np.ndarray
    in_height: np.ndarray
    in_width: np.ndarray
    in_channels: np.ndarray
    out_height: np.ndarray
    out_width: np.ndarray
    out_channels: np.ndarray
    kernel_height: np.ndarray
    kernel_width: np.ndarray
    stride_height: np.ndarray
    stride_width: np.ndarray
    dilation_height: np.ndarray
    dilation_width: np.ndarray
    upsample_height: np.ndarray
    upsample_width: np.ndarray
    groups: np.ndarray
    repeat: np.ndarray
    input_elements: np.ndarray
    output_elements: np.ndarray
    weight_elements: np.ndarray
    vector_ops: np.ndarray

    def __len__(self) -> int:
        return len(self.macs)


def tabulate(workloads: Sequence[Workload]) -> WorkloadTable:
    """Stacks workloads into a `WorkloadTable` of i64[L] columns."""
    names = [f.name for f in dataclasses.fields(Workload) if f.name != "kind"]
    columns = {n: np.array([getattr(w, n) for w in workloads], np.int64) for n in names}
    kinds = np.array([w.kind for w in workloads], dtype=str)
    macs = np.array([w.macs for w in workloads], np.int64)
    return WorkloadTable(is_conv=kinds == "conv", is_gemm=kinds == "gemm", macs=macs, **columns)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
