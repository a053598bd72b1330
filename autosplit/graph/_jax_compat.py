"""Everything that depends on JAX's jaxpr data structures, in one place.

Only this module knows attribute names of jaxprs, equations and variables, so a
change in JAX is mended here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

Jaxpr = jex.Jaxpr
ClosedJaxpr = jex.ClosedJaxpr
JaxprEqn = jex.JaxprEqn

# Calls that only name, differentiate or schedule their body: the body is
# inlined. Value: the parameter that holds the body.
_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


# A jaxpr of one equation has no argument names to tell.
_NAMELESS = jex.DebugInfo("autosplit", "one equation", None, None)


def make_jaxpr(fn: Callable[..., Any], args: Sequence[Any]) -> tuple[ClosedJaxpr, Any]:
    """Traces ``fn(*args)``; returns the closed jaxpr and the pytree of output shapes."""

    # JAX remembers traces by function: a new one is needed to run ``fn`` again.
    def fresh(*arguments: Any) -> Any:
        return fn(*arguments)

    return jax.make_jaxpr(fresh, return_shape=True)(*args)


def same_array(first: Any, second: Any) -> bool:
    """Tells whether two captured arrays hold the same bits."""
    if first is second:
        return True
    if jnp.issubdtype(getattr(first, "dtype", np.float32), jax.dtypes.prng_key):
        first, second = jax.random.key_data(first), jax.random.key_data(second)
    return np.asarray(first).tobytes() == np.asarray(second).tobytes()


def inlined_body(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """Returns the body of a call that is to be inlined, or None."""
    field = _INLINED.get(eqn.primitive.name)
    if field is None or field not in eqn.params:
        return None
    body = eqn.params[field]
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def bodies(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """Returns every sub-jaxpr of a control-flow equation, in the order of its parameters."""
    found: list[ClosedJaxpr] = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item)
            elif isinstance(item, Jaxpr):
                found.append(ClosedJaxpr(item, ()))
    return found


def is_literal(atom: Any) -> bool:
    """Tells a literal (a constant written into the equation) from a variable."""
    return isinstance(atom, jex.Literal)


def scope(eqn: JaxprEqn) -> str:
    """Returns the module path of an equation, relative to its jaxpr ("" where there is none)."""
    return str(eqn.source_info.name_stack)


def source(eqn: JaxprEqn) -> str:
    """Returns ``file:line (function)`` of the user's code that made an equation."""
    # Best effort, for error messages only: the summariser is not public.
    with contextlib.suppress(Exception):
        from jax._src import source_info_util

        return source_info_util.summarize(eqn.source_info)
    return "unknown place"


def evaluate(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Runs one equation on values given in the order of its inputs (literals included)."""
    variables: list[Any] = []
    values: list[Any] = []
    for atom, value in zip(eqn.invars, operands, strict=True):
        if not is_literal(atom) and not any(atom is v for v in variables):
            variables.append(atom)
            values.append(value)
    jaxpr = Jaxpr(
        constvars=(),
        invars=variables,
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
        debug_info=_NAMELESS,
    )
    return jax.core.eval_jaxpr(jaxpr, (), *values)
