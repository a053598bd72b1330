"""Flattens a jaxpr: calls are inlined, every value gets a number, dead code is dropped."""

from __future__ import annotations

import dataclasses
from typing import Any

from autosplit.graph import _jax_compat as compat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Literal:
    """A constant that is written into an equation."""

    value: Any


Operand = int | Literal
"""What an equation reads: the number of a value, or a literal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Equation:
    """One primitive applied to numbered values.

    Attributes:
      eqn: the JAX equation, for its primitive and parameters.
      inputs: operands in order.
      outputs: numbers of the values it defines.
      scope: module path ("" where the function has no modules).
      caller: the equation of the traced function that it was inlined from, for
        messages: equations inside JAX's own functions have no place in the user's code.
    """

    eqn: Any  # a JaxprEqn, whose type promises no shape of its variables
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    scope: str
    caller: Any

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Static parameters of the primitive."""
        return self.eqn.params

    @property
    def values(self) -> tuple[int, ...]:
        """Numbers of the values it reads, literals left out."""
        return tuple(i for i in self.inputs if isinstance(i, int))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatProgram:
    """A pure function as one list of equations over numbered values.

    Attributes:
      inputs: value numbers of the flat arguments.
      outputs: operands that are returned, flat.
      equations: in topological order, dead ones dropped.
      avals: shape and dtype of each value.
      constants: captured arrays by value number.
    """

    inputs: tuple[int, ...]
    outputs: tuple[Operand, ...]
    equations: tuple[Equation, ...]
    avals: tuple[Any, ...]
    constants: dict[int, Any]


def flatten(closed: compat.ClosedJaxpr) -> FlatProgram:
    """Inlines all calls of ``closed`` and numbers its values.

    Args:
      closed: a jaxpr with its captured constants.

    Returns:
      The flat program. Values are numbered in the order of definition.
    """
    builder = _Builder()
    inputs = tuple(builder.new(v.aval) for v in closed.jaxpr.invars)
    outputs = builder.inline(closed, list(inputs), scope="")
    return FlatProgram(
        inputs=inputs,
        outputs=tuple(outputs),
        equations=_live(builder.equations, outputs),
        avals=tuple(builder.avals),
        constants=builder.constants,
    )


class _Builder:
    """Accumulates equations while calls are inlined recursively."""

    def __init__(self) -> None:
        self.avals: list[Any] = []
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}

    def new(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def inline(
        self, closed: compat.ClosedJaxpr, arguments: list[Operand], scope: str, caller: Any = None
    ) -> list[Operand]:
        """Appends the equations of ``closed`` applied to ``arguments``; returns its results."""
        jaxpr = closed.jaxpr
        bound: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            number = self.new(variable.aval)
            self.constants[number] = constant
            bound[variable] = number

        def read(atom: Any) -> Operand:
            return Literal(value=atom.val) if compat.is_literal(atom) else bound[atom]

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            # Inside sub-jaxprs the name stack is relative to the caller's.
            path = "/".join(part for part in (scope, compat.scope(eqn)) if part)
            body = compat.inlined_body(eqn)
            results: list[Operand]
            if body is not None:
                results = self.inline(body, operands, path, caller or eqn)
            else:
                numbers = tuple(self.new(v.aval) for v in eqn.outvars)
                self.equations.append(
                    Equation(
                        eqn=eqn, inputs=tuple(operands), outputs=numbers, scope=path,
                        caller=caller or eqn,
                    )
                )  # fmt: skip
                results = list(numbers)
            bound.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _live(equations: list[Equation], outputs: list[Operand]) -> tuple[Equation, ...]:
    """Drops equations whose results nobody reads."""
    needed = {o for o in outputs if isinstance(o, int)}
    kept = []
    for equation in reversed(equations):
        if needed.intersection(equation.outputs):
            needed.update(equation.values)
            kept.append(equation)
    return tuple(reversed(kept))
