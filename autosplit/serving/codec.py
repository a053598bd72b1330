"""Arrays to messages and back, checked against the manifest's specs on both sides.

A tensor that crosses the cut travels as packed bytes, a 1-D uint8 array that only
`unpack` interprets. An output travels as the little-endian bytes of its values in
row-major order. Either may be coded without loss (`coding`). Before anything is decoded,
the message is checked for version, split, count, order, names, shapes, types, bits, exact
sizes and checksum; nothing is converted, padded or cut off.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import grpc
import jax.numpy as jnp
import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import Manifest, TensorSpec
from autosplit.serving import coding as lossless
from autosplit.serving import protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.coding import AS_IS, Coding

CLIENT_ID_BYTES = 16

_FIXED_FIELDS_BYTES = 4096
_TENSOR_FIELDS_BYTES = 64
_AXIS_BYTES = 10
_LONGEST_MESSAGE_CHARS = 1000  # of at most 4 bytes each: a refusal fits _FIXED_FIELDS_BYTES


def encode_request(
    manifest: Manifest,
    payload: Sequence[ArrayLike],
    client_id: bytes,
    request_id: int,
    coding: Coding | None = None,
) -> pb2.InferRequest:
    """Returns the request that carries the packed tensors of one edge run.

    Args:
      manifest: of the split.
      payload: from `Split.edge`: one 1-D uint8 array per ``manifest.crossing``.
      client_id: 16 random bytes of this process.
      request_id: 0 to 2^64 - 1, new for every request; a retry sends the same message.
      coding: from `choose_coding`; None sends the bytes as they are.

    Returns:
      The message, with its checksum.

    Raises:
      ProtocolError: another number of arrays, another type, or another number of bytes.
    """
    specs = manifest.crossing
    _check_count(len(payload), specs, "payload arrays")
    arrays = [np.asarray(array) for array in payload]
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ProtocolError(
                f"The payload of tensor {spec.name!r} is {array.dtype}{array.shape}; expected a "
                "1-D uint8 array. Send what `pack` returns."
            )
    tensors, crc32 = _encode(specs, arrays, coding or AS_IS)
    return pb2.InferRequest(
        protocol_version=protocol.PROTOCOL_VERSION,
        split_id=manifest.split_id,
        client_id=client_id,
        request_id=request_id,
        tensors=tensors,
        crc32=crc32,
    )


def decode_request(manifest: Manifest, request: pb2.InferRequest) -> tuple[np.ndarray, ...]:
    """Returns the packed bytes of the tensors that crossed the cut, for `Split.unpack`.

    Args:
      manifest: of the split that the request names.
      request: as received.

    Returns:
      One read-only uint8 array [payload_bytes] per ``manifest.crossing``.

    Raises:
      UnknownVersionError: the request is of another version.
      UnknownSplitError: the request is for another split.
      ChecksumError: the data was changed on the way.
      ProtocolError: unknown fields, a client id of another length, or tensors that are not
        those of the manifest.
    """
    protocol.check_version(request.protocol_version, "client")
    protocol.check_split_id(request.split_id, manifest, "client")
    if len(request.client_id) != CLIENT_ID_BYTES:
        raise ProtocolError(
            f"The client's id has {len(request.client_id)} bytes; expected {CLIENT_ID_BYTES} "
            "random ones. Draw them once per process."
        )
    blobs = _decode(manifest.crossing, request.tensors, request, "client")
    return tuple(np.frombuffer(blob, np.uint8) for blob in blobs)


def encode_response(
    manifest: Manifest,
    request_id: int,
    outputs: Sequence[ArrayLike],
    *,
    queue_s: float,
    unpack_s: float,
    cloud_s: float,
    batch: int = 1,
    coding: Coding | None = None,
) -> pb2.InferResponse:
    """Returns the response that carries the outputs of one request.

    Args:
      manifest: of the split.
      request_id: of the request.
      outputs: one array per ``manifest.outputs``, with its shape and type.
      queue_s: from the arrival of the request to the start of its computation.
      unpack_s: of checks, decoding and unpacking.
      cloud_s: of the cloud half.
      batch: requests that were computed together.
      coding: None sends the bytes as they are.

    Returns:
      The message, with its checksum.

    Raises:
      ProtocolError: another number of arrays, another shape or type.
    """
    arrays = check_values(manifest.outputs, outputs)
    tensors, crc32 = _encode(manifest.outputs, arrays, coding or AS_IS)
    return pb2.InferResponse(
        protocol_version=protocol.PROTOCOL_VERSION,
        request_id=request_id,
        outputs=tensors,
        crc32=crc32,
        queue_s=queue_s,
        unpack_s=unpack_s,
        cloud_s=cloud_s,
        batch=batch,
    )


def encode_refusal(
    request_id: int, status: grpc.StatusCode, message: str, retry_after_s: float = 0.0
) -> pb2.InferResponse:
    """Returns the response that says on a stream why a request was not computed.

    >>> encode_refusal(7, grpc.StatusCode.UNAVAILABLE, "draining", 0.5).status
    14

    Args:
      request_id: of the request.
      status: what a unary call would have ended with.
      message: why, for people; a long one is cut off.
      retry_after_s: when to try again; 0 where that would not help.
    """
    return pb2.InferResponse(
        protocol_version=protocol.PROTOCOL_VERSION,
        request_id=request_id,
        status=status.value[0],
        message=message[:_LONGEST_MESSAGE_CHARS],
        retry_after_s=retry_after_s,
    )


def decode_response(manifest: Manifest, response: pb2.InferResponse) -> tuple[np.ndarray, ...]:
    """Returns the outputs that a successful response carries.

    Args:
      manifest: of the split of the request.
      response: as received, with status 0.

    Returns:
      One read-only array per ``manifest.outputs``, with its shape and type.

    Raises:
      UnknownVersionError: the response is of another version.
      ChecksumError: the data was changed on the way.
      ProtocolError: a refusal, unknown fields, or tensors that are not those of the manifest.
    """
    protocol.check_version(response.protocol_version, "server")
    if response.status:
        raise ProtocolError(
            f"The server refused request {response.request_id} with status {response.status}: "
            f"{protocol.shown(response.message)}. Look at the status before decoding."
        )
    blobs = _decode(manifest.outputs, response.outputs, response, "server")
    return tuple(
        np.frombuffer(blob, jnp.dtype(spec.dtype)).reshape(spec.shape)
        for spec, blob in zip(manifest.outputs, blobs, strict=True)
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


def _encode(
    specs: Sequence[TensorSpec], arrays: Sequence[np.ndarray], coding: Coding
) -> tuple[list[pb2.Tensor], int]:
    """Returns the messages of arrays, and the checksum over their data."""
    tensors, crc32 = [], 0
    for spec, array in zip(specs, arrays, strict=True):
        if array.nbytes != spec.payload_bytes:
            raise ProtocolError(
                f"Tensor {spec.name!r} has {array.nbytes} bytes to send; the manifest says "
                f"{spec.payload_bytes}. Save the split again: its parts disagree."
            )
        data, kind = lossless.encode(array.tobytes(), coding)
        crc32 = zlib.crc32(data, crc32)
        tensors.append(
            pb2.Tensor(
                name=spec.name,
                shape=spec.shape,
                dtype=spec.dtype,
                bits=spec.bits,
                data=data,
                coding=kind,
            )
        )
    return tensors, crc32


def _decode(
    specs: Sequence[TensorSpec],
    tensors: Sequence[pb2.Tensor],
    message: pb2.InferRequest | pb2.InferResponse,
    peer: str,
) -> list[bytes]:
    """Returns the data of the tensors in a message; decodes none before all checks have passed."""
    _check_count(len(tensors), specs, "tensors")
    for spec, tensor in zip(specs, tensors, strict=True):
        _check_form(spec, tensor)
    sent = [tensor.data for tensor in tensors]  # each access copies
    for spec, data in zip(specs, sent, strict=True):
        if len(data) > spec.payload_bytes:
            _refuse(spec, "number of bytes", len(data), spec.payload_bytes)
    _check_rest(specs, message, sum(map(len, sent)))
    protocol.check_fields(message, peer)
    _check_sum(sent, message.crc32)
    return [
        _decode_one(spec, tensor.coding, data)
        for spec, tensor, data in zip(specs, tensors, sent, strict=True)
    ]


def _check_rest(specs: Sequence[TensorSpec], message: Message, data_bytes: int) -> None:
    """Bounds what is not data: listing many unknown fields would take 40 times their bytes."""
    rest_bytes = message.ByteSize() - data_bytes
    limit_bytes = message_limit_bytes(specs) - sum(spec.payload_bytes for spec in specs)
    if rest_bytes > limit_bytes:
        raise ProtocolError(
            f"{message.DESCRIPTOR.name} holds {rest_bytes} bytes beside its data; expected at most "
            f"{limit_bytes}. Run the same version of autosplit on edge and cloud."
        )


def _check_sum(sent: Sequence[bytes], crc32: int) -> None:
    found = 0
    for data in sent:
        found = zlib.crc32(data, found)
    if found != crc32:
        raise protocol.ChecksumError(
            f"The data has the checksum {found:08x}; its sender says {crc32:08x}. It was changed "
            "on the way: send it again."
        )


def _decode_one(spec: TensorSpec, kind: int, data: bytes) -> bytes:
    try:
        return lossless.decode(data, kind, spec.payload_bytes)
    except ProtocolError as error:
        raise ProtocolError(f"Tensor {spec.name!r}: {error}") from error


def _check_form(spec: TensorSpec, message: pb2.Tensor) -> None:
    if len(message.shape) != len(spec.shape):  # before a long list becomes a tuple
        _refuse(spec, "rank", len(message.shape), len(spec.shape))
    for field, found, expected in (
        ("name", message.name, spec.name),
        ("shape", tuple(message.shape), tuple(spec.shape)),
        ("dtype", message.dtype, spec.dtype),
        ("bits", message.bits, spec.bits),
    ):
        if found != expected:
            _refuse(spec, field, found, expected)


def _refuse(spec: TensorSpec, field: str, found: Any, expected: Any) -> None:
    words = protocol.shown(found) if isinstance(found, str) else repr(found)
    raise ProtocolError(
        f"Tensor {spec.name!r} has {field} {words}; expected {expected!r}. Start edge and cloud "
        "from the same saved split."
    )


def _check_count(count: int, specs: Sequence[TensorSpec], what: str) -> None:
    if count != len(specs):
        raise ProtocolError(
            f"Found {count} {what}; expected {len(specs)}: {[spec.name for spec in specs]}. "
            "Start edge and cloud from the same saved split."
        )
