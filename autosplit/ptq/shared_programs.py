"""Compiled programs that layers of equal shape share, over all calls of a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

_PROGRAMS: dict[tuple[str, Any], Callable[..., Any]] = {}
_MOST_PROGRAMS = 512


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Returns a function of arrays, compiled once for all functions with equal equations.

    `jax.jit` compiles for each function object; layers of one shape are different functions
    with one jaxpr.

    Args:
      function: to compile. One that closes over arrays is not shared.
      *arguments: pytrees of arrays of the shapes that it will be called with.

    >>> import jax.numpy as jnp
    >>> double, twice = (compiled(f, jnp.ones(3)) for f in (lambda x: 2 * x, lambda y: 2 * y))
    >>> double is twice
    True
    """
    traced = jax.jit(function).trace(*arguments)
    if traced.jaxpr.consts:
        return traced.lower().compile()
    key = (str(traced.jaxpr), jax.tree.structure((arguments, traced.out_info)))
    if key not in _PROGRAMS:
        while len(_PROGRAMS) >= _MOST_PROGRAMS:
            del _PROGRAMS[next(iter(_PROGRAMS))]  # the oldest
        _PROGRAMS[key] = traced.lower().compile()
    return _PROGRAMS[key]


def run_shared(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function as `compiled`."""
    return compiled(function, *arguments)(*arguments)
