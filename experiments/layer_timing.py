"""Times every distinct layer of a graph, in float and in 8 bits, on this machine.

A call from Python costs some 70 microseconds, more than many a layer takes. So each layer
is repeated within one compiled program whose length is an argument, and takes ``(time of k
repetitions - time of none) / k``: dispatch, argument handling and copies cancel. A barrier
before each repetition, through which all operands and the last result go, keeps XLA from
computing the layer once.

Thereby a layer finds its weights and inputs in the caches that they fit; in the network
they may have been evicted. And XLA optimizes across layers in the network, for better
or worse. Both are in the difference between the sum of the layers and the network, which
is measured beside them, in the same rounds.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from autosplit.execution.edge_layers import (
    EdgeLayer,
    edge_layer,
    integer_weight,
    run_edge_layer,
)
from autosplit.execution.grids import encode, make_grid
from autosplit.execution.weights import PACKED_BITS, IntegerWeight, pack_weight
from autosplit.graph import Layer, LayerGraph
from autosplit.graph.running import (
    GraphWeights,
    LayerWeights,
    flat_outputs,
    run_layer,
    run_layers,
)
from autosplit.workload import Workload

SAMPLE_S = 4e-3
"""Least duration of a sample, so that the clock and the dispatch do not matter."""
_MOST_REPETITIONS = 2000

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """A step that one compiled program repeats.

    Attributes:
      program: ``program(count, arguments)``.
      arguments: of the step.
      count: repetitions of one sample.
    """

    program: Callable[..., Any]
    arguments: Any
    count: int

    def call_s(self, count: int) -> float:
        """Times one call of the program."""
        return seconds_of(self.program, count, self.arguments)

    def sample_s(self) -> float:
        """Times one repetition; noise may make it negative."""
        return (self.call_s(self.count) - self.call_s(0)) / self.count


def repeat(step: Callable[..., Any], arguments: Sequence[Any], sample_s: float) -> Repeated:
    """Compiles a step and chooses how often a sample repeats it.

    Args:
      step: a pure function of the arguments.
      arguments: arrays or pytrees of them.
      sample_s: least duration of a sample.
    """

    def run(count: Any, arguments: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            operands, _ = lax.optimization_barrier(carry)
            return operands, step(*operands)

        shapes = jax.eval_shape(step, *arguments)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return lax.fori_loop(0, count, body, (arguments, nothing))[1]

    made = Repeated(program=jax.jit(run), arguments=tuple(arguments), count=2)
    made.call_s(2)  # compiles
    one_s = max(made.sample_s(), 1e-9)
    count = min(max(int(sample_s / one_s), 2), _MOST_REPETITIONS)
    return dataclasses.replace(made, count=count)


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    """Times one call until its result is there."""
    start_s = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeTimes:
    """The samples of one distinct layer.

    Attributes:
      layers: indices of the layers that are alike.
      layer: the first of them.
      form: how it was computed in 8 bits, see `autosplit.execution.edge_layers`.
      float_s: f64[R], one sample a round.
      int8_s: f64[R], the same where there is no 8-bit form.
    """

    layers: tuple[int, ...]
    layer: Layer
    form: str
    float_s: np.ndarray
    int8_s: np.ndarray

    @property
    def median_float_s(self) -> float:
        """Median, 0 or more."""
        return max(float(np.median(self.float_s)), 0.0)

    @property
    def median_int8_s(self) -> float:
        """Median, 0 or more."""
        return max(float(np.median(self.int8_s)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphTimes:
    """The samples of all distinct layers, and of the network.

    Attributes:
      shapes: one per distinct layer.
      network_s: f64[R], the whole float network within a program, as the layers were timed.
      call_s: f64[R], the whole float network called from Python once.
    """

    shapes: tuple[ShapeTimes, ...]
    network_s: np.ndarray
    call_s: np.ndarray

    @property
    def layer_sum_s(self) -> float:
        """Sum over all layers of the float medians."""
        return sum(len(s.layers) * s.median_float_s for s in self.shapes)

    @property
    def int8_sum_s(self) -> float:
        """Sum over all layers of the 8-bit medians, or the float's where those are less."""
        return sum(len(s.layers) * min(s.median_int8_s, s.median_float_s) for s in self.shapes)

    def workload_seconds(self) -> dict[Workload, tuple[float, float, str]]:
        """Returns the float and 8-bit seconds of every distinct workload, and its form.

        A layer of several products shares its time among them by their MACs. Layers
        that differ, but have one workload, have their mean, so that the sum over the graph stays.
        """
        count: Counter[Workload] = Counter()
        total: dict[Workload, np.ndarray] = {}
        form: dict[Workload, str] = {}
        for shape in self.shapes:
            seconds = np.array([shape.median_float_s, shape.median_int8_s])
            workloads = shape.layer.workloads
            macs = np.array([w.macs for w in workloads], np.float64)
            share = macs / macs.sum() if macs.sum() else np.full(len(macs), 1 / len(macs))
            for workload, part in zip(workloads, share, strict=True):
                count[workload] += len(shape.layers)
                total[workload] = total.get(workload, 0.0) + len(shape.layers) * part * seconds
                form.setdefault(workload, shape.form)
        return {w: (*(total[w] / count[w]).tolist(), form[w]) for w in total}


