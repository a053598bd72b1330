"""Reads pickles of PyTorch tensors without PyTorch and without running what they ask for."""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from autosplit.errors import ArtefactError, ConversionError

# Little-endian: `require_little_endian` refuses the other order.
STORAGE_DTYPES: dict[str, np.dtype] = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "BoolStorage": np.dtype("?"),
    "ByteStorage": np.dtype("u1"),
    "CharStorage": np.dtype("i1"),
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
    "ShortStorage": np.dtype("<i2"),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class StorageType(NamedTuple):
    """Stands for a class such as ``torch.FloatStorage``; cannot be called."""

    dtype: np.dtype


class Storage(NamedTuple):
    """One flat buffer of a file.

    Attributes:
      key: its name in the file.
      dtype: of its elements.
      elements: how many there are.
      content: its bytes where the pickle itself holds them, else None.
    """

    key: str
    dtype: np.dtype
    elements: int
    content: bytes | None = None


class TensorView(NamedTuple):
    """A tensor as the pickle describes it: a strided window on a storage.

    Attributes:
      storage: the buffer.
      offset: first element.
      shape: elements along each axis.
      stride: step along each axis, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, numbers, text and tensors; refuses all else.

    A pickle is a program that may call whatever `find_class` hands out. Here that
    is ``OrderedDict``, which cannot be altered, and bound methods, which cannot be
    either; what they return are tuples. So a hostile file can at most be wrong.

    Attributes:
      storages: every `Storage` that was met, by key.
    """

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a global that tensors need.

        Raises:
          ConversionError: the pickle asks for any other global.
        """
        if module == "torch" and name in STORAGE_DTYPES:
            return StorageType(STORAGE_DTYPES[name])
        allowed: dict[tuple[str, str], Callable] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self._rebuild_parameter,
            ("torch.storage", "_load_from_bytes"): self._load_from_bytes,
        }
        if (module, name) not in allowed:
            raise ConversionError(
                f"the checkpoint asks to run {module}.{name}; expected tensors in dictionaries "
                "and nothing else. Save model.state_dict(), not the model, and treat the file "
                "as hostile if you did not make it."
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage that a persistent identifier names."""
        tag, storage_type, key, _location, elements, *view = pid
        if tag != "storage" or not isinstance(storage_type, StorageType) or any(view):
            raise ConversionError(
                f"the checkpoint refers to {pid!r}; expected a plain storage. "
                "Save it again with PyTorch 1.6 or later."
            )
        if not isinstance(key, str) or not isinstance(elements, int) or elements < 0:
            raise ArtefactError(f"the storage {key!r} has {elements!r} elements: damaged file.")
        return self.storages.setdefault(key, Storage(key, storage_type.dtype, elements))

    def _rebuild_tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, *_autograd: Any
    ) -> TensorView:
        if not isinstance(storage, Storage):
            raise ConversionError(f"a tensor is built on {storage!r}; expected a storage.")
        return TensorView(storage, offset, tuple(shape), tuple(stride))

    def _rebuild_parameter(self, tensor: Any, *_autograd: Any) -> Any:
        return tensor

    def _load_from_bytes(self, content: bytes) -> Storage:
        """Reads a storage that was pickled by itself, without ``torch.save``."""
        storage, contents = read_legacy(io.BytesIO(content))
        if not isinstance(storage, Storage):
            raise ConversionError(f"an embedded file holds {storage!r}; expected a storage.")
        return storage._replace(content=contents[storage.key])


def is_legacy(stream: io.BytesIO) -> bool:
    """Tells whether ``torch.save`` without zip wrote the stream; leaves it at its start."""
    found = pickle.dumps(LEGACY_MAGIC, protocol=2)
    matches = stream.read(len(found)) == found
    stream.seek(0)
    return matches


def read_legacy(stream: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    """Reads what ``torch.save`` wrote before it used zip.

    The layout is five pickles (magic number, protocol, system, object, storage
    keys), then for every key the number of elements as int64 and the elements.

    Args:
      stream: at the start of the file.

    Returns:
      The object with `TensorView` in place of tensors, and the storages' bytes by key.

    Raises:
      ArtefactError: the file is truncated or of another version.
      ConversionError: it holds more than tensors.
    """
    magic, protocol, system = (TensorUnpickler(stream).load() for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL:
        raise ArtefactError(f"magic number {magic!r}, protocol {protocol!r}: not of torch.save.")
    require_little_endian("little" if system["little_endian"] else "big")
    unpickler = TensorUnpickler(stream)
    value = unpickler.load()
    contents = {}
    for key in TensorUnpickler(stream).load():
        storage = unpickler.storages[key]
        elements = int.from_bytes(stream.read(8), "little", signed=True)
        content = stream.read(storage.elements * storage.dtype.itemsize)
        if elements != storage.elements:
            raise ArtefactError(
                f"storage {key!r} has {elements} elements; expected {storage.elements}."
            )
        contents[key] = content
    return value, contents


def require_little_endian(order: str) -> None:
    """Raises ConversionError unless ``order`` is ``"little"``."""
    if order != "little":
        raise ConversionError(
            f"the checkpoint has {order}-endian numbers; expected little-endian ones. "
            "Load it in PyTorch and save it on a little-endian machine."
        )


def to_array(tensor: TensorView, contents: dict[str, bytes]) -> np.ndarray:
    """Copies a tensor out of its storage.

    Args:
      tensor: as the unpickler returned it.
      contents: bytes of the file's storages by key.

    Returns:
      A contiguous array of the tensor's shape and the storage's dtype.

    Raises:
      ArtefactError: the storage is missing or too short, or the window leaves it.

    >>> storage = Storage("0", np.dtype("<i2"), 3, content=bytes([1, 0, 2, 0, 3, 0]))
    >>> to_array(TensorView(storage, 1, (2,), (1,)), {}).tolist()
    [2, 3]
    """
    storage, offset, shape, stride = tensor
    content = contents[storage.key] if storage.content is None else storage.content
    size = storage.elements * storage.dtype.itemsize
    if len(content) != size:
        raise ArtefactError(
            f"storage {storage.key!r} has {len(content)} bytes; expected {size}: truncated."
        )
    count = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    # `count` also bounds the memory that a zero stride could ask for.
    if min((offset, *shape, *stride)) < 0 or count > storage.elements:
        raise ArtefactError(f"shape {shape} does not fit storage {storage.key!r}: damaged file.")
    if count and last >= storage.elements:
        raise ArtefactError(f"shape {shape} leaves storage {storage.key!r}: damaged file.")
    if not count:
        return np.zeros(shape, storage.dtype)
    flat = np.frombuffer(content, storage.dtype)[offset:]
    strides = [s * storage.dtype.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False).copy()
