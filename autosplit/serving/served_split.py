"""What serving needs of a split: the part of `autosplit.execution`'s interface that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from autosplit.errors import ArtefactError
from autosplit.hardware.network import Network


class TensorSpec(Protocol):
    """Form of one tensor that enters, crosses or leaves a split.

    Attributes:
      name: unique among the tensors of the same list.
      shape: of the unpacked tensor.
      dtype: NumPy name of the unpacked tensor's type.
      bits: 1 to 8 for packed codes, 32 for the raw bytes of ``dtype``.
      payload_bytes: exact number of bytes that are sent.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def bits(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...


class Manifest(Protocol):
    """What both halves must agree on, and what the plan predicted.

    Attributes:
      split_id: SHA-256 that names the split; equal on both sides or nothing runs.
      inputs: of the edge half, flat.
      crossing: tensors that are sent; empty when the edge computes the outputs.
      outputs: of the whole function, flat.
      network: the fields of the plan's `Network`.
      predicted: seconds of each stage under the names of `StageTimes`, and ``latency_s``.
    """

    @property
    def split_id(self) -> str: ...
    @property
    def inputs(self) -> Sequence[TensorSpec]: ...
    @property
    def crossing(self) -> Sequence[TensorSpec]: ...
    @property
    def outputs(self) -> Sequence[TensorSpec]: ...
    @property
    def network(self) -> Mapping[str, Any]: ...
    @property
    def predicted(self) -> Mapping[str, float]: ...


class ServedSplit(Protocol):
    """The stages of a split, in the order in which one request passes them.

    Attributes:
      manifest: see `Manifest`.
      edge_layers: ``(*inputs) -> codes``, one array per crossing tensor.
      pack: ``codes -> payload``, one 1-D uint8 array per crossing tensor.
      unpack: ``payload -> codes``.
      cloud_outputs: ``codes -> outputs``, flat.
    """

    @property
    def manifest(self) -> Manifest: ...
    @property
    def edge_layers(self) -> Callable[..., Any]: ...
    @property
    def pack(self) -> Callable[..., Any]: ...
    @property
    def unpack(self) -> Callable[..., Any]: ...
    @property
    def cloud_outputs(self) -> Callable[..., Any]: ...


def plan_network(manifest: Manifest) -> Network:
    """Returns the link that the split was planned for.

    Args:
      manifest: of the split.

    Returns:
      The plan's network.

    Raises:
      ArtefactError: the manifest's fields are not those of `Network`.
    """
    try:
        return Network(**manifest.network)
    except TypeError as error:
        raise ArtefactError(
            f"The manifest of split {manifest.split_id[:12]} holds the network fields "
            f"{sorted(manifest.network)}, which do not make a Network ({error}). "
            "Save the split again with this version of autosplit."
        ) from error
