"""Operations and constants of a model file, whatever the framework that wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from autosplit.errors import ConversionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredOperation:
    """One operation of a file.

    Attributes:
      kind: as the file's format names it, e.g. ``"Conv"``.
      inputs: names of tensors, in the format's order; "" for an optional one left out.
      outputs: names of tensors.
      numbers: attributes that are floating-point numbers, by name.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredGraph:
    """A network as a file describes it.

    Attributes:
      operations: in the file's order; an operation stands after those that it needs.
      constants: arrays that the file holds, by name of the tensor.
    """

    operations: tuple[StoredOperation, ...]
    constants: Mapping[str, np.ndarray]

    def of_kind(self, *kinds: str) -> tuple[StoredOperation, ...]:
        """Returns the operations of the given kinds, in order."""
        return tuple(operation for operation in self.operations if operation.kind in kinds)

    def constant(self, name: str) -> np.ndarray:
        """Returns a constant.

        Raises:
          ConversionError: the tensor is not stored but computed.
        """
        if name not in self.constants:
            raise ConversionError(
                f"the tensor {name!r} is not stored in the file; expected a constant there, as a "
                "network that was saved for inference has it."
            )
        return self.constants[name]


def require_all_used(graph: StoredGraph, used: Collection[str], largest_rest: int) -> None:
    """Raises unless every weight of a graph was used.

    What shapes, anchors and limits need is stored like weights, but is small.

    Args:
      graph: of the file.
      used: names of the constants that were converted.
      largest_rest: elements of the largest constant that is no weight.

    Raises:
      ConversionError: names the constants that are left.
    """
    rest = {name: array for name, array in graph.constants.items() if name not in used}
    left = [f"{name} {array.shape}" for name, array in rest.items() if array.size > largest_rest]
    if left:
        raise ConversionError(
            f"{len(left)} constants of the file are left over: {', '.join(left[:10])}"
            f"{', ...' if len(left) > 10 else ''}; expected every weight to have a place in the "
            "model. Check the name of the model."
        )
