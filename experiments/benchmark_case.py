"""What the benchmark measures on: a random network that behaves like a trained one."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from autosplit.errors import InputError
from autosplit.models.preprocessing import TORCHVISION
from autosplit.models.resnet import Bottleneck, ResNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its inputs.

    Attributes:
      apply: ``apply(variables, images)``.
      variables: parameters and batch statistics.
      photographs: u8[calls, H, W, 3].
    """

    apply: Any
    variables: Any
    photographs: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """f32[calls, H, W, 3], normalized."""
        return TORCHVISION.normalize(self.photographs)


def make_case(config: ml_collections.ConfigDict) -> Case:
    """Makes the network and the inputs of a configuration.

    Raises:
      InputError: there is no call.
    """
    if config.calls < 1:
        raise InputError(f"config.calls is {config.calls}; expected at least 1.")
    model = ResNet(
        stage_sizes=tuple(config.model.stage_sizes),
        block=Bottleneck,
        num_classes=config.model.num_classes,
        features=config.model.features,
    )
    photographs = photograph_like(config.calls, config.image_size, config.seed)
    variables = random_variables(model, TORCHVISION.normalize(photographs), config.seed)
    return Case(apply=model.apply, variables=variables, photographs=photographs)


def photograph_like(count: int, size: int, seed: int) -> np.ndarray:
    """Draws images whose amplitudes fall with frequency as those of photographs do.

    Args:
      count: number of images.
      size: height and width.
      seed: of the phases.

    Returns:
      u8[count, size, size, 3]; the channels share most of their structure.

    Reference: Field 1987, the 1/f amplitude spectrum of natural images.
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    amplitude = 1.0 / np.maximum(frequency, 1.0 / size)

    def noise(channels: int) -> np.ndarray:
        white = random.standard_normal((count, size, size, channels))
        field = np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) * amplitude[..., None], axes=(1, 2))
        return field.real / field.real.std()

    return np.clip(np.rint(115 + 55 * (noise(1) + 0.3 * noise(3))), 0, 255).astype(np.uint8)


def random_variables(model: Any, inputs: np.ndarray, seed: int) -> Any:
    """Draws parameters and gives batch norm the statistics of the inputs.

    Without these, activations would double from block to block. Scales and shifts of
    batch norm are random too: with ones and zeros all tensors would look alike.

    Args:
      model: Linen module whose ``train=True`` updates ``"batch_stats"``.
      inputs: f32[N, H, W, 3].
      seed: of the parameters.

    Returns:
      ``{"params": ..., "batch_stats": ...}``.
    """
    key = jax.random.key(seed)
    # Parameters do not depend on the image size; a small image compiles faster.
    variables = jax.jit(model.init)(key, jnp.zeros((1, 32, 32, 3)))
    params = jax.tree_util.tree_map_with_path(
        functools.partial(_redrawn, np.random.default_rng(seed)), variables["params"]
    )

    def updated(params: Any, inputs: jax.Array, start: float) -> Any:
        old = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
        _, found = model.apply(
            {"params": params, "batch_stats": old}, inputs, train=True, mutable=["batch_stats"],
            rngs={"dropout": key},
        )  # fmt: skip
        return found["batch_stats"]

    # The compiler sees that both share all but the update.
    both = jax.jit(lambda p, x: (updated(p, x, 0.0), updated(p, x, 1.0)))
    from_zero, from_one = both(params, inputs)
    return {"params": params, "batch_stats": jax.tree.map(_undo_average, from_zero, from_one)}


def _undo_average(from_zero: jax.Array, from_one: jax.Array) -> jax.Array:
    """Returns what a moving average took in: with the old share m, ``from_zero / (1 - m)``."""
    # The difference is rounded to some 1e-7 of what it took in; no network's m has more digits.
    share = np.round(np.median(np.asarray(from_one) - np.asarray(from_zero)), 4)
    return from_zero / (1 - share)


def _redrawn(random: np.random.Generator, path: Any, leaf: jax.Array) -> jax.Array:
    name = path[-1].key
    if name == "scale":
        return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    if name == "bias":
        return jnp.asarray(random.normal(0.0, 0.2, leaf.shape), leaf.dtype)
    return leaf
