"""Lossless coding of what is sent: zstd, where it saves more time on the link than it takes.

Whether it does depends on the tensor (a 4-bit ReLU output with many zeros shrinks, a dense
one hardly), on the level and on the link, so it is measured on tensors of the split itself:

    time = sent_bytes / bytes_per_s + encode_s + decode_s

Decoding is timed on the machine that chooses, which is the edge: the slower one as a rule,
so coding is judged too harshly rather than too kindly.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import ArrayLike

from autosplit.errors import InputError, ProtocolError
from autosplit.serving import split_inference_pb2 as pb2

ZSTD_LEVELS = (-1, 1, 3, 6)
"""Levels that are tried; lower ones are faster.

On tensors of MobileNet-v2 they come within 5 points of the size that an ideal coder of single
levels would reach, or below it (``configs/codec_speed.py``): an entropy coder of our own would
not pay.
"""

_REPEATS = 5
_SMALLEST_WINDOW_BYTES = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coding:
    """How the data of a tensor is coded.

    Attributes:
      zstd_level: of the encoder; None sends the data as it is.
    """

    zstd_level: int | None = None


AS_IS = Coding()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodingCost:
    """What a coding takes and gives, per request.

    Attributes:
      coding: which.
      sent_bytes: mean over the samples; a tensor that would grow is sent as it is.
      encode_s, decode_s: median over the repetitions of the mean over the samples.
    """

    coding: Coding
    sent_bytes: float
    encode_s: float
    decode_s: float

    def time_s(self, bytes_per_s: float) -> float:
        """Returns the seconds from packed tensors on one side to packed tensors on the other."""
        return self.sent_bytes / bytes_per_s + self.encode_s + self.decode_s


def encode(data: bytes, coding: Coding) -> tuple[bytes, pb2.Coding]:
    """Codes data without loss; returns it as it is where coding would not make it shorter.

    >>> coded, kind = encode(bytes(1000), Coding(zstd_level=1))
    >>> len(coded) < 100, kind == pb2.CODING_ZSTD
    (True, True)

    Args:
      data: of one tensor.
      coding: how.

    Returns:
      What is sent, and its kind for the message.
    """
    if coding.zstd_level is not None:
        compressor = zstandard.ZstdCompressor(level=coding.zstd_level, write_checksum=False)
        coded = compressor.compress(data)
        if len(coded) < len(data):
            return coded, pb2.CODING_ZSTD
    return data, pb2.CODING_NONE


def decode(data: bytes, kind: int, size_bytes: int) -> bytes:
    """Returns what `encode` was given; allocates nothing before the sizes are known to fit.

    >>> decode(*encode(b"zero " * 100, Coding(zstd_level=3)), 500)[:5]
    b'zero '

    Args:
      data: as received.
      kind: ``Tensor.coding``.
      size_bytes: exact size of the decoded data.

    Returns:
      ``size_bytes`` bytes.

    Raises:
      ProtocolError: an unknown kind, another size, damaged data, or more data after it.
    """
    if kind == pb2.CODING_NONE:
        if len(data) != size_bytes:
            raise ProtocolError(_wrong_size(len(data), size_bytes))
        return data
    if kind != pb2.CODING_ZSTD:
        raise ProtocolError(
            f"The data has coding {kind}; expected one of {sorted(pb2.Coding.values())}. "
            "Run the same version of autosplit on edge and cloud."
        )
    if len(data) >= size_bytes:  # the encoder sends such data as it is
        raise ProtocolError(_wrong_size(len(data), size_bytes, "fewer than "))
    try:
        _check_frame(data, size_bytes)
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ProtocolError(
            f"The data is no whole zstd frame ({error}). Send the request again."
        ) from error


def choose_coding(samples: Sequence[Sequence[ArrayLike]], bytes_per_s: float) -> Coding:
    """Returns the coding with which requests like the samples arrive soonest.

    >>> zeros, noise = np.zeros(9999, np.uint8), np.random.default_rng(0).bytes(9999)
    >>> choose_coding([[zeros]], bytes_per_s=1e5) == AS_IS
    False
    >>> choose_coding([[np.frombuffer(noise, np.uint8)]], bytes_per_s=1e5) == AS_IS
    True

    Args:
      samples: payloads of `Split.edge`, one per request.
      bytes_per_s: rate of the link.

    Returns:
      `AS_IS`, unless zstd saves more time on the link than both ends spend on it.

    Raises:
      InputError: no samples, or a rate that is not above 0.
    """
    return fastest_coding(measure_codings(samples), bytes_per_s).coding


def measure_codings(
    samples: Sequence[Sequence[ArrayLike]], levels: Sequence[int] = ZSTD_LEVELS
) -> tuple[CodingCost, ...]:
    """Returns what each coding takes and gives on the samples; `AS_IS` comes first.

    Args:
      samples: payloads of `Split.edge`, one per request.
      levels: of zstd, to try.

    Returns:
      One cost per coding, for `fastest_coding` at any rate.

    Raises:
      InputError: no samples.
    """
    if not samples:
        raise InputError("No samples to measure codings on; expected payloads of at least one run.")
    blobs = [[np.asarray(array).tobytes() for array in payload] for payload in samples]
    total_bytes = sum(len(blob) for payload in blobs for blob in payload)
    as_is = CodingCost(
        coding=AS_IS, sent_bytes=total_bytes / len(blobs), encode_s=0.0, decode_s=0.0
    )
    return as_is, *(_measure(blobs, Coding(zstd_level=level)) for level in levels)


def fastest_coding(costs: Sequence[CodingCost], bytes_per_s: float) -> CodingCost:
    """Returns the cost with the shortest time at a rate; the first of equals.

    >>> plain = CodingCost(coding=AS_IS, sent_bytes=1000, encode_s=0, decode_s=0)
    >>> coded = CodingCost(
    ...     coding=Coding(zstd_level=1), sent_bytes=500, encode_s=1e-3, decode_s=1e-3
    ... )
    >>> [fastest_coding((plain, coded), rate).coding.zstd_level for rate in (1e5, 1e6)]
    [1, None]

    Args:
      costs: from `measure_codings`.
      bytes_per_s: rate of the link.

    Raises:
      InputError: the rate is not above 0.
    """
    if not bytes_per_s > 0 or math.isinf(bytes_per_s):
        raise InputError(
            f"bytes_per_s is {bytes_per_s}; expected a finite rate above 0. Measure the link first."
        )
    return min(costs, key=lambda cost: cost.time_s(bytes_per_s))


def _check_frame(data: bytes, size_bytes: int) -> None:
    """Refuses a frame whose own header asks for other memory than the tensor takes."""
    frame = zstandard.get_frame_parameters(data)
    if frame.content_size != size_bytes:
        raise ProtocolError(_wrong_size(frame.content_size, size_bytes))
    if frame.window_size > max(size_bytes, _SMALLEST_WINDOW_BYTES) or frame.dict_id:
        raise ProtocolError(
            f"The data is a zstd frame with a window of {frame.window_size} bytes and dictionary "
            f"{frame.dict_id}; expected at most {size_bytes} bytes and none. Encode it with "
            "`coding.encode`."
        )


def _wrong_size(found: int, expected: int, relation: str = "") -> str:
    return (
        f"The data has {found} bytes; expected {relation}{expected}. Start edge and cloud from "
        "the same saved split."
    )


def _measure(blobs: Sequence[Sequence[bytes]], coding: Coding) -> CodingCost:
    flat = [blob for payload in blobs for blob in payload]
    encode_s, coded = _median_s(lambda: [encode(blob, coding) for blob in flat])
    sent = [(data, kind, len(blob)) for (data, kind), blob in zip(coded, flat, strict=True)]
    decode_s, _ = _median_s(lambda: [decode(data, kind, size) for data, kind, size in sent])
    return CodingCost(
        coding=coding,
        sent_bytes=sum(len(data) for data, _ in coded) / len(blobs),
        encode_s=encode_s / len(blobs),
        decode_s=decode_s / len(blobs),
    )


def _median_s(run: Callable[[], Any]) -> tuple[float, Any]:
    times, result = [], None
    for _ in range(_REPEATS):
        started_s = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times), result
