"""Mutated messages: each is refused in words, or gives exactly what was sent."""

import random
import subprocess
import sys
import tracemalloc
import types
import zlib

import hypothesis
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import ProtocolError
from autosplit.execution.manifest import TensorSpec
from autosplit.serving import codec
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.coding import Coding

SPECS = (
    TensorSpec(name="relu", shape=(40, 60), dtype="uint8", bits=4, payload_bytes=1200),
    TensorSpec(name="mean", shape=(5, 2), dtype="float32", bits=32, payload_bytes=40),
)
MANIFEST = types.SimpleNamespace(split_id="ab" * 32, crossing=SPECS, outputs=SPECS[1:])
PAYLOAD = (np.tile(np.arange(40, dtype=np.uint8), 30), np.arange(40, dtype=np.uint8))
OUTPUTS = (np.arange(10, dtype=np.float32).reshape(5, 2),)
CLIENT = bytes(range(16))

MESSAGES = [
    codec.encode_request(MANIFEST, PAYLOAD, CLIENT, 77, coding).SerializeToString()
    for coding in (None, Coding(zstd_level=3))
]
ANSWER = codec.encode_response(
    MANIFEST, 77, OUTPUTS, queue_s=0.1, unpack_s=0.2, cloud_s=0.3
).SerializeToString()
LIMIT_BYTES = codec.message_limit_bytes(SPECS)

# Python's own objects: the data read and decoded, and 40 times the 4 KB of a message's fields
# that are no data, in the worst case all unknown fields of two bytes.
ALLOCATION_LIMIT_BYTES = 3 * LIMIT_BYTES + 40 * (LIMIT_BYTES - 1240) + 100_000


def parsed(data):
    """Returns the request in some bytes; None where they are no message, which gRPC answers."""
    try:
        return pb2.InferRequest.FromString(data)
    except DecodeError:
        return None


def refusal_or_payload(request):
    try:
        return None, codec.decode_request(MANIFEST, request)
    except ProtocolError as error:
        return str(error), None


def check_request(data):
    """Whatever passes is whole, and with a forged checksum it still has the sizes agreed on."""
    request = parsed(data)
    if request is None:
        return
    refusal, payload = refusal_or_payload(request)
    if payload is not None:
        for got, sent in zip(payload, PAYLOAD, strict=True):
            np.testing.assert_array_equal(got, sent)
        return
    assert len(refusal) < 2000
    request.crc32 = zlib.crc32(b"".join(tensor.data for tensor in request.tensors))
    check_sizes(request.SerializeToString())


def check_sizes(data):
    """Whatever passes has the sizes that were agreed on; returns whether it passed."""
    refusal, payload = refusal_or_payload(pb2.InferRequest.FromString(data))
    if payload is not None:
        assert [array.nbytes for array in payload] == [spec.payload_bytes for spec in SPECS]
    return refusal is None


def check_answer(data):
    try:
        outputs = codec.decode_response(MANIFEST, pb2.InferResponse.FromString(data))
    except (DecodeError, ProtocolError):
        return
    np.testing.assert_array_equal(outputs[0], OUTPUTS[0])


def mutated(data, draw):
    """Changes, cuts, repeats or inserts at some places.

    Args:
      data: a message.
      draw: ``draw(n)`` is below n.
    """
    data = bytearray(data)
    for _ in range(1 + draw(3)):
        # The fields other than the long data lie at both ends; half of the changes go there.
        place = draw(len(data) + 1) if draw(2) else draw(min(200, len(data) + 1))
        length = 1 + draw(8)
        change = draw(6)
        if change == 0 and place < len(data):
            data[place] ^= 1 << draw(8)
        elif change == 1 and place < len(data):
            data[place] = draw(256)
        elif change == 2:
            del data[place : place + length]
        elif change == 3:
            data[place:place] = data[place : place + length] * (1 + draw(50))
        elif change == 4:
            data[place:place] = bytes(draw(256) for _ in range(length))
        elif change == 5:
            data = data[:place]
    return bytes(data)


