
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import TensorSpec
from autosplit.serving import codec
from autosplit.serving import split_inference_pb2 as pb2

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from(["bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32"])


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


def over_the_wire(messages):
    return [pb2.Tensor.FromString(message.SerializeToString()) for message in messages]


@given(named_values())
def test_values_survive_the_wire(case):
    specs, values = case
    received = codec.decode_values(specs, over_the_wire(codec.encode_values(specs, values)))
    for spec, sent, got in zip(specs, values, received, strict=True):
        assert got.shape == spec.shape
        assert got.dtype == jnp.dtype(spec.dtype)
        assert got.tobytes() == sent.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_payloads_survive_the_wire(blobs):
    specs = [
        TensorSpec(
            name=f"t{i}", shape=(2 * len(blob),), dtype="uint8", bits=4, payload_bytes=len(blob)
        )
        for i, blob in enumerate(blobs)
    ]
    payload = [np.frombuffer(blob, np.uint8) for blob in blobs]
    received = codec.decode_payload(specs, over_the_wire(codec.encode_payload(specs, payload)))
    assert [array.tobytes() for array in received] == blobs


@given(named_values())
def test_no_message_is_longer_than_its_limit(case):
    specs, values = case
    tensors = codec.encode_values(specs, values)
    request = pb2.InferRequest(
        protocol_version=1, split_id="f" * 64, request_id=2**64 - 1, tensors=tensors
    )
    assert request.ByteSize() <= codec.message_limit_bytes(specs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("shape", [6, 4]),
        ("dtype", "int8"),
        ("bits", 8),
        ("data", bytes(11)),
        ("data", bytes(13)),
        ("data", b""),
    ],
)
def test_a_tensor_that_differs_from_its_spec_is_refused(split, field, value):
    spec = split.manifest.crossing[0]
    good = {"name": "relu", "shape": [4, 6], "dtype": "uint8", "bits": 4, "data": bytes(12)}
    codec.decode_payload([spec], [pb2.Tensor(**good)])
    what = "number of bytes" if field == "data" else field
    for decode in (codec.decode_payload, codec.decode_values):
        with pytest.raises(ProtocolError, match=f"has {what} .*; expected .*same saved split"):
            decode([spec], [pb2.Tensor(**{**good, field: value})])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_tensors_is_refused(split, count):
    specs = split.manifest.crossing
    with pytest.raises(ProtocolError, match=rf"Found {count} .*; expected 2: \['relu', 'mean'\]"):
        codec.decode_payload(specs, [pb2.Tensor()] * count)
    with pytest.raises(ProtocolError, match=f"Found {count} .*; expected 2"):
        codec.encode_payload(specs, [np.zeros(12, np.uint8)] * count)


def test_tensors_in_another_order_are_refused(split, images):
    specs = split.manifest.crossing
    messages = codec.encode_payload(specs, split.pack(split.edge_layers(images)))
    with pytest.raises(ProtocolError, match="name 'mean'; expected 'relu'"):
        codec.decode_payload(specs, messages[::-1])


@pytest.mark.parametrize(
    "array", [np.zeros((4, 3), np.uint8), np.zeros(12, np.int8), np.zeros(13, np.uint8)]
)
def test_only_the_bytes_of_pack_are_sent(split, array):
    with pytest.raises(ProtocolError, match="'relu'"):
        codec.encode_payload(split.manifest.crossing[:1], [array])


@pytest.mark.parametrize("value", [np.zeros(5, np.int32), np.zeros(4, np.float32), np.int32(0)])
def test_only_values_of_the_manifest_are_sent(split, value):
    with pytest.raises(ProtocolError, match=r"'scores' is .*; the manifest says int32\(4,\)"):
        codec.encode_values(split.manifest.outputs[:1], [value])
