"""The prices of cloud-only: what one request costs when the inputs are sent as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autosplit.graph import LayerGraph
from autosplit.profiling.image_codecs import encodings
from autosplit.profiling.table import InputEncoding
from autosplit.quant.packing import packed_bytes


def input_encodings(
    graph: LayerGraph, calls: Sequence[np.ndarray], images: np.ndarray | None
) -> tuple[InputEncoding, ...]:
    """Measures raw, PNG and JPEG requests where the input is an image, otherwise raw alone.

    Args:
      graph: the traced function.
      calls: its flat inputs, each ``[m, *traced shape]``.
      images: u8[n, H, W, 3], the photographs before normalization; None means that
        they are estimated from the inputs.

    Returns:
      ``raw`` first: what `tensor_raw_bytes` says of every input.
    """
    per_call = sum(tensor_raw_bytes(graph, t) for t in graph.inputs)
    if images is None:
        images = _as_images(graph, calls)
    raw = InputEncoding(name="raw", payload_bytes=float(per_call), lossless=True)
    if images is None:
        return (raw,)
    # One photograph is priced; a call may hold several.
    several = sum(c[0].size for c in calls) / images[0].size
    compressed = [
        InputEncoding(
            name=e.name,
            payload_bytes=e.payload_bytes * several,
            lossless=e.lossless,
            encode_s=e.encode_s * several,
            decode_s=e.decode_s * several,
        )
        for e in encodings(images)
        if e.name != "raw"
    ]
    return (raw, *compressed)


def tensor_raw_bytes(graph: LayerGraph, tensor: int) -> int:
    """Returns the bytes of an input as it is sent: packed at 8 bits, or of its integer width."""
    spec = graph.tensors[tensor]
    return packed_bytes(spec.size, 8) if spec.is_float else spec.size * spec.dtype.itemsize


def _as_images(graph: LayerGraph, calls: Sequence[np.ndarray]) -> np.ndarray | None:
    """Brings a normalised batch back to 8 bits, channel by channel.

    Normalization is affine per channel, so stretching each channel to 0..255 gives
    the photograph back up to contrast: sizes are near the original's.
    """
    if len(calls) != 1:
        return None
    batch = calls[0].reshape(-1, *graph.tensors[graph.inputs[0]].shape[1:])
    if batch.ndim != 4 or batch.shape[-1] != 3 or not np.issubdtype(batch.dtype, np.floating):
        return None
    low = batch.min(axis=(0, 1, 2))
    reach = np.maximum(batch.max(axis=(0, 1, 2)) - low, 1e-12)
    return np.round((batch - low) / reach * 255).astype(np.uint8)
