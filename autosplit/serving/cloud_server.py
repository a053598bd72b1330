"""The cloud half of a split behind gRPC."""

from __future__ import annotations

import contextlib
import functools
import time
import types
from collections.abc import Iterator
from concurrent import futures

import grpc
import jax
import numpy as np

from autosplit.errors import InputError, ProtocolError
from autosplit.execution.halves import Split
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc

GRACE_S = 5.0
"""How long a request that is being computed may still take when the server stops."""

_STATUS = {
    protocol.UnknownVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    protocol.UnknownSplitError: grpc.StatusCode.NOT_FOUND,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
}


@contextlib.contextmanager
def serving(split: Split, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Serves the cloud half of ``split`` while the block runs.

    The stages are compiled before the port is opened, so whoever can connect is served
    at full speed. One request is computed at a time; a second waits, and its wait shows
    as downlink time in its client. There is no encryption and no authentication: keep
    to loopback or a trusted network.

    Args:
      split: with at least one crossing tensor.
      address: ``host:port``; port 0 takes a free one.

    Yields:
      The bound ``host:port``.

    Raises:
      InputError: nothing crosses the cut, or the address cannot be bound.
      ProtocolError: the split's outputs differ from its manifest.
    """
    if not split.manifest.crossing:
        raise InputError(
            f"Split {split.manifest.split_id} sends nothing: the edge computes the outputs. "
            "Run the edge alone, or choose a plan with a cloud half."
        )
    warm_up(split)
    limit_bytes = codec.message_limit_bytes(split.manifest.crossing)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="cloud"),
        options=(("grpc.max_receive_message_length", limit_bytes), ("grpc.so_reuseport", 0)),
    )
    servicer = types.SimpleNamespace(
        Describe=functools.partial(_describe, split), Infer=functools.partial(_infer, split)
    )
    pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
    bound = _bind(server, address)
    server.start()
    try:
        yield bound
    finally:
        server.stop(GRACE_S).wait()


def warm_up(split: Split) -> None:
    """Compiles the cloud's stages and checks their outputs against the manifest.

    Args:
      split: its stages are called once, on payloads of zeros.

    Raises:
      ProtocolError: the outputs have another count, shape or type than the manifest says.
    """
    zeros = tuple(np.zeros(spec.payload_bytes, np.uint8) for spec in split.manifest.crossing)
    outputs = split.cloud_outputs(split.unpack(zeros))
    codec.encode_values(split.manifest.outputs, outputs)


def accept_request(split: Split, request: pb2.InferRequest) -> tuple[np.ndarray, ...]:
    """Returns the payload of a request that passes every check.

    Args:
      split: served here.
      request: as received.

    Returns:
      The packed crossing tensors.

    Raises:
      UnknownVersionError: the request's version is not `protocol.PROTOCOL_VERSION`.
      UnknownSplitError: the request is for another split.
      ProtocolError: unknown fields, or tensors that are not those of the manifest.
    """
    protocol.check_version(request.protocol_version, "client")
    protocol.check_fields(request, "client")
    protocol.check_split_id(request.split_id, split.manifest, "client")
    return codec.decode_payload(split.manifest.crossing, request.tensors)


def _describe(
    split: Split, request: pb2.DescribeRequest, context: grpc.ServicerContext
) -> pb2.DescribeResponse:
    with _rejecting(context):
        protocol.check_version(request.protocol_version, "client")
        protocol.check_fields(request, "client")
    return protocol.describe(split.manifest)


def _infer(
    split: Split, request: pb2.InferRequest, context: grpc.ServicerContext
) -> pb2.InferResponse:
    received_s = time.perf_counter()
    with _rejecting(context):
        payload = accept_request(split, request)
    codes = jax.block_until_ready(split.unpack(payload))
    unpacked_s = time.perf_counter()
    outputs = jax.block_until_ready(split.cloud_outputs(codes))
    computed_s = time.perf_counter()
    return pb2.InferResponse(
        protocol_version=protocol.PROTOCOL_VERSION,
        request_id=request.request_id,
        outputs=codec.encode_values(split.manifest.outputs, outputs),
        unpack_s=unpacked_s - received_s,
        cloud_s=computed_s - unpacked_s,
    )


@contextlib.contextmanager
def _rejecting(context: grpc.ServicerContext) -> Iterator[None]:
    """Answers a failed check with its gRPC status and the check's own words."""
    try:
        yield
    except ProtocolError as error:
        context.abort(_STATUS[type(error)], str(error))


def _bind(server: grpc.Server, address: str) -> str:
    host, _, digits = address.rpartition(":")
    port = 0
    if host and digits.isdecimal() and int(digits) < 2**16:  # gRPC would wrap a larger one around
        with contextlib.suppress(RuntimeError):
            port = server.add_insecure_port(address)
    if port == 0:
        raise InputError(
            f"Cannot listen on {address!r}. Give host:port with a host of this machine and a "
            "free port, such as 127.0.0.1:0."
        )
    return f"{host}:{port}"
