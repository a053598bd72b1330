"""Groups equations into layers, by structure alone.

Every equation that depends on the inputs ends up in exactly one group. A group
starts at an *anchor* (convolution, product, pool, concatenation, loop, ...) or at
a cheap equation, and grows over cheap equations behind it for as long as what
leaves it is one tensor: so ``x * sigmoid(x)`` joins the convolution before it,
while a convolution whose result is also read by a skip connection ends there.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from autosplit.graph import primitives
from autosplit.graph.inlining import Equation, FlatProgram
from autosplit.graph.simplify import Anchor

Step = Equation | Anchor

_CHEAP = frozenset({"elementwise", "movement", "reduce"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The steps of one layer, in order.

    Attributes:
      kind: of the layer.
      steps: at least one.
    """

    kind: str
    steps: tuple[Step, ...]


def equation_of(step: Step) -> Equation:
    """Returns the equation of a step (the anchor's own, where a chain was folded)."""
    return step.equation if isinstance(step, Anchor) else step


def results(step: Step) -> tuple[int, ...]:
    """Returns the values that a step defines."""
    return (step.result,) if isinstance(step, Anchor) else step.outputs


def group_steps(
    steps: Sequence[Step], program: FlatProgram, data: frozenset[int]
) -> tuple[Group, ...]:
    """Groups steps into layers.

    Args:
      steps: in topological order.
      program: for shapes and outputs.
      data: values that depend on the inputs.

    Returns:
      Groups in topological order.
    """
    grower = _Grower(steps, program, data)
    groups = [grower.grow(index) for index in range(len(steps)) if index not in grower.taken]
    merged = _merge_leading(groups, grower)
    return _sort(merged, grower)


class _Grower:
    """Knows who reads what, and which steps already belong to a group."""

    def __init__(self, steps: Sequence[Step], program: FlatProgram, data: frozenset[int]):
        self.steps = steps
        self.program = program
        self.data = data
        self.taken: set[int] = set()
        self.readers: dict[int, list[int]] = defaultdict(list)
        for index in range(len(steps)):
            for value in self.reads(index):
                self.readers[value].append(index)
        self.returned = frozenset(o for o in program.outputs if isinstance(o, int))

    def reads(self, index: int) -> frozenset[int]:
        """Data values that a step reads."""
        return frozenset(equation_of(self.steps[index]).values) & self.data

    def family(self, index: int) -> str:
        return primitives.family(equation_of(self.steps[index]))

    def is_anchor(self, index: int) -> bool:
        return isinstance(self.steps[index], Anchor)

    def size(self, value: int) -> int:
        return math.prod(self.program.avals[value].shape)

    def enlarges(self, index: int) -> bool:
        """A movement that writes more than it reads (pad, upsampling)."""
        read = max((self.size(v) for v in self.reads(index)), default=0)
        return sum(self.size(v) for v in results(self.steps[index])) > read

    def grow(self, start: int) -> Group:
        """Makes the group that starts at a step and marks its steps as taken."""
        kind = self.kind(start)
        members, kept = [start], 1
        values = set(results(self.steps[start]))
        outside = self.reads(start) if kind in ("elementwise", "reduce") else frozenset()
        # A normalisation reads its input several times: every reader may join.
        waiting = {r for value in values | outside for r in self.readers[value] if r > start}
        heap = sorted(waiting)
        # Live: read by a step that is no member, or returned. Counted as members
        # join, because a long chain would otherwise take quadratic time.
        unread = {value: len(self.readers[value]) for value in values}
        live = sum(self._is_live(value, unread) for value in values)
        while heap:
            index = heapq.heappop(heap)
            if not self._joins(index, kind, values, outside):
                continue
            members.append(index)
            for value in self.reads(index) & values:
                unread[value] -= 1
                live -= not self._is_live(value, unread)
            for value in results(self.steps[index]):
                values.add(value)
                unread[value] = len(self.readers[value])
                live += self._is_live(value, unread)
                for reader in self.readers[value]:
                    if reader not in waiting:
                        waiting.add(reader)
                        heapq.heappush(heap, reader)
            if live == 1:
                kept = len(members)
        self.taken.update(members[:kept])
        return Group(kind=kind, steps=tuple(self.steps[i] for i in members[:kept]))

    def _is_live(self, value: int, unread: Mapping[int, int]) -> bool:
        return value in self.returned or unread[value] > 0

    def _joins(self, index: int, kind: str, values: set[int], outside: frozenset[int]) -> bool:
        family = self.family(index)
        # A nearest-neighbour resize is one gather for each axis.
        repeats = kind == "resize" and family == "gather" and not self.is_anchor(index)
        if index in self.taken or not (family in _CHEAP or repeats):
            return False
        soft = kind in ("elementwise", "reduce")
        if not soft and (family == "reduce" or (family == "movement" and self.enlarges(index))):
            return False
        return self.reads(index) <= (values | outside)

    def kind(self, index: int) -> str:
        family = self.family(index)
        if family == "gather" and not self.is_anchor(index):
            return "resize" if self.enlarges(index) else "reshape"
        if family == "movement":
            return "resize" if self.enlarges(index) and self._repeats(index) else "reshape"
        if family == "elementwise":
            adds = equation_of(self.steps[index]).primitive in ("add", "sub", "add_any")
            return "add" if adds and len(self.reads(index)) > 1 else "elementwise"
        if family == "reduce":
            return "reduce"
        return family

    def _repeats(self, index: int) -> bool:
        return equation_of(self.steps[index]).primitive in ("broadcast_in_dim", "tile")


def _merge_leading(groups: list[Group], grower: _Grower) -> list[Group]:
    """Joins layout changes, padding and input scaling to their only reader.

    Only single-reader groups move, so no cycle can arise.
    """
    current = list(groups)
    external = [_external(group, grower) for group in current]
    readers: dict[int, set[int]] = defaultdict(set)
    for index, values in enumerate(external):
        for value in values:
            readers[value].add(index)
    for index in range(len(current) - 1, -1, -1):
        group = current[index]
        scaling = group.kind == "elementwise" and external[index] <= set(grower.program.inputs)
        made = {v for step in group.steps for v in results(step)}
        targets = set().union(*(readers[v] for v in made))
        if not (group.kind == "reshape" or scaling) or made & grower.returned or len(targets) != 1:
            continue
        (target,) = targets
        current[target] = dataclasses.replace(
            current[target], steps=group.steps + current[target].steps
        )
        current[index] = Group(kind="", steps=())
        for value in external[index]:
            readers[value] = readers[value] - {index} | {target}
    return [g for g in current if g.steps]


def _external(group: Group, grower: _Grower) -> frozenset[int]:
    """Data values that a group reads and does not make."""
    made = {v for step in group.steps for v in results(step)}
    reads = frozenset().union(*(frozenset(equation_of(s).values) for s in group.steps))
    return (reads & grower.data) - made


def _sort(groups: list[Group], grower: _Grower) -> tuple[Group, ...]:
    """Orders groups topologically, ties in order of the program."""
    maker = {v: i for i, g in enumerate(groups) for s in g.steps for v in results(s)}
    needs = [{maker[v] for v in _external(g, grower) if v in maker} for g in groups]
    dependants: dict[int, list[int]] = defaultdict(list)
    for index, need in enumerate(needs):
        for other in need:
            dependants[other].append(index)
    ready = [i for i, need in enumerate(needs) if not need]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(groups[index])
        for other in dependants[index]:
            needs[other].discard(index)
            if not needs[other]:
                heapq.heappush(ready, other)
    return tuple(order)
