"""What edge and cloud must agree on before either computes: version, split and fields.

Each check raises before any tensor is touched. The server answers a failed check with
the gRPC status in `cloud_server`, whose text the client raises again as `ProtocolError`.
"""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import Manifest, TensorSpec
from autosplit.serving import split_inference_pb2 as pb2

PROTOCOL_VERSION = 1
"""Version of the messages. A peer that says anything else is refused."""


class UnknownVersionError(ProtocolError):
    """A peer speaks another version of the protocol."""


class UnknownSplitError(ProtocolError):
    """A peer holds a half of another split."""


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
            f"The {peer} names split {split_id or '(none)'}; this side holds "
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
            f"{message.DESCRIPTOR.name} from the {peer} holds unknown fields {numbers}; "
            f"protocol version {PROTOCOL_VERSION} does not define them. "
            "Run the same version of autosplit on edge and cloud."
        )
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                check_fields(part, peer)


def describe(manifest: Manifest) -> pb2.DescribeResponse:
    """Returns what a server says of the split that it holds."""
    return pb2.DescribeResponse(
        protocol_version=PROTOCOL_VERSION,
        split_id=manifest.split_id,
        crossing=[_spec_message(spec) for spec in manifest.crossing],
        outputs=[_spec_message(spec) for spec in manifest.outputs],
    )


def check_description(response: pb2.DescribeResponse, manifest: Manifest) -> None:
    """Raises unless a server's description is that of the split on this side.

    Args:
      response: from the server.
      manifest: of the split in the client.

    Raises:
      ProtocolError: another version, another split, or other tensors.
    """
    check_version(response.protocol_version, "server")
    check_fields(response, "server")
    check_split_id(response.split_id, manifest, "server")
    if response != describe(manifest):
        raise ProtocolError(
            f"The server describes other tensors for split {manifest.split_id}: "
            f"{[spec.name for spec in response.crossing]} cross there, "
            f"{[spec.name for spec in manifest.crossing]} here, or their shape, type or bits "
            "differ. Copy the saved split to both sides again."
        )


def _spec_message(spec: TensorSpec) -> pb2.TensorSpec:
    return pb2.TensorSpec(
        name=spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        bits=spec.bits,
        payload_bytes=spec.payload_bytes,
    )
