import struct
import tracemalloc
import types
import zlib

import grpc
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import TensorSpec
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.coding import Coding

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from(["bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32"])
CODINGS = st.sampled_from([None, Coding(), Coding(zstd_level=-1), Coding(zstd_level=3)])
CLIENT = bytes(range(16))
TIMES = {"queue_s": 0.0, "unpack_s": 0.0, "cloud_s": 0.0}


def a_manifest(crossing=(), outputs=()):
    return types.SimpleNamespace(split_id="ab" * 32, crossing=crossing, outputs=outputs)


@st.composite
def named_values(draw):
    specs, values = [], []
    for index in range(draw(st.integers(0, 3))):
        shape, dtype = draw(SHAPES), draw(DTYPES)
        itemsize = jnp.dtype(dtype).itemsize
        count = int(np.prod(shape, dtype=int))
        raw = draw(st.binary(min_size=count * itemsize, max_size=count * itemsize))
        raw = bytes(byte & 1 for byte in raw) if dtype == "bool" else raw
        values.append(np.frombuffer(raw, jnp.dtype(dtype)).reshape(shape))
        name = draw(st.text(max_size=5)) + str(index)
        specs.append(
            TensorSpec(name=name, shape=shape, dtype=dtype, bits=32, payload_bytes=len(raw))
        )
    return specs, values


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def checksum(tensors):
    return zlib.crc32(b"".join(tensor.data for tensor in tensors))


@pytest.fixture
def request_message(split, images):
    payload = split.pack(split.edge_layers(images))
    return codec.encode_request(split.manifest, payload, CLIENT, 5)


@given(named_values(), CODINGS)
def test_values_survive_the_wire(case, coding):
    specs, values = case
    manifest = a_manifest(outputs=specs)
    sent = codec.encode_response(manifest, 3, values, **TIMES, coding=coding)
    received = codec.decode_response(manifest, over_the_wire(sent))
    for spec, value, got in zip(specs, values, received, strict=True):
        assert got.shape == spec.shape
        assert got.dtype == jnp.dtype(spec.dtype)
        assert got.tobytes() == value.tobytes()


@given(st.lists(st.binary(max_size=20) | st.just(bytes(500)), max_size=4), CODINGS)
def test_payloads_survive_the_wire(blobs, coding):
    specs = [
        TensorSpec(
            name=f"t{i}", shape=(2 * len(blob),), dtype="uint8", bits=4, payload_bytes=len(blob)
        )
        for i, blob in enumerate(blobs)
    ]
    manifest = a_manifest(crossing=specs)
    payload = [np.frombuffer(blob, np.uint8) for blob in blobs]
    sent = codec.encode_request(manifest, payload, CLIENT, 2**64 - 1, coding)
    received = codec.decode_request(manifest, over_the_wire(sent))
    assert [array.tobytes() for array in received] == blobs
    assert not any(array.flags.writeable for array in received)


@given(named_values(), st.text())
def test_no_message_is_longer_than_its_limit(case, words):
    specs, values = case
    limit_bytes = codec.message_limit_bytes(specs)
    manifest = a_manifest(crossing=specs, outputs=specs)
    payload = [np.frombuffer(value.tobytes(), np.uint8) for value in values]
    largest = 2**64 - 1
    request = codec.encode_request(manifest, payload, CLIENT, largest)
    times = dict.fromkeys(TIMES, 1.5)
    response = codec.encode_response(manifest, largest, values, **times, batch=2**31)
    refusal = codec.encode_refusal(largest, grpc.StatusCode.UNAVAILABLE, words * 1000, 0.1)
    described = protocol.describe([manifest])
    for message in (request, response, refusal):
        assert message.ByteSize() <= limit_bytes
    both = codec.message_limit_bytes([*specs, *specs])
    assert described.ByteSize() <= both


def test_coded_data_is_shorter_and_checked_by_the_same_sum(split):
    spec = TensorSpec(name="a", shape=(4000,), dtype="uint8", bits=8, payload_bytes=4000)
    manifest = a_manifest(crossing=[spec])
    plain, coded = (
        codec.encode_request(manifest, [np.zeros(4000, np.uint8)], CLIENT, 1, coding)
        for coding in (None, Coding(zstd_level=1))
    )
    assert coded.tensors[0].coding == pb2.CODING_ZSTD
    assert coded.ByteSize() < plain.ByteSize() / 10
    assert [coded.crc32, plain.crc32] == [checksum(one.tensors) for one in (coded, plain)]


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("name", "other", "name"),
        ("shape", [6, 4], "shape"),
        ("shape", [24], "rank"),
        ("dtype", "int8", "dtype"),
        ("bits", 8, "bits"),
        ("data", bytes(11), "11 bytes"),
        ("data", bytes(13), "number of bytes 13"),
        ("data", b"", "0 bytes"),
        ("coding", 1, "12 bytes; expected fewer than 12"),
        ("coding", 9, "coding 9"),
    ],
)
def test_a_tensor_that_differs_from_its_spec_is_refused(split, field, value, what):
    spec = split.manifest.crossing[0]
    manifest = a_manifest(crossing=[spec], outputs=[spec])
    good = {"name": "relu", "shape": [4, 6], "dtype": "uint8", "bits": 4, "data": bytes(12)}

    def messages(tensor):
        common = {"protocol_version": 2, "crc32": zlib.crc32(tensor.data)}
        yield codec.decode_request, pb2.InferRequest(
            **common, split_id=manifest.split_id, client_id=CLIENT, tensors=[tensor]
        )
        yield codec.decode_response, pb2.InferResponse(**common, outputs=[tensor])

    decode, request = next(iter(messages(pb2.Tensor(**good))))
    decode(manifest, request)
    for decode, message in messages(pb2.Tensor(**{**good, field: value})):
        with pytest.raises(ProtocolError, match=rf"Tensor 'relu'.*{what}"):
            decode(manifest, message)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_tensors_is_refused(split, request_message, count):
    tensor = pb2.Tensor.FromString(request_message.tensors[0].SerializeToString())
    del request_message.tensors[:]
    request_message.tensors.extend([tensor] * count)
    with pytest.raises(ProtocolError, match=rf"Found {count} .*; expected 2: \['relu', 'mean'\]"):
        codec.decode_request(split.manifest, request_message)
    payload = [np.zeros(12, np.uint8)] * count
    with pytest.raises(ProtocolError, match=f"Found {count} .*; expected 2"):
        codec.encode_request(split.manifest, payload, CLIENT, 1)


