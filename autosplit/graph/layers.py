"""LayerGraph: what a traced function is made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from autosplit.errors import CutError
from autosplit.graph import cuts, drawing, summary
from autosplit.graph.inlining import Equation, FlatProgram, Literal, Operand
from autosplit.workload import Workload


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value that passes between layers, or in and out of the graph.

    Attributes:
      name: of the layer that writes it, or ``input``, ``input.1``, ...
      shape: as traced.
      dtype: NumPy dtype.
      producer: index of the layer that writes it; -1 for a graph input.
      consumers: indices of the layers that read it.
      is_output: it is an output of the graph.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    producer: int
    consumers: tuple[int, ...]
    is_output: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_float(self) -> bool:
        """True where the tensor can be quantized."""
        return np.issubdtype(self.dtype, np.floating) or str(self.dtype) == "bfloat16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
    """One step of a per-channel affine chain: ``y = op(x, operand)`` or ``op(operand, x)``.

    Attributes:
      primitive: ``add``, ``sub``, ``mul``, ``div`` or ``neg``.
      operand: value number or literal; None for ``neg``.
      on_left: the operand is the left argument.
    """

    primitive: str
    operand: Operand | None
    on_left: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightSpec:
    """The weight of a layer and where its output channels lie.

    Attributes:
      value: number of the hoisted value.
      position: which operand of the anchor equation it is.
      shape: of the weight.
      channel_axes: axes of the weight that are output channels; quantization is
        per channel over them.
      output_axes: the axes of the anchor's output that they become.
      folds: the affine chain that is folded into weight and bias.
      group: layers with equal groups share one stored weight.
    """

    value: int
    position: int
    shape: tuple[int, ...]
    channel_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    folds: tuple[Fold, ...]
    group: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def channels(self) -> int:
        """Number of scales (and of bias elements)."""
        return int(np.prod([self.shape[a] for a in self.channel_axes], dtype=np.int64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution, product or other step with all that is fused into it.

    Attributes:
      name: module path, or kind and number.
      kind: ``conv matmul add concat pool resize reduce elementwise reshape gather scatter
        sort loop``.
      inputs, outputs: tensor indices.
      weight: what is quantized; None where there is nothing.
      has_bias: a folded bias is added to the anchor's output.
      anchor: first equation, whose weight is replaced; None where there is no weight.
      folded: number of the value that the folded chain defines.
      equations: the remaining equations in order.
      input_values, output_values: value numbers of inputs and outputs.
      constants: numbers of the hoisted values that the equations read.
      constant_bytes: their size (kept in float on the edge).
      activation: names of the fused primitives, for people.
      workloads: the arithmetic; several for a loop over several products.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weight: WeightSpec | None
    has_bias: bool
    anchor: Equation | None
    folded: int | None
    equations: tuple[Equation, ...]
    input_values: tuple[int, ...]
    output_values: tuple[int, ...]
    constants: tuple[int, ...]
    constant_bytes: int
    activation: tuple[str, ...]
    workloads: tuple[Workload, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return sum(w.macs for w in self.workloads)

    @property
    def weight_elements(self) -> int:
        """Elements of the quantized weight, without bias."""
        return self.weight.size if self.weight else 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerGraph:
    """The layers of a function in topological order, and the tensors between them.

    Attributes:
      layers: L layers.
      tensors: T tensors, graph inputs first.
      inputs: tensor index of each flat input.
      outputs: for each flat output a tensor index, or None where it depends on
        parameters alone (then ``program.outputs`` tells which value).
      program: the flat program that the layers were cut from.
      hoisted: the equations that depend on parameters alone.
      num_params: how many of the program's inputs are parameters.
      in_tree, param_tree, out_tree: pytree structures of inputs, params, outputs.
      fingerprint: hex digest of the structure (not of the weights).

    Graphs compare and hash by identity, so that one can be a static argument of `jax.jit`.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    program: FlatProgram
    hoisted: tuple[Equation, ...]
    num_params: int
    in_tree: Any
    param_tree: Any
    out_tree: Any
    fingerprint: str

    @functools.cached_property
    def ancestors(self) -> np.ndarray:
        """bool[L, L]: column layers on which the row layer depends, directly or not."""
        count = len(self.layers)
        closure = np.zeros((count, count), bool)
        for index, layer in enumerate(self.layers):
            for tensor in layer.inputs:
                producer = self.tensors[tensor].producer
                if producer >= 0:
                    closure[index] |= closure[producer]
                    closure[index, producer] = True
        return closure

    @property
    def output_shapes(self) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each flat output."""
        shapes = []
        for operand in self.program.outputs:
            value = operand.value if isinstance(operand, Literal) else self.program.avals[operand]
            shapes.append((tuple(np.shape(value)), np.dtype(value.dtype)))
        return shapes

    def layer_index(self, name: str) -> int:
        """Returns the index of the layer called ``name``; raises `CutError` if there is none."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise CutError(f"No layer is called {name!r}; the graph has: {', '.join(names)}.")
        return names.index(name)

    def cut(self, edge_layers: Iterable[str | int], name: str = "") -> cuts.Cut:
        """Makes a cut from the layers that run on the edge.

        Args:
          edge_layers: names or indices; must be closed under predecessors.
          name: in words; by default the last edge layer.

        Raises:
          CutError: a layer is unknown or the set is not closed.
        """
        on_edge = [False] * len(self.layers)
        for item in edge_layers:
            index = self.layer_index(item) if isinstance(item, str) else int(item)
            if not 0 <= index < len(self.layers):
                raise CutError(f"Layer {index} does not exist; expected 0 to {len(self.layers)-1}.")
            on_edge[index] = True
        return cuts.make_cut(self, tuple(on_edge), name)

    def cut_after(self, name: str) -> cuts.Cut:
        """Returns the smallest cut with the layer ``name`` on the edge."""
        index = self.layer_index(name)
        return self.cut([*np.flatnonzero(self.ancestors[index]), index], name=f"after {name}")

    def cuts(self, limit: int = 4096) -> tuple[cuts.Cut, ...]:
        """Lists candidate cuts, cloud-only first and edge-only last.

        See `autosplit.graph.cuts.enumerate_cuts`.
        """
        return cuts.enumerate_cuts(self, limit=limit)[0]

    def summary(self) -> str:
        """Returns a table of the layers: kind, output shape, MACs, weights."""
        return summary.summary_table(self)

    def to_svg(self, on_edge: Iterable[bool] = (), bits: dict[int, str] | None = None) -> str:
        """Draws the graph as SVG, with the cut if ``on_edge`` (a flag per layer) is given."""
        return drawing.draw_svg(self, tuple(on_edge), bits or {})
