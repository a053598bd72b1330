"""Measured devices: the seconds of every layer shape, timed on the machine itself."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import ArtefactError, InputError
from autosplit.files import read_document, to_plain, write_document
from autosplit.hardware.spec import MAC_BITS, check_bits, mac_bits, require_positive
from autosplit.workload import Workload, WorkloadTable, tabulate

KIND: Final = "autosplit.device"
VERSION: Final = 1
_LISTED: Final = 3  # shapes of the file that a message names


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerTime:
    """What one layer shape took.

    Attributes:
      workload: the shape.
      float_s: seconds in float32.
      int8_s: seconds with 8-bit operands, as measured: it may exceed ``float_s``.
      int8_form: how the 8-bit layer was computed; ``"float"`` where it has no
        8-bit form, ``int8_s`` is then ``float_s``.
    """

    workload: Workload
    float_s: float
    int8_s: float
    int8_form: str = "int8"

    def __post_init__(self) -> None:
        for field in ("float_s", "int8_s"):
            value = getattr(self, field)
            if not 0 <= value < np.inf:
                raise InputError(
                    f"LayerTime.{field} of {shape_text(self.workload)} is {value}; expected 0 s "
                    "or more. Measure again."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Looks the seconds of a layer up among those that were measured.

    ``latency = min(int8_s, float_s)`` where both operands have at most 8 bits, and
    ``float_s`` where one is wider. Below 8 bits a layer is computed in 8 bits and
    takes as long. A layer whose 8-bit form was slower than float would be computed in
    float, so it costs the lesser of the two at 8 bits: latency never falls when
    bits rise. Nothing is interpolated: a shape that was not measured raises.

    Attributes:
      name: for tables and reports.
      times: one entry per distinct layer shape.
      memory_bytes_per_s: measured bandwidth; a byte that is copied counts once read
        and once written.
      memory_bytes: of the machine; None means without limit.
      fingerprints: of the graphs whose layers were timed.
      record: machine, versions and date, for people and reports.

    >>> from autosplit.workload import Workload, tabulate
    >>> shape = Workload(kind="gemm", in_channels=1000, out_channels=1000)
    >>> laptop = Measured(
    ...     name="laptop",
    ...     times=(LayerTime(workload=shape, float_s=3e-4, int8_s=1e-4),),
    ...     memory_bytes_per_s=1e10,
    ... )
    >>> laptop.latency_s(tabulate([shape]), np.array([4, 8, 16]), np.array([8]))
    array([[[0.0001],
            [0.0001],
            [0.0003]]])
    """

    name: str
    times: tuple[LayerTime, ...]
    memory_bytes_per_s: float
    memory_bytes: float | None = None
    fingerprints: tuple[str, ...] = ()
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        owner = f"Measured({self.name!r})"
        require_positive(
            owner,
            {"memory_bytes_per_s": self.memory_bytes_per_s, "memory_bytes": self.memory_bytes},
        )
        if not self.times:
            raise InputError(f"{owner} has no times; expected one per layer shape. Measure some.")
        if len(self._index) < len(self.times):
            raise InputError(
                f"{owner} has {len(self.times)} times of {len(self._index)} shapes; expected one "
                "per shape. Keep one of each."
            )

    @functools.cached_property
    def _index(self) -> dict[bytes, int]:
        rows = _rows(tabulate([time.workload for time in self.times]))
        return {row.tobytes(): position for position, row in enumerate(rows)}

    @functools.cached_property
    def _seconds(self) -> np.ndarray:
        """f64[N, 2]: at up to 8 bits, and wider."""
        return np.array([(min(t.int8_s, t.float_s), t.float_s) for t in self.times])

    def latency_s(
        self, workloads: WorkloadTable, w_bits: np.ndarray, a_bits: np.ndarray
    ) -> np.ndarray:
        """Returns seconds, f64[L, Kw, Ka]; see `Device.latency_s`.

        Raises:
          InputError: a layer has a shape that was not measured.
        """
        w_bits, a_bits = check_bits(w_bits, "w_bits"), check_bits(a_bits, "a_bits")
        wide = (mac_bits(w_bits, a_bits) > MAC_BITS).astype(np.int64)
        return self._seconds[self._positions(workloads)][:, wide]

    def move_s(self, num_bytes: ArrayLike) -> np.ndarray:
        """Returns seconds to stream ``num_bytes`` through the memory once."""
        return np.asarray(num_bytes, np.float64) / self.memory_bytes_per_s

    def _positions(self, workloads: WorkloadTable) -> np.ndarray:
        rows = _rows(workloads)
        found = np.array([self._index.get(row.tobytes(), -1) for row in rows], np.int64)
        if np.any(found < 0):
            missing = np.flatnonzero(found < 0)
            asked = _workload(workloads, missing[0])
            raise InputError(self._unknown_shape(asked, f"{missing.size} of {len(rows)}"))
        return found

    def _unknown_shape(self, asked: Workload, missing: str) -> str:
        same_kind = [t.workload for t in self.times if t.workload.kind == asked.kind]
        nearest = sorted(same_kind, key=lambda shape: _distance(shape, asked))[:_LISTED]
        others = f"; nearest: {', '.join(shape_text(s) for s in nearest)}" if nearest else ""
        graphs = ", ".join(f[:12] for f in self.fingerprints) or "none that it names"
        return (
            f"Device file from another graph: {self.name!r} has no time for {missing} layers of "
            f"this graph, first {shape_text(asked)}. It holds {len(self.times)} layer shapes of "
            f"the graphs {graphs}{others}. Expected every shape of this graph; run "
            "experiments.measure_device on it, with the same input size."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a device file, JSON with a checksum, that is whole or absent."""
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        write_document(path, KIND, VERSION, to_plain(body))


def load_device(path: str | os.PathLike[str]) -> Measured:
    """Reads a device file.

    Args:
      path: from `Measured.save`.

    Raises:
      ArtefactError: missing, truncated, changed since, of another format version, or
        with other fields.

    >>> import pathlib, tempfile
    >>> shape = Workload(kind="gemm", in_channels=10, out_channels=10)
    >>> time = LayerTime(workload=shape, float_s=3e-4, int8_s=1e-4)
    >>> laptop = Measured(name="laptop", times=(time,), memory_bytes_per_s=1e10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "laptop.json"
    >>> laptop.save(path)
    >>> load_device(path) == laptop
    True
    """
    body = read_document(path, KIND, VERSION)
    try:
        times = tuple(
            LayerTime(**(time | {"workload": Workload(**time["workload"])}))
            for time in body["times"]
        )
        fingerprints = tuple(body["fingerprints"])
        return Measured(**(body | {"times": times, "fingerprints": fingerprints}))
    except (TypeError, KeyError, ValueError) as error:
        raise ArtefactError(
            f"{path} holds no device ({error}); expected the fields of Measured. Run "
            "experiments.measure_device again."
        ) from error


def shape_text(workload: Workload) -> str:
    """Names a layer shape in a few words.

    >>> shape_text(Workload(kind="conv", in_height=56, in_width=56, in_channels=64,
    ...     out_height=28, out_width=28, out_channels=128, kernel_height=3, kernel_width=3))
    'conv 3x3 56x56x64 to 28x28x128'
    >>> shape_text(Workload(kind="vector", input_elements=10, output_elements=5, vector_ops=20))
    'vector 10 to 5 elements, 20 ops'
    """
    w = workload
    if w.kind == "vector":
        return f"vector {w.input_elements} to {w.output_elements} elements, {w.vector_ops} ops"
    if w.kind == "gemm":
        text = f"gemm {w.in_height}x{w.in_channels} by {w.in_channels}x{w.out_channels}"
    else:
        text = (
            f"conv {w.kernel_height}x{w.kernel_width} {w.in_height}x{w.in_width}x{w.in_channels} "
            f"to {w.out_height}x{w.out_width}x{w.out_channels}"
        )
    extra = {"groups": w.groups, "batch": w.batch, "repeat": w.repeat}
    return text + "".join(f", {name} {value}" for name, value in extra.items() if value > 1)


def _rows(table: WorkloadTable) -> np.ndarray:
    """Returns i64[L, F], all that tells one shape from another."""
    columns = [getattr(table, f.name) for f in dataclasses.fields(WorkloadTable)]
    return np.ascontiguousarray(np.stack(columns, axis=1).astype(np.int64))


def _workload(table: WorkloadTable, index: int) -> Workload:
    kind = "conv" if table.is_conv[index] else "gemm" if table.is_gemm[index] else "vector"
    names = [f.name for f in dataclasses.fields(Workload) if f.name != "kind"]
    return Workload(kind=kind, **{n: int(getattr(table, n)[index]) for n in names})


def _distance(first: Workload, second: Workload) -> int:
    """Counts the fields that differ."""
    names = [f.name for f in dataclasses.fields(Workload)]
    return sum(getattr(first, n) != getattr(second, n) for n in names)
