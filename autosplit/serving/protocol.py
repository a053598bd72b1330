"""What edge and cloud must agree on before either computes: version, split and fields.

Each check raises before any tensor is touched. `status` says with which gRPC status a
server answers a failed one; its text is what the client raises again as `ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import Manifest, TensorSpec
from autosplit.serving import split_inference_pb2 as pb2

PROTOCOL_VERSION = 2
"""Version of the messages. A peer that says anything else is refused."""

_SHOWN_CHARS = 80
_NAMED = 8  # of many splits or tensors, in a message


class UnknownVersionError(ProtocolError):
    """A peer speaks another version of the protocol."""


class UnknownSplitError(ProtocolError):
    """A peer holds a half of another split."""


class ChecksumError(ProtocolError):
    """The data of a message is not what the peer sent; the same request may be sent again."""


_STATUS = {
    UnknownVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    UnknownSplitError: grpc.StatusCode.NOT_FOUND,
}


def status(error: ProtocolError) -> grpc.StatusCode:
    """Returns the gRPC status with which a server answers a request that fails a check.

    >>> status(UnknownSplitError("another split")).name, status(ChecksumError("damaged")).name
    ('NOT_FOUND', 'INVALID_ARGUMENT')

    Args:
      error: from a check of this module or of `codec`.

    Returns:
      The status of its class; ``INVALID_ARGUMENT`` for all that have none of their own.
    """
    return _STATUS.get(type(error), grpc.StatusCode.INVALID_ARGUMENT)


def shown(text: str) -> str:
    """Returns text of a peer for an error message: quoted, and never longer than a line.

    >>> shown("relu"), len(shown("a" * 10**6)) < 100
    ("'relu'", True)
    """
    cut = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
    return repr(cut)


def check_version(version: int, peer: str) -> None:
    """Raises unless ``version`` is the one that this side speaks.

    >>> check_version(PROTOCOL_VERSION, "server")

    Args:
      version: ``protocol_version`` of a message; 0 when the peer left it out.
      peer: who sent it, for the message.

    Raises:
      UnknownVersionError: any other version, older or newer.
    """
    if version != PROTOCOL_VERSION:
        raise UnknownVersionError(
            f"The {peer} speaks protocol version {version}; this side speaks only "
            f"{PROTOCOL_VERSION}. Run the same version of autosplit on edge and cloud."
        )


def check_split_id(split_id: str, manifest: Manifest, peer: str) -> None:
    """Raises unless the peer names the split that this side holds.

    Args:
      split_id: from the peer's message.
      manifest: of the split on this side.
      peer: who sent it, for the message.

    Raises:
      UnknownSplitError: the peer holds a half of another split.
    """
    if split_id != manifest.split_id:
        raise UnknownSplitError(
            f"The {peer} names split {shown(split_id)}; this side holds "
            f"{manifest.split_id}. Start both from the same saved split."
        )


def check_fields(message: Message, peer: str) -> None:
    """Raises if a message holds fields that this version does not define, at any depth.

    Protocol Buffers keeps unknown fields silently; a field that changes the meaning
    of the tensors must not pass that way.

    Args:
      message: as received.
      peer: who sent it, for the message.

    Raises:
      ProtocolError: an unknown field, named by its number.
    """
    numbers = sorted({field.field_number for field in UnknownFieldSet(message)})
    if numbers:
        raise ProtocolError(
            f"{message.DESCRIPTOR.name} from the {peer} holds unknown fields {numbers[:_NAMED]}; "
            f"protocol version {PROTOCOL_VERSION} does not define them. "
            "Run the same version of autosplit on edge and cloud."
        )
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                check_fields(part, peer)


def describe(manifests: Iterable[Manifest]) -> pb2.DescribeResponse:
    """Returns what a server says of the splits that it holds, sorted by ``split_id``."""
    return pb2.DescribeResponse(
        protocol_version=PROTOCOL_VERSION,
        splits=[_description(one) for one in sorted(manifests, key=lambda m: m.split_id)],
    )


def check_description(response: pb2.DescribeResponse, manifest: Manifest) -> None:
    """Raises unless a server's description names the split on this side, with the same tensors.

    Args:
      response: from the server, of one split or of many.
      manifest: of the split in the client.

    Raises:
      UnknownVersionError: the server speaks another version.
      UnknownSplitError: the server does not serve this split.
      ProtocolError: unknown fields, or the same split with other tensors.
    """
    check_version(response.protocol_version, "server")
    check_fields(response, "server")
    served = {one.split_id: one for one in response.splits}
    if manifest.split_id not in served:
        names = ", ".join(shown(split_id) for split_id in sorted(served)[:_NAMED]) or "none"
        raise UnknownSplitError(
            f"The server serves {len(served)} splits ({names}); expected {manifest.split_id} among "
            "them. Copy the saved split to the server, or connect with one of its own."
        )
    if (found := served[manifest.split_id]) != _description(manifest):
        raise ProtocolError(
            f"The server describes other tensors for split {manifest.split_id}: "
            f"{_names(found.crossing)} cross there, {_names(manifest.crossing)} here, or their "
            "shape, type or bits differ. Copy the saved split to both sides again."
        )


def _description(manifest: Manifest) -> pb2.SplitDescription:
    return pb2.SplitDescription(
        split_id=manifest.split_id,
        crossing=[_spec_message(spec) for spec in manifest.crossing],
        outputs=[_spec_message(spec) for spec in manifest.outputs],
    )


def _names(specs: Iterable[Any]) -> str:
    names = [spec.name for spec in specs]
    return shown(", ".join(names[:_NAMED]) + ("..." if len(names) > _NAMED else ""))


def _spec_message(spec: TensorSpec) -> pb2.TensorSpec:
    return pb2.TensorSpec(
        name=spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        bits=spec.bits,
        payload_bytes=spec.payload_bytes,
    )