def alike_layers(graph: LayerGraph) -> list[tuple[int, ...]]:
    """Groups the layers that run the same program, in the order of their first."""
    groups: dict[Any, list[int]] = {}
    for index, layer in enumerate(graph.layers):
        equations = tuple(
            (e.primitive, str(e.params), tuple(str(v.aval) for v in e.eqn.invars))
            for e in layer.equations
        )
        # What reads the network's input reads floats on the edge.
        from_sensor = tuple(t in graph.inputs for t in layer.inputs)
        key = (layer.workloads, layer.kind, equations, from_sensor)
        groups.setdefault(key, []).append(index)
    return [tuple(group) for group in groups.values()]


def time_graph(
    graph: LayerGraph,
    weights: GraphWeights,
    inputs: Sequence[jax.Array],
    rounds: int,
    *,
    sample_s: float = SAMPLE_S,
    tell: Tell = print,
) -> GraphTimes:
    """Times the network and each distinct layer, ``rounds`` times in turn.

    In turn, so that whatever else the machine does falls on all of them.

    Args:
      graph: the traced function.
      weights: from `prepare`.
      inputs: flat inputs of the network.
      rounds: samples of each; their median counts.
      sample_s: least duration of a sample.
      tell: is given one line for each layer that was compiled, and one for the rounds.
    """
    forward = jax.jit(lambda w, x: _forward(graph, w, x))
    seconds_of(forward, weights, inputs)
    network = repeat(lambda w, x: _forward(graph, w, x), (weights, inputs), sample_s)
    groups = alike_layers(graph)
    programs, start_s = [], time.perf_counter()
    for number, group in enumerate(groups, 1):
        programs.append(_programs(graph, weights, group[0], sample_s))
        left_s = (time.perf_counter() - start_s) / number * (len(groups) - number)
        layer = graph.layers[group[0]]
        tell(f"   {number:3d} of {len(groups)}  {layer.name}, {len(group)} alike: compiled; "
             f"{left_s:.0f} s left")  # fmt: skip
    tell(f"   {rounds} rounds")
    samples = [_round(programs, network, forward) for _ in range(rounds)]
    layer_samples = np.array([s[0] for s in samples])
    shapes = tuple(
        ShapeTimes(
            layers=group,
            layer=graph.layers[group[0]],
            form=integer_step(graph, group[0]).form(jax.default_backend()),
            float_s=layer_samples[:, position, 0],
            int8_s=layer_samples[:, position, 1],
        )
        for position, group in enumerate(groups)
    )
    network_s, call_s = (np.array([s[i] for s in samples]) for i in (1, 2))
    return GraphTimes(shapes=shapes, network_s=network_s, call_s=call_s)


def _forward(graph: LayerGraph, weights: GraphWeights, inputs: Sequence[Any]) -> list[Any]:
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    known = run_layers(graph, weights, tensors, range(len(graph.layers)))
    return flat_outputs(graph, weights, known)


def integer_step(graph: LayerGraph, index: int) -> EdgeLayer:
    """Returns a layer as the edge runs it at 8 bits, with any clip: times do not depend on it."""
    grids = [
        make_grid(-2.5, 3.5, PACKED_BITS) if tensor.is_float and t not in graph.inputs else None
        for t, tensor in enumerate(graph.tensors)
    ]
    return edge_layer(graph, index, grids, PACKED_BITS)


def integer_arguments(
    step: EdgeLayer, own: LayerWeights
) -> tuple[LayerWeights, IntegerWeight | None]:
    """Returns what the layer reads beside its tensors, its weight quantized."""
    if step.product is None or own.weight is None:
        return own, None
    clip = jnp.abs(own.weight).max(initial=0.0)
    axes = step.product.weight.channel_axes
    packed = pack_weight(own.weight, axes, clip, PACKED_BITS, PACKED_BITS)
    return dataclasses.replace(own, weight=None), integer_weight(step.product, packed)


def _programs(
    graph: LayerGraph, weights: GraphWeights, index: int, sample_s: float
) -> tuple[Repeated, Repeated | None]:
    """Compiles one layer in float and, where it has such a form, in 8 bits."""
    layer, own, step = graph.layers[index], weights.layers[index], integer_step(graph, index)
    random = np.random.default_rng(index)
    floats, codes = [], []
    for tensor, grid in zip((graph.tensors[t] for t in layer.inputs), step.inputs, strict=True):
        # Indices and flags are 0, which every layer accepts.
        drawn = random.normal(size=tensor.shape) if tensor.is_float else np.zeros(tensor.shape)
        floats.append(jnp.asarray(drawn, tensor.dtype))
        codes.append(floats[-1] if grid is None else encode(grid, floats[-1]))
    in_float = repeat(lambda w, x: run_layer(layer, w, x, w.weight), (own, floats), sample_s)
    if step.form(jax.default_backend()) == "float":
        return in_float, None
    arguments = (*integer_arguments(step, own), codes)
    return in_float, repeat(lambda w, q, x: run_edge_layer(step, w, q, x), arguments, sample_s)


def _round(
    programs: Sequence[tuple[Repeated, Repeated | None]],
    network: Repeated,
    forward: Callable[..., Any],
) -> tuple[list[tuple[float, float]], float, float]:
    """Takes one sample of everything: of the layers, of the network within a program, of a call."""
    layers = []
    for in_float, in_int8 in programs:
        float_s = in_float.sample_s()
        layers.append((float_s, float_s if in_int8 is None else in_int8.sample_s()))
    call_s = statistics.median(seconds_of(forward, *network.arguments) for _ in range(3))
    return layers, network.sample_s(), call_s
