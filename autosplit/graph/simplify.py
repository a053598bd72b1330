"""Folds per-channel affine chains (batch norm, bias, scale) into the layer before them.

A convolution or product with one operand that is hoisted (a weight) is followed
through ``add sub mul div neg`` with hoisted operands that vary only along its
output channels: ``y = a * conv(x, W) + b``. Then ``conv(x, a * W) + b`` is the
same function, and batch norm needs no equation of its own.

Reference: Jacob et al. 2018 (arXiv 1712.05877), section 3.2. Deviation: the
chain is found in the jaxpr, whatever module or hand-written code made it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autosplit.graph import primitives
from autosplit.graph.inlining import Equation, FlatProgram, Literal, Operand
from autosplit.graph.layers import Fold, WeightSpec

_AFFINE = frozenset({"add", "sub", "mul", "div", "neg"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    """A weighted equation with its folded chain, seen as one step.

    Attributes:
      equation: the convolution, product or table look-up.
      weight: its weight and chain.
      chain: the equations that the chain replaces.
      result: number of the value that the chain defines.
    """

    equation: Equation
    weight: WeightSpec
    chain: tuple[Equation, ...]
    result: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelLayout:
    """Where the weight of an anchor is and which of its axes are output channels.

    Attributes:
      position: operand of the anchor that is the weight.
      channel_axes: axes of the weight.
      output_axes: the axes of the output that they become, in the same order.
    """

    position: int
    channel_axes: tuple[int, ...]
    output_axes: tuple[int, ...]


def channel_layout(equation: Equation, is_data: Callable[[Operand], bool]) -> ChannelLayout | None:
    """Finds the weight of a convolution, product or table look-up.

    Args:
      equation: any equation.
      is_data: tells operands that depend on the inputs.

    Returns:
      The layout; None where the equation has no hoisted weight.
    """
    family = primitives.family(equation)
    if family == "conv" and not is_data(equation.inputs[1]):
        dims = equation.params["dimension_numbers"]
        return ChannelLayout(
            position=1, channel_axes=(dims.rhs_spec[0],), output_axes=(dims.out_spec[1],)
        )
    if family == "matmul":
        return _product_layout(equation, is_data)
    if family == "gather" and not is_data(equation.inputs[0]) and is_data(equation.inputs[1]):
        # An embedding: rows are looked up, the last axis of the table is the feature.
        rank = len(equation.eqn.invars[0].aval.shape)
        return ChannelLayout(position=0, channel_axes=(rank - 1,), output_axes=())
    return None


def _product_layout(
    equation: Equation, is_data: Callable[[Operand], bool]
) -> ChannelLayout | None:
    weights = [p for p in (0, 1) if not is_data(equation.inputs[p])]
    if len(weights) != 1:
        return None
    position = weights[0]
    (contract, batch) = equation.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in equation.eqn.invars]
    batch_rank = len(batch[0])
    free = [
        [a for a in range(ranks[p]) if a not in contract[p] and a not in batch[p]] for p in (0, 1)
    ]
    start = batch_rank + (len(free[0]) if position == 1 else 0)
    axes = tuple(batch[position]) + tuple(free[position])
    outputs = tuple(range(batch_rank)) + tuple(range(start, start + len(free[position])))
    return ChannelLayout(position=position, channel_axes=axes, output_axes=outputs)


def find_chain(
    equation: Equation,
    layout: ChannelLayout,
    *,
    readers: Mapping[int, Sequence[Equation]],
    is_data: Callable[[Operand], bool],
    varying: Mapping[int, frozenset[int]],
    returned: frozenset[int],
    program: FlatProgram,
) -> tuple[tuple[Fold, ...], tuple[Equation, ...], int]:
    """Follows the affine chain behind an anchor.

    Args:
      equation: the anchor.
      layout: its channels.
      readers: equations that read each value.
      is_data: tells operands that depend on the inputs.
      varying: axes along which hoisted values vary.
      returned: values that the function returns (they must stay visible).
      program: for shapes.

    Returns:
      The folds, the equations they replace and the value that results.
    """
    value, folds, chain = equation.outputs[0], [], []
    channels = frozenset(layout.output_axes)
    while layout.output_axes and value not in returned and len(readers.get(value, ())) == 1:
        step = readers[value][0]
        if step.primitive not in _AFFINE or step.values.count(value) != 1:
            break
        before, after = program.avals[value], program.avals[step.outputs[0]]
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            break
        index = step.inputs.index(value)
        other = next((o for i, o in enumerate(step.inputs) if i != index), None)
        if other is not None and (is_data(other) or not _axes(other, varying, program) <= channels):
            break
        on_left = index == 1
        if step.primitive == "div" and on_left:
            break
        folds.append(Fold(primitive=step.primitive, operand=other, on_left=on_left))
        chain.append(step)
        value = step.outputs[0]
    return tuple(folds), tuple(chain), value


def _axes(
    operand: Operand, varying: Mapping[int, frozenset[int]], program: FlatProgram
) -> frozenset[int]:
    if isinstance(operand, Literal):
        return frozenset()
    return varying.get(operand, _long_axes(program.avals[operand].shape))


def varying_axes(program: FlatProgram, hoisted: Sequence[Equation]) -> dict[int, frozenset[int]]:
    """Finds along which axes each hoisted value may vary, from the structure alone.

    Args:
      program: for shapes.
      hoisted: equations that depend on parameters alone, in order.

    Returns:
      Value number -> axes that are not known to be constant. An axis of size 1
      never varies.
    """
    found: dict[int, frozenset[int]] = {}
    for equation in hoisted:
        axes = _propagate(equation, found, program)
        for output in equation.outputs:
            found[output] = axes & _long_axes(program.avals[output].shape)
    return found


def _propagate(
    equation: Equation, found: Mapping[int, frozenset[int]], program: FlatProgram
) -> frozenset[int]:
    shape = program.avals[equation.outputs[0]].shape
    inputs = [_axes(operand, found, program) for operand in equation.inputs]
    if equation.primitive == "broadcast_in_dim":
        dims = equation.params["broadcast_dimensions"]
        return frozenset(dims[axis] for axis in inputs[0])
    if equation.primitive == "reshape":
        before = [a for a, n in enumerate(equation.eqn.invars[0].aval.shape) if n > 1]
        after = [a for a, n in enumerate(shape) if n > 1]
        sizes = [equation.eqn.invars[0].aval.shape[a] for a in before]
        # Only a reshape that adds or removes axes of size 1 keeps the axes apart.
        if sizes == [shape[a] for a in after]:
            moved = dict(zip(before, after, strict=True))
            return frozenset(moved[a] for a in inputs[0])
    elif equation.primitive in primitives.ELEMENTWISE:
        return frozenset().union(*inputs)
    return _long_axes(shape)


def _long_axes(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(axis for axis, n in enumerate(shape) if n > 1)


def fold(
    weight: jax.Array, spec: WeightSpec, read: Callable[[Operand], Any], rank: int
) -> tuple[jax.Array, jax.Array | None]:
    """Applies a chain to a weight: ``(W, folds) -> (a * W, b)``.

    Args:
      weight: the unfolded weight.
      spec: its chain and channels.
      read: value of a hoisted operand.
      rank: of the anchor's output.

    Returns:
      The folded weight, and the bias as an array of ``rank`` axes that broadcasts
      over the anchor's output; None where the chain is empty.
    """
    if not spec.folds:
        return weight, None
    channels = tuple(weight.shape[axis] for axis in spec.channel_axes)
    gain = jnp.ones(channels, weight.dtype)
    bias = jnp.zeros(channels, weight.dtype)
    for step in spec.folds:
        factor = None
        if step.operand is not None:
            factor = _per_channel(read(step.operand), spec.output_axes, channels)
        gain, bias = _compose(step, gain, bias, factor)
    folded = weight * _spread(gain, spec.channel_axes, weight.ndim)
    return folded, _spread(bias, spec.output_axes, rank)


def _compose(step: Fold, gain: jax.Array, bias: jax.Array, factor: Any) -> tuple[Any, Any]:
    if step.primitive == "add":
        return gain, bias + factor
    if step.primitive == "sub":
        return (-gain, factor - bias) if step.on_left else (gain, bias - factor)
    if step.primitive == "mul":
        return gain * factor, bias * factor
    if step.primitive == "div":
        return gain / factor, bias / factor
    return -gain, -bias


def _per_channel(operand: Any, axes: tuple[int, ...], channels: tuple[int, ...]) -> jax.Array:
    """Reduces an operand that varies only along ``axes`` to an array of channels."""
    operand = jnp.asarray(operand)
    if operand.ndim == 0:
        return jnp.broadcast_to(operand, channels)
    index = tuple(slice(None) if axis in axes else 0 for axis in range(operand.ndim))
    return jnp.broadcast_to(operand[index], channels)


def _spread(values: jax.Array, axes: tuple[int, ...], rank: int) -> jax.Array:
    """Places the axes of ``values`` at ``axes`` of an array of ``rank`` axes (the others 1)."""
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    shape = [1] * rank
    for axis, size in zip(axes, values.shape, strict=True):
        shape[axis] = size
    return jnp.transpose(values, order).reshape(shape)
