"""Reads ONNX files with the package onnx; nothing beside the file itself is opened."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from autosplit.converters.foreign_file import existing_file, optional_library, reading
from autosplit.converters.stored_graph import StoredGraph, StoredOperation
from autosplit.errors import ArtefactError, ConversionError

KIND = "an ONNX model"


def read_onnx(path: str | os.PathLike[str]) -> StoredGraph:
    """Reads operations and initializers of an ONNX file.

    Args:
      path: of the file.

    Returns:
      The main graph; subgraphs of loops and conditions are not looked at.

    Raises:
      InputError: there is no such file.
      ArtefactError: the file is truncated or damaged.
      ConversionError: it keeps weights in other files, or the package onnx is not installed.
    """
    path = existing_file(path, KIND)
    with optional_library(".onnx"):
        import onnx
    with reading(path, KIND):
        graph = onnx.ModelProto.FromString(path.read_bytes()).graph
        # An empty message is a valid one, so an empty file would pass.
        if not graph.node:
            raise ArtefactError("it holds no operations; expected a network. Download it again.")
        constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
        if len(constants) != len(graph.initializer):
            raise ArtefactError("two initializers have the same name; expected names to differ.")
        return StoredGraph(
            operations=tuple(_operation(node) for node in graph.node), constants=constants
        )


def _operation(node: Any) -> StoredOperation:
    return StoredOperation(
        kind=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        numbers={item.name: item.f for item in node.attribute if item.type == item.FLOAT},
    )


def _array(tensor: Any) -> np.ndarray:
    import onnx.numpy_helper

    # A path out of a file that nobody vouches for must not be followed.
    if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
        raise ConversionError(
            f"the initializer {tensor.name!r} lies in another file; expected all weights in this "
            "one. Save the model again without external data."
        )
    return onnx.numpy_helper.to_array(tensor)