def altered(data, draw):
    """Changes one field of a request, so that all else passes; the checksum follows the data."""
    request = pb2.InferRequest.FromString(data)
    tensor = request.tensors[draw(2)]
    number = draw(2**draw(64) + 1)
    change = draw(9)
    if change < 4:  # most often what is decoded
        tensor.data = mutated(tensor.data or b"0", draw)
        tensor.coding = draw(2) if change else tensor.coding
        request.crc32 = zlib.crc32(b"".join(one.data for one in request.tensors))
    elif change == 4:
        tensor.shape[draw(len(tensor.shape))] = number // 2
    elif change == 5:
        tensor.bits = number % 2**32
    elif change == 6:
        tensor.name, tensor.dtype = ("mean", "relu")[draw(2)], ("uint8", "float32")[draw(2)]
    elif change == 7:
        request.client_id = mutated(request.client_id, draw)
    else:
        request.tensors.extend([tensor] * draw(3))
        del request.tensors[draw(len(request.tensors)) :]
    return request.SerializeToString()


@given(st.data())
@hypothesis.settings(max_examples=300)
def test_mutated_messages_are_refused_or_whole(data):
    def draw(below):
        return data.draw(st.integers(0, below - 1))

    message = data.draw(st.sampled_from(MESSAGES))
    check_request(mutated(message, draw))
    check_sizes(altered(message, draw))
    check_answer(mutated(ANSWER, draw))


@given(st.binary(max_size=300))
@hypothesis.settings(max_examples=200)
def test_noise_is_refused(data):
    request = parsed(data)
    assert request is None or refusal_or_payload(request)[1] is None


@pytest.mark.parametrize(
    "flood",
    [
        b"\x78\x01" * (LIMIT_BYTES // 2),  # an unknown field, again and again
        b"\x2a\x00" * (LIMIT_BYTES // 2),  # empty tensors
        MESSAGES[0] + b"\x78\x01" * ((LIMIT_BYTES - len(MESSAGES[0])) // 2),
        MESSAGES[1] + b"\x78\x01" * ((LIMIT_BYTES - len(MESSAGES[1])) // 2),
        pb2.InferRequest(
            protocol_version=2,
            split_id="ab" * 32,
            client_id=CLIENT,
            tensors=[pb2.Tensor(name="relu", shape=[1] * (LIMIT_BYTES // 2)), pb2.Tensor()],
        ).SerializeToString(),
    ],
)  # fmt: skip
def test_no_flood_makes_the_decoder_allocate_beyond_its_limit(flood):
    request = parsed(flood)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            codec.decode_request(MANIFEST, request)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < ALLOCATION_LIMIT_BYTES


@pytest.mark.heavy
def test_a_hundred_thousand_mutated_messages():
    draw = random.Random(0).randrange
    passed = 0
    tracemalloc.start()
    try:
        for index in range(25_000):
            message = MESSAGES[index % 2]
            check_request(mutated(message, draw))
            check_answer(mutated(ANSWER, draw))
            passed += check_sizes(altered(message, draw))
            passed += check_sizes(altered(message, draw))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < ALLOCATION_LIMIT_BYTES
    assert 2_500 < passed < 40_000  # neither all too harmless nor all too harmful


@pytest.mark.heavy
def test_atheris_finds_no_crash(tmp_path):
    pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris")
    program = (
        "import atheris, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "with atheris.instrument_imports(include=['autosplit.serving']):\n"
        "    from autosplit.serving import codec\n"
        "from tests.serving import test_codec_fuzz as fuzz\n"
        "atheris.Setup(sys.argv, fuzz.check_request)\n"
        "atheris.Fuzz()\n"
    )
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, message in enumerate(MESSAGES):
        (corpus / str(index)).write_bytes(message)
    command = [sys.executable, "-c", program, "-runs=100000", str(corpus)]
    subprocess.run(command, check=True, cwd=tmp_path)
