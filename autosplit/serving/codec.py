"""Arrays to messages and back, checked against the manifest's specs on both sides.

A tensor that crosses the cut travels as packed bytes, a 1-D uint8 array that only
`unpack` interprets. An output travels as the little-endian bytes of its values in
row-major order. Both are checked for count, order, name, shape, type, bits and the
exact number of bytes; nothing is converted, padded or cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import TensorSpec
from autosplit.serving import split_inference_pb2 as pb2

_FIXED_FIELDS_BYTES = 4096
_TENSOR_FIELDS_BYTES = 64
_AXIS_BYTES = 10


def encode_payload(specs: Sequence[TensorSpec], payload: Sequence[ArrayLike]) -> list[pb2.Tensor]:
    """Returns the messages of the packed tensors that cross the cut.

    Args:
      specs: ``manifest.crossing``.
      payload: from `pack`: one 1-D uint8 array per spec.

    Returns:
      One message per spec, in the same order.

    Raises:
      ProtocolError: another number of arrays, another type, or another number of bytes.
    """
    _check_count(len(payload), specs, "payload arrays")
    arrays = [np.asarray(array) for array in payload]
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ProtocolError(
                f"The payload of tensor {spec.name!r} is {array.dtype}{array.shape}; expected a "
                "1-D uint8 array. Send what `pack` returns."
            )
    return [_message(spec, array) for spec, array in zip(specs, arrays, strict=True)]


def decode_payload(
    specs: Sequence[TensorSpec], messages: Sequence[pb2.Tensor]
) -> tuple[np.ndarray, ...]:
    """Returns the packed bytes of the tensors that crossed the cut, for `unpack`.

    Args:
      specs: ``manifest.crossing``.
      messages: as received.

    Returns:
      One read-only uint8 array [payload_bytes] per spec, without a copy.

    Raises:
      ProtocolError: another count, order, name, shape, type, bits or number of bytes.
    """
    _check_messages(specs, messages)
    return tuple(np.frombuffer(message.data, np.uint8) for message in messages)


def encode_values(specs: Sequence[TensorSpec], values: Sequence[ArrayLike]) -> list[pb2.Tensor]:
    """Returns the messages of whole arrays, such as the outputs.

    Args:
      specs: ``manifest.outputs``.
      values: one array per spec, with its shape and type.

    Returns:
      One message per spec, in the same order.

    Raises:
      ProtocolError: another number of arrays, another shape or type.
    """
    arrays = check_values(specs, values)
    return [_message(spec, array) for spec, array in zip(specs, arrays, strict=True)]


def decode_values(
    specs: Sequence[TensorSpec], messages: Sequence[pb2.Tensor]
) -> tuple[np.ndarray, ...]:
    """Returns the whole arrays that `encode_values` turned into messages.

    Args:
      specs: ``manifest.outputs``.
      messages: as received.

    Returns:
      One read-only array per spec, with its shape and type, without a copy.

    Raises:
      ProtocolError: another count, order, name, shape, type, bits or number of bytes.
    """
    _check_messages(specs, messages)
    return tuple(
        np.frombuffer(message.data, jnp.dtype(spec.dtype)).reshape(spec.shape)
        for spec, message in zip(specs, messages, strict=True)
    )


def check_values(
    specs: Sequence[TensorSpec], values: Sequence[ArrayLike]
) -> tuple[np.ndarray, ...]:
    """Returns the values as NumPy arrays after a check of count, shape and type.

    Args:
      specs: what the values must look like.
      values: one array per spec.

    Returns:
      The values, on the host.

    Raises:
      ProtocolError: another number of arrays, another shape or type.
    """
    _check_count(len(values), specs, "values")
    arrays = tuple(np.asarray(value) for value in values)
    for spec, array in zip(specs, arrays, strict=True):
        if array.shape != tuple(spec.shape) or array.dtype != jnp.dtype(spec.dtype):
            raise ProtocolError(
                f"Tensor {spec.name!r} is {array.dtype}{array.shape}; the manifest says "
                f"{spec.dtype}{tuple(spec.shape)}. Save the split again, or feed what it expects."
            )
    return arrays


def message_limit_bytes(specs: Sequence[TensorSpec]) -> int:
    """Returns an upper bound on the bytes of a well-formed message with these tensors.

    gRPC refuses a longer one before it is parsed, so a peer cannot make this process
    hold more memory than its split needs.

    Args:
      specs: the tensors in the message.

    Returns:
      Bytes: the payloads exactly, the other fields generously.
    """
    return _FIXED_FIELDS_BYTES + sum(
        spec.payload_bytes
        + _TENSOR_FIELDS_BYTES
        + len(spec.name.encode())
        + _AXIS_BYTES * len(spec.shape)
        for spec in specs
    )


def _message(spec: TensorSpec, array: np.ndarray) -> pb2.Tensor:
    if array.nbytes != spec.payload_bytes:
        raise ProtocolError(
            f"Tensor {spec.name!r} has {array.nbytes} bytes to send; the manifest says "
            f"{spec.payload_bytes}. Save the split again: its parts disagree."
        )
    return pb2.Tensor(
        name=spec.name, shape=spec.shape, dtype=spec.dtype, bits=spec.bits, data=array.tobytes()
    )


def _check_messages(specs: Sequence[TensorSpec], messages: Sequence[pb2.Tensor]) -> None:
    _check_count(len(messages), specs, "tensors")
    for spec, message in zip(specs, messages, strict=True):
        found = {
            "name": message.name,
            "shape": tuple(message.shape),
            "dtype": message.dtype,
            "bits": message.bits,
            "number of bytes": len(message.data),
        }
        expected = {
            "name": spec.name,
            "shape": tuple(spec.shape),
            "dtype": spec.dtype,
            "bits": spec.bits,
            "number of bytes": spec.payload_bytes,
        }
        for field, value in found.items():
            if value != expected[field]:
                raise ProtocolError(
                    f"Tensor {message.name!r} has {field} {value!r}; expected "
                    f"{expected[field]!r}. Start edge and cloud from the same saved split."
                )


def _check_count(count: int, specs: Sequence[TensorSpec], what: str) -> None:
    if count != len(specs):
        raise ProtocolError(
            f"Found {count} {what}; expected {len(specs)}: {[spec.name for spec in specs]}. "
            "Start edge and cloud from the same saved split."
        )
