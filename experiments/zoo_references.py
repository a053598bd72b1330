"""The same networks in the frameworks that their weights come from."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import numpy as np

from autosplit.converters import to_state_dict
from experiments import peers

TORCHVISION = ("resnet18", "mobilenet_v2")
"""Networks whose published weights are torchvision's own."""


def torchvision_logits(
    name: str, variables: Any, inputs: np.ndarray, batch: int
) -> np.ndarray | None:
    """Runs torchvision's network with our variables, converted back.

    Args:
      name: of a model.
      variables: of ours.
      inputs: f32[N, H, W, 3].
      batch: images at a time.

    Returns:
      f32[N, classes]; None where torchvision is not installed or has no such weights.
    """
    if name not in TORCHVISION or not _installed("torchvision"):
        return None
    network = peers.torch_network(name, to_state_dict(variables))
    threads = peers.library("torch").get_num_threads()
    runner = peers.torch_runner(network, threads)
    parts = [runner.outputs(inputs[i : i + batch]) for i in range(0, len(inputs), batch)]
    return np.concatenate(parts)


def onnx_heads(path: pathlib.Path, inputs: np.ndarray) -> list[np.ndarray] | None:
    """Runs a detector's ONNX file in ONNX Runtime up to its raw heads.

    Args:
      path: of the file.
      inputs: f32[N, H, W, 3].

    Returns:
      f32[N, h, w, B * (5 + C)] for each scale, coarse first: the outputs of the convolutions that
      no other convolution reads. None where onnx or onnxruntime is not installed.
    """
    if path.suffix != ".onnx" or not (_installed("onnx") and _installed("onnxruntime")):
        return None
    onnx, runtime = peers.library("onnx"), peers.library("onnxruntime")
    model = onnx.load(str(path))
    heads = _last_convolutions(model.graph)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in heads)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    place = session.get_inputs()[0].name
    shapes = {i.name: np.ones((1, 2), np.float32) for i in session.get_inputs()[1:]}
    parts = [
        session.run(heads, {place: inputs[i : i + 1].transpose(0, 3, 1, 2), **shapes})
        for i in range(len(inputs))
    ]
    joined = [np.concatenate(each).transpose(0, 2, 3, 1) for each in zip(*parts, strict=True)]
    return sorted(joined, key=lambda head: head.shape[1])


def _last_convolutions(graph: Any) -> list[str]:
    """Returns what the convolutions with a bias write: the heads, as all others have batch norm."""
    return [
        node.output[0] for node in graph.node if node.op_type == "Conv" and len(node.input) == 3
    ]


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
