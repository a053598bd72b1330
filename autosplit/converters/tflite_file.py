"""Reads LiteRT files (``.tflite``) with the package tflite, the format's generated schema.

The schema in Python is one small package over flatbuffers; a reader of our own would repeat
its tables of offsets. Running such a file would need TensorFlow; reading it does not.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from autosplit.converters.foreign_file import existing_file, optional_library, reading
from autosplit.converters.stored_graph import StoredGraph, StoredOperation
from autosplit.errors import ArtefactError

KIND = "a LiteRT model"
IDENTIFIER = b"TFL3"


def read_tflite(path: str | os.PathLike[str]) -> StoredGraph:
    """Reads operations and constants of a LiteRT file with one subgraph.

    Kinds of operations are the names of the schema's ``BuiltinOperator``, e.g.
    ``"DEPTHWISE_CONV_2D"``; kernels keep the format's layout: [out, height, width, in],
    depthwise ones [1, height, width, channels].

    Args:
      path: of the file.

    Returns:
      The graph. Constants that are neither floating-point numbers nor integers are left out.

    Raises:
      InputError: there is no such file.
      ArtefactError: the file is truncated or damaged.
      ConversionError: the package tflite is not installed.
    """
    path = existing_file(path, KIND)
    with optional_library(".tflite"):
        import tflite
    with reading(path, KIND):
        content = path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise ArtefactError(
                f"bytes 4 to 8 are {content[4:8]!r}; expected {IDENTIFIER!r}. It is no LiteRT "
                "file, or an empty one."
            )
        return _graph(tflite.Model.GetRootAs(content))


def _graph(model: Any) -> StoredGraph:
    if model.SubgraphsLength() != 1:
        raise ArtefactError(f"it has {model.SubgraphsLength()} subgraphs; expected one.")
    subgraph = model.Subgraphs(0)
    tensors = [subgraph.Tensors(i) for i in range(subgraph.TensorsLength())]
    # Names need not be unique; positions are.
    names = [f"{position}:{tensor.Name().decode()}" for position, tensor in enumerate(tensors)]
    stored = {name: _constant(model, t) for name, t in zip(names, tensors, strict=True)}
    operations = (subgraph.Operators(i) for i in range(subgraph.OperatorsLength()))
    return StoredGraph(
        operations=tuple(_operation(model, operation, names) for operation in operations),
        constants={name: array for name, array in stored.items() if array is not None},
    )


def _constant(model: Any, tensor: Any) -> np.ndarray | None:
    """Returns a tensor's content; None where it is computed, or no number."""
    import tflite

    dtypes = {
        tflite.TensorType.FLOAT16: "<f2",
        tflite.TensorType.FLOAT32: "<f4",
        tflite.TensorType.INT8: "i1",
        tflite.TensorType.INT32: "<i4",
        tflite.TensorType.INT64: "<i8",
        tflite.TensorType.UINT8: "u1",
    }
    buffer = model.Buffers(tensor.Buffer())
    if not buffer.DataLength() or tensor.Type() not in dtypes:
        return None
    shape = [tensor.Shape(axis) for axis in range(tensor.ShapeLength())]
    return buffer.DataAsNumpy().view(dtypes[tensor.Type()]).reshape(shape)


def _operation(model: Any, operation: Any, names: list[str]) -> StoredOperation:
    import tflite

    code = model.OperatorCodes(operation.OpcodeIndex())
    # Codes above 127 stand in a second field, which older files lack.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kinds = {value: name for name, value in vars(tflite.BuiltinOperator).items()}
    inputs = [operation.Inputs(i) for i in range(operation.InputsLength())]
    outputs = [operation.Outputs(i) for i in range(operation.OutputsLength())]
    return StoredOperation(
        kind=kinds[number],
        # -1 stands for an optional input that is left out.
        inputs=tuple("" if position < 0 else names[position] for position in inputs),
        outputs=tuple(names[position] for position in outputs),
    )
