"""``autosplit.trace``: a pure JAX function in, a `LayerGraph` out."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.errors import TraceError
from autosplit.graph import _jax_compat as compat
from autosplit.graph import simplify
from autosplit.graph.grouping import Group, Step, equation_of, group_steps, results
from autosplit.graph.inlining import Equation, FlatProgram, Operand, flatten
from autosplit.graph.layers import Layer, LayerGraph, Tensor, WeightSpec
from autosplit.graph.workloads import layer_workloads


def trace(fn: Callable[..., Any], params: Any, *inputs: Any) -> LayerGraph:
    """Traces a pure JAX function into layers and tensors.

    Args:
      fn: ``fn(params, *inputs)``; any pure JAX function (Linen ``apply``, a function
        over split NNX state, plain ``jax.numpy``).
      params: pytree of arrays or `jax.ShapeDtypeStruct`; what is not data.
      *inputs: pytrees of arrays or `jax.ShapeDtypeStruct`: the shapes of one call.

    Returns:
      The graph; ``graph.summary()`` prints it.

    Raises:
      TraceError: the function is not traceable, not pure, or does not use its inputs.
      UnknownPrimitiveError: a primitive that costs something has no rule.

    >>> import jax.numpy as jnp
    >>> graph = trace(lambda w, x: jnp.maximum(x @ w, 0), jnp.ones((3, 4)), jnp.ones((2, 3)))
    >>> [(layer.kind, layer.macs) for layer in graph.layers]
    [('matmul', 24)]
    """
    program, out_tree = _flat_program(fn, (params, *inputs))
    num_params = len(jax.tree.leaves(params))
    data, hoisted, live = _classify(program, num_params)
    steps = _fold_chains(program, hoisted, live, data)
    groups = group_steps(steps, program, data)
    if not groups:
        raise TraceError(
            "The function does nothing with its inputs; expected fn(params, *inputs) whose "
            "outputs depend on the inputs. Check the order of the arguments."
        )
    layers, tensors = _build(groups, program, num_params, data)
    index = {v: t for t, (v, _) in enumerate(tensors)}
    return LayerGraph(
        layers=layers,
        tensors=tuple(tensor for _, tensor in tensors),
        inputs=tuple(index[v] for v in program.inputs[num_params:]),
        outputs=tuple(index.get(o) if isinstance(o, int) else None for o in program.outputs),
        program=program,
        hoisted=hoisted,
        num_params=num_params,
        in_tree=jax.tree.structure(inputs),
        param_tree=jax.tree.structure(params),
        out_tree=out_tree,
        fingerprint=_fingerprint(program, num_params),
    )


def _flat_program(fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[FlatProgram, Any]:
    """Traces twice: a pure function gives the same program both times."""
    try:
        closed, shapes = compat.make_jaxpr(fn, args)
        again, _ = compat.make_jaxpr(fn, args)
    except (jax.errors.JAXTypeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TraceError(
            f"The function cannot be traced: {type(error).__name__}: {_first_line(error)} "
            "Expected a pure JAX function fn(params, *inputs): no Python control flow on values, "
            "no NumPy on traced arrays, arrays as arguments."
        ) from error
    if closed.effects:
        raise TraceError(
            f"The function is not pure: it has the side effects "
            f"{sorted(str(e) for e in closed.effects)}. Remove debug prints, callbacks and "
            "mutable references from the traced function."
        )
    program = flatten(closed)
    if not _same_program(program, flatten(again)):
        raise TraceError(
            "The function is not pure: two traces with the same arguments gave different "
            "programs. Remove state that changes from call to call (counters, random numbers)."
        )
    return program, jax.tree.structure(shapes)


def _same_program(program: FlatProgram, other: FlatProgram) -> bool:
    """Compares structure and captured arrays: a random mask captured anew is no constant."""
    return _fingerprint(program, 0) == _fingerprint(other, 0) and all(
        compat.same_array(value, other.constants[number])
        for number, value in program.constants.items()
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]


def _classify(
    program: FlatProgram, num_params: int
) -> tuple[frozenset[int], tuple[Equation, ...], tuple[Equation, ...]]:
    """Separates what depends on the inputs from what is hoisted."""
    data = set(program.inputs[num_params:])
    hoisted, live = [], []
    for equation in program.equations:
        if data.intersection(equation.values):
            data.update(equation.outputs)
            live.append(equation)
        else:
            hoisted.append(equation)
    return frozenset(data), tuple(hoisted), tuple(live)


def _fold_chains(
    program: FlatProgram,
    hoisted: Sequence[Equation],
    live: Sequence[Equation],
    data: frozenset[int],
) -> list[Step]:
    """Replaces weighted equations and their affine chains by anchors."""
    readers: dict[int, list[Equation]] = defaultdict(list)
    for equation in live:
        for value in set(equation.values):
            readers[value].append(equation)
    varying = simplify.varying_axes(program, hoisted)
    learned = _learned(program, hoisted, data)
    returned = frozenset(o for o in program.outputs if isinstance(o, int))
    groups: dict[Any, int] = {}
    absorbed: set[int] = set()
    steps: list[Step] = []

    def is_data(operand: Operand) -> bool:
        return isinstance(operand, int) and operand in data

    for equation in live:
        if id(equation) in absorbed:
            continue
        layout = simplify.channel_layout(equation, is_data)
        weight = equation.inputs[layout.position] if layout else None
        if layout is None or not isinstance(weight, int) or weight not in learned:
            steps.append(equation)
            continue
        folds, chain, result = simplify.find_chain(
            equation, layout, readers=readers, is_data=is_data,
            varying=varying, returned=returned, program=program,
        )  # fmt: skip
        absorbed.update(id(e) for e in chain)
        # Additions leave the weight as it is; anything else makes it the layer's own.
        shared = all(f.primitive in ("add", "sub") and not f.on_left for f in folds)
        key = (weight, layout.channel_axes) if shared else object()
        spec = WeightSpec(
            value=weight,
            position=layout.position,
            shape=tuple(program.avals[weight].shape),
            channel_axes=layout.channel_axes,
            output_axes=layout.output_axes,
            folds=folds,
            group=groups.setdefault(key, len(groups)),
        )
        steps.append(simplify.Anchor(equation=equation, weight=spec, chain=chain, result=result))
    return steps


def _learned(
    program: FlatProgram, hoisted: Sequence[Equation], data: frozenset[int]
) -> frozenset[int]:
    """Finds floats made of parameters or captured arrays.

    The rest is computed from nothing, as the matrices of a linear resize are: no
    weight that could be quantized. Nor are integers.
    """
    found = {*program.inputs, *program.constants} - data
    for equation in hoisted:
        if found.intersection(equation.values):
            found.update(equation.outputs)
    return frozenset(v for v in found if jnp.issubdtype(program.avals[v].dtype, jnp.floating))


def _build(
    groups: Sequence[Group], program: FlatProgram, num_params: int, data: frozenset[int]
) -> tuple[tuple[Layer, ...], list[tuple[int, Tensor]]]:
    """Makes layers and tensors from groups; tensors come with their value numbers."""
    reads = [_read_by(group, data) for group in groups]
    consumers: dict[int, list[int]] = defaultdict(list)
    for index, values in enumerate(reads):
        for value in values:
            consumers[value].append(index)
    returned = frozenset(o for o in program.outputs if isinstance(o, int))
    names = _names(groups)
    tensors: list[tuple[int, Tensor]] = []

    def add(value: int, name: str, producer: int) -> None:
        aval = program.avals[value]
        tensor = Tensor(
            name=name, shape=tuple(aval.shape), dtype=np.dtype(aval.dtype), producer=producer,
            consumers=tuple(consumers[value]), is_output=value in returned,
        )  # fmt: skip
        tensors.append((value, tensor))

    for number, value in enumerate(program.inputs[num_params:]):
        add(value, f"input.{number}" if number else "input", -1)
    written = []
    for index, group in enumerate(groups):
        made = [v for step in group.steps for v in results(step)]
        out = [v for v in made if v in returned or any(c != index for c in consumers[v])]
        written.append(tuple(out))
        for number, value in enumerate(out):
            add(value, f"{names[index]}.{number}" if number else names[index], index)
    position = {value: t for t, (value, _) in enumerate(tensors)}
    layers = tuple(
        _layer(group, name, ins, outs, position, program, data)
        for group, name, ins, outs in zip(groups, names, reads, written, strict=True)
    )
    return layers, tensors


def _read_by(group: Group, data: frozenset[int]) -> tuple[int, ...]:
    made = {v for step in group.steps for v in results(step)}
    values = [v for step in group.steps for v in equation_of(step).values]
    return tuple(dict.fromkeys(v for v in values if v in data and v not in made))


def _layer(
    group: Group,
    name: str,
    ins: tuple[int, ...],
    outs: tuple[int, ...],
    position: dict[int, int],
    program: FlatProgram,
    data: frozenset[int],
) -> Layer:
    anchor = next((s for s in group.steps if isinstance(s, simplify.Anchor)), None)
    equations = tuple(equation_of(s) for s in group.steps)
    weight = anchor.weight if anchor else None
    constants = tuple(
        dict.fromkeys(
            v for e in equations for v in e.values
            if v not in data and not (anchor and e is anchor.equation and v == anchor.weight.value)
        )
    )  # fmt: skip
    size = {v: math.prod(program.avals[v].shape) for v in (*ins, *outs, *constants)}
    bias = weight.channels if weight and weight.folds else 0
    rest = sum(size[v] for v in constants)
    return Layer(
        name=name,
        kind=group.kind,
        inputs=tuple(position[v] for v in ins),
        outputs=tuple(position[v] for v in outs),
        weight=weight,
        has_bias=bool(bias),
        anchor=anchor.equation if anchor else None,
        folded=anchor.result if anchor else None,
        equations=equations,
        input_values=ins,
        output_values=outs,
        constants=constants,
        constant_bytes=sum(size[v] * _itemsize(program.avals[v].dtype) for v in constants),
        activation=tuple(e.primitive for e in equations if not anchor or e is not anchor.equation),
        workloads=layer_workloads(
            equations,
            input_elements=sum(size[v] for v in ins),
            output_elements=sum(size[v] for v in outs),
            weight_elements=(weight.size if weight else 0) + bias + rest,
            weight_on_left=bool(weight and weight.position == 0 and group.kind == "matmul"),
        ),
    )


def _itemsize(dtype: Any) -> int:
    return int(getattr(dtype, "itemsize", 4))


def _names(groups: Sequence[Group]) -> list[str]:
    """Names groups by the module path of their main step; equal names get a number."""
    stems = []
    for group in groups:
        main = next((s for s in group.steps if isinstance(s, simplify.Anchor)), group.steps[0])
        scope = equation_of(main).scope
        path = re.sub(r"\w+\((.*?)\)", r"\1", scope)
        stem = f"{path}/{group.kind}" if path and not isinstance(main, simplify.Anchor) else path
        stems.append(stem or group.kind)
    roots = {stem.partition("/")[0] for stem in stems}
    if len(roots) == 1 and all("/" in stem for stem in stems):
        # The name of the whole network, which every path begins with, tells nothing.
        stems = [stem.partition("/")[2] for stem in stems]
    total, seen, names = Counter(stems), Counter[str](), []
    for stem in stems:
        names.append(f"{stem}_{seen[stem]}" if total[stem] > 1 else stem)
        seen[stem] += 1
    return names


def _fingerprint(program: FlatProgram, num_params: int) -> str:
    """Hashes the structure: primitives, parameters, shapes and wiring; not the weights."""
    digest = hashlib.sha256(str((num_params, program.inputs)).encode())
    for equation in program.equations:
        wiring = [i if isinstance(i, int) else f"={i.value}" for i in equation.inputs]
        # Addresses of Python objects differ from process to process.
        params = re.sub(r"0x[0-9a-f]+", "", str(sorted(equation.params.items(), key=str)))
        shapes = [str(program.avals[v]) for v in equation.outputs]
        digest.update(f"{equation.primitive} {wiring} {params} {shapes}".encode())
    outputs = [o if isinstance(o, int) else f"={o.value}" for o in program.outputs]
    digest.update(str(outputs).encode())
    return digest.hexdigest()
