from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Coding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODING_NONE: _ClassVar[Coding]
    CODING_ZSTD: _ClassVar[Coding]
CODING_NONE: Coding
CODING_ZSTD: Coding

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "dtype", "bits", "payload_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    bits: int
    payload_bytes: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., bits: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "shape", "dtype", "bits", "data", "coding")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CODING_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    bits: int
    data: bytes
    coding: Coding
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., bits: _Optional[int] = ..., data: _Optional[bytes] = ..., coding: _Optional[_Union[Coding, str]] = ...) -> None: ...

class SplitDescription(_message.Message):
    __slots__ = ("split_id", "crossing", "outputs")
    SPLIT_ID_FIELD_NUMBER: _ClassVar[int]
    CROSSING_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    split_id: str
    crossing: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, split_id: _Optional[str] = ..., crossing: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("protocol_version", "split_id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SPLIT_ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    split_id: str
    def __init__(self, protocol_version: _Optional[int] = ..., split_id: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("protocol_version", "splits")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    splits: _containers.RepeatedCompositeFieldContainer[SplitDescription]
    def __init__(self, protocol_version: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[SplitDescription, _Mapping]]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("protocol_version", "split_id", "client_id", "request_id", "tensors", "crc32")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SPLIT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    split_id: str
    client_id: bytes
    request_id: int
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    crc32: int
    def __init__(self, protocol_version: _Optional[int] = ..., split_id: _Optional[str] = ..., client_id: _Optional[bytes] = ..., request_id: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., crc32: _Optional[int] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("protocol_version", "request_id", "outputs", "crc32", "queue_s", "unpack_s", "cloud_s", "batch", "status", "message", "retry_after_s")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    UNPACK_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: int
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    crc32: int
    queue_s: float
    unpack_s: float
    cloud_s: float
    batch: int
    status: int
    message: str
    retry_after_s: float
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., crc32: _Optional[int] = ..., queue_s: _Optional[float] = ..., unpack_s: _Optional[float] = ..., cloud_s: _Optional[float] = ..., batch: _Optional[int] = ..., status: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...