def test_tensors_in_another_order_are_refused(split, request_message):
    other = pb2.InferRequest()
    other.CopyFrom(request_message)
    del other.tensors[:]
    other.tensors.extend(request_message.tensors[::-1])
    with pytest.raises(ProtocolError, match="rank 1; expected 2"):
        codec.decode_request(split.manifest, other)


@pytest.mark.parametrize(
    ("field", "value", "kind", "words"),
    [
        ("protocol_version", 1, protocol.UnknownVersionError, "version 1; .* only 2"),
        ("split_id", "cd" * 32, protocol.UnknownSplitError, "names split 'cdcd"),
        ("client_id", b"me", ProtocolError, "2 bytes; expected 16"),
        ("crc32", 1, protocol.ChecksumError, "says 00000001"),
    ],
)
def test_a_request_with_a_wrong_field_is_refused(split, request_message, field, value, kind, words):
    codec.decode_request(split.manifest, request_message)
    setattr(request_message, field, value)
    with pytest.raises(kind, match=words):
        codec.decode_request(split.manifest, request_message)


def test_every_changed_bit_of_the_data_is_noticed(split, request_message):
    whole = request_message.tensors[1].data
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        request_message.tensors[1].data = bytes(changed)
        with pytest.raises(protocol.ChecksumError):
            codec.decode_request(split.manifest, request_message)


def test_a_refusal_is_not_decoded_as_outputs(split):
    refusal = codec.encode_refusal(5, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 0.25)
    assert (refusal.request_id, refusal.status, refusal.retry_after_s) == (5, 8, 0.25)
    with pytest.raises(ProtocolError, match="refused request 5 with status 8: 'full'"):
        codec.decode_response(split.manifest, refusal)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 3), np.uint8), np.zeros(12, np.int8), np.zeros(13, np.uint8)]
)
def test_only_the_bytes_of_pack_are_sent(split, array):
    manifest = a_manifest(crossing=split.manifest.crossing[:1])
    with pytest.raises(ProtocolError, match="'relu'"):
        codec.encode_request(manifest, [array], CLIENT, 1)


@pytest.mark.parametrize("value", [np.zeros(5, np.int32), np.zeros(4, np.float32), np.int32(0)])
def test_only_values_of_the_manifest_are_sent(split, value):
    manifest = a_manifest(outputs=split.manifest.outputs[:1])
    with pytest.raises(ProtocolError, match=r"'scores' is .*; the manifest says int32\(4,\)"):
        codec.encode_response(manifest, 1, [value], **TIMES)


def bomb(size_bytes, window_log=None):
    """Returns a zstd frame that says it holds ``size_bytes`` zeros: one repeated byte."""
    if window_log is None:  # one segment: the content's size is the window's
        header = struct.pack("<IBQ", 0xFD2FB528, 0b1110_0000, size_bytes)
    else:
        header = struct.pack("<IBBQ", 0xFD2FB528, 0b1100_0000, (window_log - 10) << 3, size_bytes)
    blocks, left = b"", size_bytes
    while left and len(blocks) < 400:
        part = min(left, 2**17)
        left -= part
        blocks += struct.pack("<I", (part << 3) | 0b010 | (not left))[:3] + b"\0"
    return header + blocks


@pytest.mark.parametrize("frame", [bomb(2**40), bomb(4001), bomb(4000, 31), bomb(4000)[:-1]])
def test_a_frame_that_asks_for_more_memory_is_refused_before_it_is_given(frame):
    spec = TensorSpec(name="a", shape=(4000,), dtype="uint8", bits=8, payload_bytes=4000)
    manifest = a_manifest(crossing=[spec])
    request = codec.encode_request(manifest, [np.zeros(4000, np.uint8)], CLIENT, 1)
    request.tensors[0].coding = pb2.CODING_ZSTD
    request.tensors[0].data = bomb(4000)
    request.crc32 = checksum(request.tensors)
    np.testing.assert_array_equal(codec.decode_request(manifest, request), 0)
    request.tensors[0].data = frame
    request.crc32 = checksum(request.tensors)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="'a': The data"):
            codec.decode_request(manifest, request)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50_000
