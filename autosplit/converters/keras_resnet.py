"""Names of Keras' ResNet-50, turned into those of `autosplit.models`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from autosplit.errors import ConversionError

# Of the convolutions on a block's main path and of its shortcut.
BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}
LAYER = re.compile(r"(res|bn)([2-5])([a-f])_branch(1|2[abc])")
STEM_AND_HEAD = {"conv1": "conv1", "bn_conv1": "bn1", "fc1000": "fc"}
LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def keras_resnet_state_dict(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and transposes the weights of Keras' ResNet-50, every one of them.

    Args:
      weights: arrays by ``layer/leaf``, as `autosplit.converters.read_tfjs` returns them.

    Returns:
      Arrays by torchvision's keys for a ResNet-50, beside these biases of the convolutions,
      in torch's layout.

    Raises:
      ConversionError: a name is none of Keras' ResNet-50.

    >>> list(keras_resnet_state_dict({"res3b_branch2c/kernel": np.zeros((1, 1, 8, 4))}))
    ['layer2.1.conv3.weight']
    """
    return {_torch_key(name): _torch_layout(array) for name, array in weights.items()}


def _torch_key(name: str) -> str:
    """Returns the key of ``layer/leaf``.

    >>> _torch_key("bn2a_branch1/moving_mean")
    'layer1.0.downsample.1.running_mean'
    """
    layer, _, leaf = name.partition("/")
    module = STEM_AND_HEAD.get(layer)
    if match := LAYER.fullmatch(layer):
        module = _block_module(*match.groups())
    if module is None or leaf not in LEAVES:
        raise ConversionError(
            f"the weight {name!r} is none of Keras' ResNet-50; expected names such as "
            "'res2a_branch2a/kernel'. Check the name of the model."
        )
    return f"{module}.{LEAVES[leaf]}"


def _block_module(kind: str, stage: str, block: str, branch: str) -> str:
    prefix = f"layer{int(stage) - 1}.{ord(block) - ord('a')}"
    if branch == "1":
        return f"{prefix}.downsample.{0 if kind == 'res' else 1}"
    return f"{prefix}.{'conv' if kind == 'res' else 'bn'}{BRANCHES[branch]}"


def _torch_layout(array: np.ndarray) -> np.ndarray:
    """Moves the axes [..., in, out] of a kernel to [out, in, ...]."""
    return array if array.ndim < 2 else np.moveaxis(array, (-1, -2), (0, 1))
