"""The arithmetic of equations, as `Workload`s."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from autosplit.graph import _jax_compat as compat
from autosplit.graph import primitives
from autosplit.graph.inlining import Equation, flatten
from autosplit.workload import Workload


def layer_workloads(
    equations: Iterable[Equation],
    *,
    input_elements: int,
    output_elements: int,
    weight_elements: int,
    weight_on_left: bool,
) -> tuple[Workload, ...]:
    """Returns the workloads of a layer.

    Args:
      equations: everything that the layer computes.
      input_elements: elements of the tensors it reads.
      output_elements: elements of the tensors it writes.
      weight_elements: elements of hoisted operands it reads.
      weight_on_left: the first product is ``weight x data``: its rows are then the
        output channels.

    Returns:
      One workload per product, or one of kind ``"vector"``. The traffic is
      charged to the first.
    """
    products, vector_ops = _collect(equations)
    if not products:
        products = [Workload(kind="vector")]
    first = dataclasses.replace(
        products[0],
        input_elements=input_elements,
        output_elements=output_elements,
        weight_elements=weight_elements,
        vector_ops=vector_ops,
    )
    if weight_on_left and first.kind == "gemm":
        rows, columns = first.in_height, first.out_channels
        first = dataclasses.replace(
            first, in_height=columns, out_height=columns, out_channels=rows
        )
    return (first, *products[1:])


def _collect(equations: Iterable[Equation]) -> tuple[list[Workload], int]:
    """Returns the products of some equations, and their other operations."""
    products: list[Workload] = []
    vector_ops = 0
    for equation in equations:
        family = primitives.family(equation)
        if family == "conv":
            products.append(_convolution(equation))
        elif family == "matmul":
            products.append(_product(equation))
        elif family == "loop":
            inner, ops = _loop(equation)
            products += inner
            vector_ops += ops
        else:
            vector_ops += _vector_ops(equation, family)
    return products, vector_ops


def _vector_ops(equation: Equation, family: str) -> int:
    written = sum(math.prod(v.aval.shape) for v in equation.eqn.outvars)
    read = max((math.prod(v.aval.shape) for v in equation.eqn.invars), default=0)
    if family == "elementwise":
        return written
    if family == "reduce":
        return read
    if family == "pool":
        return written * math.prod(equation.params.get("window_dimensions", (1,)))
    if family == "sort":
        return read * max(1, math.ceil(math.log2(max(read, 2))))
    return 0


def _loop(equation: Equation) -> tuple[list[Workload], int]:
    """Costs a scan its length, a branch its dearest case, a while loop one pass.

    The trip count of a ``while`` is unknown before it runs: its cost is a lower
    bound.
    """
    cases = [_collect(flatten(body).equations) for body in compat.bodies(equation.eqn)]
    name = equation.primitive
    if name == "cond":
        cases = [max(cases, key=lambda case: (sum(w.macs for w in case[0]), case[1]))]
    length = equation.params["length"] if name == "scan" else 1
    products = [
        dataclasses.replace(w, repeat=w.repeat * length) for inner, _ in cases for w in inner
    ]
    return products, length * sum(ops for _, ops in cases)


def _convolution(equation: Equation) -> Workload:
    params = equation.params
    lhs, rhs = (v.aval.shape for v in equation.eqn.invars)
    out = equation.eqn.outvars[0].aval.shape
    dims = params["dimension_numbers"]
    # batch_group_count is not 1 in gradients only.
    lhs_batch = lhs[dims.lhs_spec[0]] // params["batch_group_count"]
    inputs = [lhs[a] for a in dims.lhs_spec[2:]]
    outputs = [out[a] for a in dims.out_spec[2:]]
    kernel = [rhs[a] for a in dims.rhs_spec[2:]]
    spatial = [
        inputs, outputs, kernel,
        params["window_strides"], params["rhs_dilation"], params["lhs_dilation"],
    ]
    (h, oh, kh, sh, dh, uh), (w, ow, kw, sw, dw, uw), depth = _two_axes(spatial)
    in_channels, groups = lhs[dims.lhs_spec[1]], params["feature_group_count"]
    return Workload(
        kind="conv",
        batch=lhs_batch * depth[1],
        in_height=h, in_width=w, in_channels=in_channels * depth[2],
        out_height=oh, out_width=ow, out_channels=out[dims.out_spec[1]],
        kernel_height=kh, kernel_width=kw, stride_height=sh, stride_width=sw,
        dilation_height=dh, dilation_width=dw, upsample_height=uh, upsample_width=uw,
        groups=groups,
    )  # fmt: skip


def _two_axes(columns: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Turns per-axis lists into (height, width, depth) with missing axes of 1.

    A third spatial axis is seen as more batch (its outputs) and more input
    channels (its filter taps), which keeps the MACs.
    """
    rows = [tuple(column) for column in zip(*columns, strict=True)]
    one = (1,) * len(columns)
    if len(rows) > 3:
        return rows[-2], rows[-1], tuple(math.prod(axis) for axis in zip(*rows[:-2], strict=True))
    rows = [one] * (3 - len(rows)) + rows
    return (rows[1], rows[2], rows[0])


def _product(equation: Equation) -> Workload:
    (contract, batch) = equation.params["dimension_numbers"]
    shapes = [v.aval.shape for v in equation.eqn.invars]
    repeat = math.prod(shapes[0][a] for a in batch[0])
    depth = math.prod(shapes[0][a] for a in contract[0])
    free = [
        math.prod(n for a, n in enumerate(shapes[p]) if a not in contract[p] and a not in batch[p])
        for p in (0, 1)
    ]
    return Workload(
        kind="gemm", in_height=free[0], out_height=free[0], in_channels=depth,
        out_channels=free[1], repeat=repeat,
    )  # fmt: skip
