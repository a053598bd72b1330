"""YOLOv3 out of ONNX files that Keras' converter wrote, e.g. the model zoo's Tiny-YOLOv3."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autosplit.converters.stored_graph import StoredGraph, StoredOperation, require_all_used
from autosplit.errors import ArtefactError, ConversionError

# Keras numbers its layers in the order of the cfg that it built them from.
KERNEL = re.compile(r"conv2d_(\d+)/kernel:0")
# Of ONNX where a batch norm does not say otherwise.
DEFAULT_EPSILON = 1e-5
# Anchors, limits and shapes of the decoder are the only other constants.
LARGEST_REST = 16


def onnx_yolo_state_dict(
    graph: StoredGraph, places: Sequence[int], epsilon: float
) -> dict[str, np.ndarray]:
    """Gives the convolutions and batch norms of a YOLOv3 the keys of `autosplit.models`.

    The k-th convolution by Keras' numbers is the k-th of the cfg; that their shapes agree
    is for `autosplit.converters.convert` to check. A batch norm's scale takes over the
    difference of the epsilons, ``scale * sqrt(variance + epsilon) / sqrt(variance +
    file's epsilon)``, so that the arithmetic stays the file's.

    Args:
      graph: as `autosplit.converters.onnx_file.read_onnx` returns it.
      places: of the convolutional sections among all sections of the cfg.
      epsilon: of the model's batch norms.

    Returns:
      Arrays by ultralytics' keys ``module_list.PLACE...``, in torch's layout.

    Raises:
      ConversionError: another number of convolutions, one without a number, a batch norm
        that follows none, or weights left over.
      ArtefactError: a variance is negative.
    """
    convolutions = sorted(graph.of_kind("Conv"), key=_number)
    norms = {norm.inputs[0]: norm for norm in graph.of_kind("BatchNormalization")}
    followed = [norms.get(convolution.outputs[0]) for convolution in convolutions]
    if len(convolutions) != len(places) or len(norms) != len(followed) - followed.count(None):
        raise ConversionError(
            f"the file has {len(convolutions)} convolutions and {len(norms)} batch norms; expected "
            f"{len(places)} convolutions and every batch norm behind one. Check the name of the "
            "model."
        )
    state_dict: dict[str, np.ndarray] = {}
    for place, convolution, norm in zip(places, convolutions, followed, strict=True):
        leaves = ("weight", "bias")[: len(convolution.inputs) - 1]
        for leaf, name in zip(leaves, convolution.inputs[1:], strict=True):
            state_dict[f"module_list.{place}.Conv2d.{leaf}"] = graph.constant(name)
        if norm is not None:
            state_dict |= _norm(graph, norm, f"module_list.{place}.BatchNorm2d", epsilon)
    operations = (*convolutions, *norms.values())
    require_all_used(graph, {name for o in operations for name in o.inputs}, LARGEST_REST)
    return state_dict


def _number(convolution: StoredOperation) -> int:
    kernel = convolution.inputs[1]
    match = KERNEL.fullmatch(kernel)
    if match is None:
        raise ConversionError(
            f"a convolution's kernel is named {kernel!r}; expected a name such as "
            "'conv2d_1/kernel:0', whose number tells the layer. Another program wrote the file."
        )
    return int(match[1])


def _norm(
    graph: StoredGraph, norm: StoredOperation, prefix: str, epsilon: float
) -> dict[str, np.ndarray]:
    scale, bias, mean, variance = (graph.constant(name) for name in norm.inputs[1:])
    original = norm.numbers.get("epsilon", DEFAULT_EPSILON)
    wide = variance.astype(np.float64)
    # Turned about, so that NaN is refused as well.
    if original <= 0 or not np.all(wide >= 0):
        raise ArtefactError(
            f"the batch norm {norm.outputs[0]!r} has a variance of {wide.min()} and an epsilon of "
            f"{original}; expected at least 0, and more. The file is damaged."
        )
    ratio = np.sqrt((wide + epsilon) / (wide + original))
    return {
        f"{prefix}.weight": (scale * ratio).astype(scale.dtype),
        f"{prefix}.bias": bias,
        f"{prefix}.running_mean": mean,
        f"{prefix}.running_var": variance,
    }
