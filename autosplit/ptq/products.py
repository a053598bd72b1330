"""A convolution or matrix product as products of sampled patches with a matrix.

``y[p, g, o] = sum_k patch[p, g, k] matrix[g, k, o]`` for output positions p (pixels of all
images), groups g, and the elements k that one output reads. A loss over some positions then
needs no convolution and no whole feature maps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.graph import Layer
from autosplit.graph import _jax_compat as compat
from autosplit.graph.inlining import Literal
from autosplit.graph.primitives import ELEMENTWISE
from autosplit.graph.running import LayerWeights


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductForm:
    """How a layer's weight becomes matrices, and its input patches.

    Attributes:
      order: axes of the weight in the order elements k, then output channels.
      shape: of the weight in that order.
      channel_rank: how many of the last axes are output channels.
      groups: of the channels.
      positions: output positions of one call.
      take: ``(inputs of all calls [m, ...], positions i64[P]) -> patches [P, groups, K]``,
        positions counted over all calls.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    channel_rank: int
    groups: int
    positions: int
    take: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def matrix(self, array: jax.Array, weight_shape: tuple[int, ...]) -> jax.Array:
        """Returns an array that broadcasts to the weight as ``[groups, K or 1, O / groups]``."""
        full = jnp.reshape(array, (1,) * (len(weight_shape) - jnp.ndim(array)) + jnp.shape(array))
        split = len(self.order) - self.channel_rank
        same = all(full.shape[a] == 1 for a in self.order[:split])
        to = [
            1 if same and n < split else weight_shape[a] for n, a in enumerate(self.order)
        ]
        sorted_axes = jnp.broadcast_to(full.transpose(self.order), to)
        rows = math.prod(to[:split])
        grouped = sorted_axes.reshape(rows, self.groups, -1)
        return grouped.transpose(1, 0, 2)

    def weight(self, matrix: jax.Array) -> jax.Array:
        """Returns the weight of a matrix ``[groups, K, O / groups]``."""
        return matrix.transpose(1, 0, 2).reshape(self.shape).transpose(np.argsort(self.order))


def product_form(layer: Layer) -> ProductForm | None:
    """Returns the form of a layer; None where its weight multiplies in another way.

    Convolutions have it in any number of axes, with stride, dilation and groups (but not
    transposed), and products without batch axes.
    """
    if layer.weight is None or layer.anchor is None or len(layer.input_values) == 0:
        return None
    # The data must come into the layer as it is.
    data = layer.anchor.inputs[1 - layer.weight.position] if layer.weight.position < 2 else None
    if data != layer.input_values[0]:
        return None
    if layer.anchor.primitive == "conv_general_dilated":
        return _convolution(layer)
    return _product(layer) if layer.anchor.primitive == "dot_general" else None


def _convolution(layer: Layer) -> ProductForm | None:
    assert layer.anchor is not None
    params = layer.anchor.params
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) - {1}:
        return None
    dims = params["dimension_numbers"]
    x, kernel = (v.aval for v in layer.anchor.eqn.invars)
    y = layer.anchor.eqn.outvars[0].aval
    order = (*dims.rhs_spec[2:], dims.rhs_spec[1], dims.rhs_spec[0])
    batch = x.shape[dims.lhs_spec[0]]
    window = _Window(
        size=tuple(kernel.shape[a] for a in dims.rhs_spec[2:]),
        stride=tuple(params["window_strides"]),
        dilation=tuple(params["rhs_dilation"]),
        before=tuple(low for low, _ in params["padding"]),
        out=tuple(y.shape[a] for a in dims.out_spec[2:]),
        groups=params["feature_group_count"],
    )

    def take(inputs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        spec = (dims.lhs_spec[0], *dims.lhs_spec[2:], dims.lhs_spec[1])
        images = inputs.transpose(0, *(a + 1 for a in spec))
        return window.take(images.reshape(-1, *images.shape[2:]), positions)

    return ProductForm(
        order=order, shape=tuple(kernel.shape[a] for a in order), channel_rank=1,
        groups=window.groups, positions=batch * math.prod(window.out), take=take,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
    """The geometry of a convolution, by spatial axis."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    out: tuple[int, ...]
    groups: int

    def take(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Returns patches ``[P, groups, K]`` of images ``[N, *space, C]``; zero outside."""
        image, *starts = np.unravel_index(positions, (len(images), *self.out))
        rank, count = len(self.size), len(positions)
        index, valid = [image.reshape(-1, *(1,) * rank)], np.ones((), bool)
        for axis, start in enumerate(starts):
            first = start * self.stride[axis] - self.before[axis]
            place = first[:, None] + np.arange(self.size[axis]) * self.dilation[axis]
            extent = images.shape[axis + 1]
            shape = [count, *(self.size[axis] if a == axis else 1 for a in range(rank))]
            index.append(np.clip(place, 0, extent - 1).reshape(shape))
            valid = valid & ((place >= 0) & (place < extent)).reshape(shape)
        patches = images[tuple(index)] * np.broadcast_to(
            valid, (count, *self.size)
        )[..., None].astype(images.dtype)
        parts = patches.reshape(count, math.prod(self.size), self.groups, -1)
        return parts.transpose(0, 2, 1, 3).reshape(count, self.groups, -1)


def _product(layer: Layer) -> ProductForm | None:
    assert layer.anchor is not None
    assert layer.weight is not None
    position = layer.weight.position
    contract, batch = layer.anchor.params["dimension_numbers"]
    if batch[0]:
        return None
    x, weight = (layer.anchor.eqn.invars[p].aval for p in (1 - position, position))
    free = tuple(a for a in range(x.ndim) if a not in contract[1 - position])
    order = (*contract[position], *layer.weight.channel_axes)
    elements = math.prod(x.shape[a] for a in contract[1 - position])

    def take(inputs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        axes = (0, *(a + 1 for a in (*free, *contract[1 - position])))
        return inputs.transpose(axes).reshape(-1, elements)[positions][:, None]

    return ProductForm(
        order=order, shape=tuple(weight.shape[a] for a in order),
        channel_rank=len(layer.weight.channel_axes), groups=1,
        positions=math.prod(x.shape[a] for a in free), take=take,
    )  # fmt: skip


def elementwise_tail(layer: Layer, own: LayerWeights) -> Callable[[jax.Array], jax.Array] | None:
    """Returns the activation that is fused behind a layer's bias, for arrays of any shape.

    None where something else is fused, which needs the whole output.
    """
    tail = layer.equations[1:]
    known = dict(zip(layer.constants, own.constants, strict=True))
    scalars = {v: jnp.reshape(c, ()) for v, c in known.items() if jnp.size(c) == 1}
    inner = {layer.folded, *scalars}
    for equation in tail:
        if equation.primitive not in ELEMENTWISE or not set(equation.values) <= inner:
            return None
        if any(isinstance(o, Literal) and np.size(o.value) != 1 for o in equation.inputs):
            return None
        inner.update(equation.outputs)
    if len(layer.output_values) != 1 or layer.output_values[0] not in inner:
        return None

    def run(x: jax.Array) -> jax.Array:
        values: dict[int | None, jax.Array] = dict(scalars.items())
        values[layer.folded] = x
        for equation in tail:
            operands = [
                o.value if isinstance(o, Literal) else values[o] for o in equation.inputs
            ]
            results = compat.evaluate(equation.eqn, operands)
            values.update(zip(equation.outputs, results, strict=True))
        return values[layer.output_values[0]]

    return run
