"""What the solver's cost is measured on: large traced graphs whose errors are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.errors import InputError
from autosplit.hardware import Device, Network
from autosplit.profiling.pricing import QuantizationErrors, price_graph
from autosplit.profiling.table import InputEncoding

FAMILIES = ("residual", "inception", "parallel")
"""Chains with short cuts; blocks of four branches; two long branches side by side, whose
closed sets grow with the square of their length."""

STAGES = 4
"""Each halves the picture and doubles the channels."""

MIDDLE_BITS = 5
"""Everywhere, they make twice the error that `binding_constraints` allows."""


def branched_graph(layers: int, family: str, image_size: int = 224) -> autosplit.LayerGraph:
    """Traces a convolutional network of a number of layers.

    Args:
      layers: at least 12; the graph has this many or up to a block's more.
      family: one of `FAMILIES`.
      image_size: of the input.

    Raises:
      InputError: there is no such family, or too few layers.
    """
    if family not in FAMILIES:
        raise InputError(f"There is no family {family!r}; expected one of {FAMILIES}.")
    if layers < 12:
        raise InputError(f"{layers} layers were asked for; expected at least 12.")
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    net = functools.partial(_network, layers, family)
    shapes: list[tuple[int, ...]] = []
    jax.eval_shape(lambda x: net(_record(shapes), x), image)
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return autosplit.trace(lambda p, x: net(_replay(p), x), params, image)


_Weights = Callable[[tuple[int, ...]], Any]


def _record(shapes: list[tuple[int, ...]]) -> _Weights:
    def weight(shape: tuple[int, ...]) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape)

    return weight


def _replay(params: Sequence[Any]) -> _Weights:
    remaining = iter(params)
    return lambda shape: next(remaining)


def _network(layers: int, family: str, weight: _Weights, x: jax.Array) -> jax.Array:
    channels = 16
    x = _conv(weight, x, channels, stride=4)
    blocks = {"residual": _residual, "inception": _inception, "parallel": _parallel}
    done = 1
    for stage in range(STAGES):
        x = _conv(weight, x, channels, stride=2 if stage else 1)
        done += 1
        quota = layers * (stage + 1) // STAGES
        while done < quota - 1:
            x, used = blocks[family](weight, x, quota - done)
            done += used
        channels *= 2
    return x.mean((1, 2)) @ weight((x.shape[-1], 10))


def _conv(weight: _Weights, x: jax.Array, channels: int, kernel: int = 3, stride: int = 1) -> Any:
    shape = (kernel, kernel, x.shape[-1], channels)
    return jax.nn.relu(
        jax.lax.conv_general_dilated(
            x, weight(shape), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )


def _residual(weight: _Weights, x: jax.Array, room: int) -> tuple[jax.Array, int]:
    inner = _conv(weight, x, x.shape[-1])
    return x + _conv(weight, inner, x.shape[-1]), 3


def _inception(weight: _Weights, x: jax.Array, room: int) -> tuple[jax.Array, int]:
    quarter = x.shape[-1] // 4
    branches = [_conv(weight, x, quarter, kernel=1) for _ in range(4)]
    for index in range(1, 4):
        for _ in range(min(index, 2)):
            branches[index] = _conv(weight, branches[index], quarter)
    return jnp.concatenate(branches, axis=-1), 10


def _parallel(weight: _Weights, x: jax.Array, room: int) -> tuple[jax.Array, int]:
    length = max((room - 1) // 2, 1)
    half = x.shape[-1] // 2
    branches = []
    for kernel in (1, 3):
        branch = _conv(weight, x, half, kernel)
        for _ in range(length - 1):
            branch = _conv(weight, branch, half, kernel)
        branches.append(branch)
    return jnp.concatenate(branches, axis=-1), 2 * length + 1


def drawn_profile(
    graph: autosplit.LayerGraph,
    bits: Sequence[int],
    *,
    edge: Device,
    cloud: Device,
    network: Network,
    seed: int = 0,
) -> autosplit.Profile:
    """Prices a graph for real and draws its errors, which a solver takes as they come.

    The quant_mse falls by 4 for each bit, as that of a uniform quantizer does, from a
    level that is lognormal over layers; gains are lognormal too.

    Args:
      graph: L layers.
      bits: candidates.
      edge, cloud, network: as for `autosplit.profile`.
      seed: of the draw.
    """
    random = np.random.default_rng(seed)
    layers, tensors = len(graph.layers), len(graph.tensors)
    widths = np.array(sorted(bits), np.int64)
    steps = 4.0**-widths
    weighted = np.array([layer.weight is not None for layer in graph.layers])
    made = np.array([tensor.producer >= 0 for tensor in graph.tensors])
    errors = QuantizationErrors(
        clipping="drawn",
        bits=widths,
        weight_error=(random.lognormal(size=layers) * weighted)[:, None] * steps,
        weight_gain=np.repeat(random.lognormal(size=(layers, 1)), len(widths), axis=1),
        sensitivity="output",
        weight_ratio=np.ones((layers, len(widths))),
        activation_error=(random.lognormal(size=tensors) * made)[:, None] * steps,
        activation_gain=np.repeat(random.lognormal(size=(tensors, 1)), len(widths), axis=1),
        activation_low=np.zeros((tensors, len(widths))),
        activation_high=np.ones((tensors, len(widths))),
    )
    pixels = sum(graph.tensors[t].size for t in graph.inputs)
    raw = InputEncoding(name="raw", payload_bytes=float(pixels), lossless=True)
    return price_graph(graph, errors, [raw], edge=edge, cloud=cloud, network=network)


def binding_constraints(profile: autosplit.Profile) -> autosplit.Constraints:
    """Returns limits that cannot be kept by one bit-width everywhere: both bind."""
    memory = profile.weight_bytes[:, -1].sum() / 2 + profile.tensor_bytes[:, -1].max()
    k = int(np.searchsorted(profile.bits, MIDDLE_BITS).clip(max=len(profile.bits) - 1))
    error = (profile.weight_gain * profile.weight_error)[:, k].sum()
    error += (profile.activation_gain * profile.activation_error)[:, k].sum()
    return autosplit.Constraints(memory_bytes=float(memory), output_error=float(error) / 2)
