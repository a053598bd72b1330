"""Split: the two halves of a function, in memory or read back from disk."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import InputError
from autosplit.execution import export
from autosplit.execution.manifest import Manifest, TensorSpec
from autosplit.execution.weights import PACKED_BITS
from autosplit.quant import packing


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Half:
    """A compiled function and the arrays that it reads beside its data.

    Attributes:
      call: ``call(weights, data) -> arrays``, jitted or exported.
      weights: arrays by name.
      batched: as ``call``, for many requests at once: one more leading axis on the data and on
        what is returned; None where there is none.
      packed: quantized weights as they are stored, by name.
      unpack: ``unpack(packed)`` are those of ``weights`` that they become, once.
    """

    call: Any
    weights: Mapping[str, Any]
    batched: Any = None
    packed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unpack: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The stages of a split, in the order in which one request passes them.

    ``edge_layers -> pack -> (link) -> unpack -> cloud_layers``; ``edge`` and ``cloud`` join
    the stages of one side. At the edge-only cut nothing is sent: the edge half
    gives the flat outputs and the cloud half only restores their nesting.

    Attributes:
      manifest: what both sides must agree on.
      edge_half, cloud_half: None where that half was not loaded.
      unflatten: puts flat outputs into the function's containers.
    """

    manifest: Manifest
    edge_half: Half | None
    cloud_half: Half | None
    unflatten: Callable[[Sequence[Any]], Any]

    def edge_layers(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """Runs the edge half: codes (uint8) or raw values, one per crossing tensor."""
        half = _loaded(self.edge_half, "edge")
        leaves = jax.tree.leaves(inputs)
        found = [(jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]
        expected = [(spec.shape, spec.dtype) for spec in self.manifest.inputs]
        if found != expected:
            raise InputError(
                f"The inputs have the shapes and dtypes {found}; the split takes {expected}, as "
                "the function was traced. Convert the inputs, or trace again."
            )
        return tuple(half.call(half.weights, leaves))

    def pack(self, codes: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Packs what crosses into flat bytes."""
        if not self.manifest.crossing:
            return tuple(codes)
        return _pack_all(tuple(codes), self.manifest.crossing)

    def unpack(self, payload: Sequence[jax.Array | np.ndarray]) -> tuple[jax.Array, ...]:
        """Unpacks bytes into codes or raw values; raises `InputError` where they do not fit."""
        expected = len(self.manifest.crossing or self.manifest.outputs)
        if len(payload) != expected:
            raise InputError(
                f"The payload has {len(payload)} tensors; this split sends {expected}. It is "
                "truncated or of another split."
            )
        if not self.manifest.crossing:
            return tuple(jnp.asarray(value) for value in payload)
        return _unpack_all(tuple(payload), self.manifest.crossing)

    def cloud_outputs(self, codes: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Runs the cloud half: the flat outputs."""
        if not self.manifest.crossing:
            return tuple(codes)
        half = _loaded(self.cloud_half, "cloud")
        return tuple(half.call(half.weights, list(codes)))

    @property
    def batches(self) -> bool:
        """Whether the cloud half can compute many requests at once."""
        return self.cloud_half is not None and self.cloud_half.batched is not None

    def unpack_batch(self, payloads: Sequence[np.ndarray]) -> tuple[jax.Array, ...]:
        """Unpacks many requests: uint8[B, payload_bytes] per crossing tensor to [B, ...]."""
        return _unpack_batch(tuple(payloads), self.manifest.crossing)

    def cloud_outputs_batch(self, codes: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Runs the cloud half on many requests: the flat outputs, each with a leading axis B.

        Each request's outputs are those of `cloud_outputs` but for the order of float
        additions, which XLA chooses by the size of the batch.
        """
        half = _loaded(self.cloud_half, "cloud")
        return tuple(half.batched(half.weights, list(codes)))

    def on_device(self, device: jax.Device) -> Split:
        """Returns the split with the arrays of its cloud half on a device."""
        half = _loaded(self.cloud_half, "cloud")
        half = dataclasses.replace(half, weights=jax.device_put(half.weights, device))
        return dataclasses.replace(self, cloud_half=half)

    def cloud_layers(self, codes: Sequence[jax.Array]) -> Any:
        """Runs the cloud half: the outputs in the function's own containers."""
        return self.unflatten(self.cloud_outputs(codes))

    def edge(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """Runs the edge side: what is sent, as flat bytes."""
        return self.pack(self.edge_layers(*inputs))

    def cloud(self, payload: Sequence[jax.Array | np.ndarray]) -> Any:
        """Runs the cloud side on what arrived: the outputs of the function."""
        return self.cloud_layers(self.unpack(payload))

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the split to a directory; see `autosplit.execution.export`."""
        export.save_split(self, pathlib.Path(path))


def _loaded(half: Half | None, side: str) -> Half:
    if half is None:
        raise InputError(f"The {side} half was not loaded; load the split with that half.")
    return half


@functools.partial(jax.jit, static_argnames=("specs",))
def _pack_all(
    codes: tuple[jax.Array, ...], specs: tuple[TensorSpec, ...]
) -> tuple[jax.Array, ...]:
    return tuple(
        packing.pack(code, spec.bits) if spec.bits <= PACKED_BITS else _to_bytes(code)
        for code, spec in zip(codes, specs, strict=True)
    )


@functools.partial(jax.jit, static_argnames=("specs",))
def _unpack_all(
    payload: tuple[Any, ...], specs: tuple[TensorSpec, ...]
) -> tuple[jax.Array, ...]:
    return tuple(
        packing.unpack(data, spec.bits, spec.shape)
        if spec.bits <= PACKED_BITS
        else _from_bytes(data, spec)
        for data, spec in zip(payload, specs, strict=True)
    )


@functools.partial(jax.jit, static_argnames=("specs",))
def _unpack_batch(
    payloads: tuple[Any, ...], specs: tuple[TensorSpec, ...]
) -> tuple[jax.Array, ...]:
    return jax.vmap(lambda *payload: _unpack_all(payload, specs))(*payloads)


def _to_bytes(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        return x.reshape(-1).astype(jnp.uint8)
    return jax.lax.bitcast_convert_type(x, jnp.uint8).reshape(-1)


def _from_bytes(data: jax.Array, spec: TensorSpec) -> jax.Array:
    if (data.shape, data.dtype) != ((spec.payload_bytes,), jnp.uint8):
        raise InputError(
            f"{spec.name} arrived as {data.dtype}{list(data.shape)}; expected "
            f"uint8[{spec.payload_bytes}]. The data is truncated or of another tensor."
        )
    dtype = jnp.dtype(spec.dtype)
    if dtype == jnp.bool_:
        return data.reshape(spec.shape).astype(jnp.bool_)
    shape = spec.shape if dtype.itemsize == 1 else (*spec.shape, dtype.itemsize)
    return jax.lax.bitcast_convert_type(data.reshape(shape), dtype)
