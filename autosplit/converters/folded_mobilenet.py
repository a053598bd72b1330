"""MobileNet-v1 out of LiteRT files, whose batch norms are folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autosplit.converters.stored_graph import StoredGraph, StoredOperation, require_all_used
from autosplit.errors import ConversionError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
# Shapes for reshaping and pooling are the only other constants.
LARGEST_REST = 8


def folded_mobilenet_state_dict(
    graph: StoredGraph, num_classes: int, epsilon: float
) -> dict[str, np.ndarray]:
    """Gives the convolutions of a LiteRT MobileNet-v1 the keys of `autosplit.models`.

    A convolution's bias becomes the bias of a batch norm that does nothing else: mean 0,
    scale 1 and variance ``1 - epsilon``, so that ``scale / sqrt(variance + epsilon)`` is 1.
    The last convolution, 1x1 on one pixel, is the linear classifier.

    TensorFlow puts the class "background" before ImageNet's 1,000. Where ``num_classes`` is
    one less than the file has, that first row is left out, and the classes have ImageNet's
    indices; the softmax is then over the others alone.

    Args:
      graph: as `autosplit.converters.tflite_file.read_tflite` returns it.
      num_classes: length of the model's output.
      epsilon: of the model's batch norms.

    Returns:
      Arrays by key, in torch's layout.

    Raises:
      ConversionError: weights are left over, or there are no convolutions.
    """
    *features, classifier = _convolutions(graph)
    state_dict: dict[str, np.ndarray] = {}
    for index, (kernel, bias) in enumerate(features):
        ones = np.ones_like(bias)
        state_dict |= {
            f"features.{index}.0.weight": kernel,
            f"features.{index}.1.weight": ones,
            f"features.{index}.1.bias": bias,
            f"features.{index}.1.running_mean": np.zeros_like(bias),
            f"features.{index}.1.running_var": ones - np.asarray(epsilon, bias.dtype),
        }
    kernel, bias = classifier
    first = 1 if len(bias) == num_classes + 1 else 0
    state_dict["classifier.1.weight"] = kernel.reshape(kernel.shape[:2])[first:]
    state_dict["classifier.1.bias"] = bias[first:]
    return state_dict


def _convolutions(graph: StoredGraph) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields kernels in torch's layout and biases, in the order of the network."""
    operations = graph.of_kind(*CONVOLUTIONS)
    if not operations:
        raise ConversionError("the file has no convolutions; expected MobileNet-v1.")
    for operation in operations:
        if len(operation.inputs) != 3:
            raise ConversionError(
                f"a convolution has {len(operation.inputs)} inputs; expected pixels, kernel and "
                "bias. Save the model for inference, with its batch norms folded."
            )
        _, kernel, bias = operation.inputs
        yield _torch_layout(operation, graph.constant(kernel)), graph.constant(bias)
    used = {name for operation in operations for name in operation.inputs}
    require_all_used(graph, used, LARGEST_REST)


def _torch_layout(operation: StoredOperation, kernel: np.ndarray) -> np.ndarray:
    """Moves [out, h, w, in] to [out, in, h, w], and depthwise [1, h, w, c] to [c, 1, h, w]."""
    axes = (0, 3, 1, 2) if operation.kind == "CONV_2D" else (3, 0, 1, 2)
    return np.transpose(kernel, axes)
