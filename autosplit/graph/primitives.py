"""What each JAX primitive means to the tracer: one literal table.

A primitive that is in none of these sets and depends on the inputs raises
`UnknownPrimitiveError`: its cost would otherwise be left out silently.
Primitives that depend on parameters alone are hoisted and may be anything.
"""

from __future__ import annotations

from autosplit.errors import UnknownPrimitiveError
from autosplit.graph import _jax_compat as compat
from autosplit.graph.inlining import Equation

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv
    erfc exp exp2 expm1 floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p
    logistic lt max min mul ne neg nextafter not optimization_barrier or population_count pow
    real reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor
    """.split()
)
MOVEMENT = frozenset(
    """
    bitcast_convert_type broadcast_in_dim device_put dynamic_slice expand_dims iota
    layout_constraint pad reshape rev sharding_constraint slice split squeeze tile transpose
    """.split()
)
REDUCE = frozenset(
    """
    argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce reduce_and reduce_max reduce_min
    reduce_or reduce_prod reduce_sum reduce_xor
    """.split()
)
POOL = frozenset(
    """
    reduce_window reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add
    select_and_scatter_add
    """.split()
)
LOOP = frozenset({"scan", "while", "cond"})
SORT = frozenset({"sort", "top_k", "approx_top_k"})
SCATTER = frozenset(
    """
    dynamic_update_slice scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub
    scatter_add scatter_max scatter_min scatter_mul scatter_sub
    """.split()
)

_KINDS = {
    "conv_general_dilated": "conv",
    "dot_general": "matmul",
    "concatenate": "concat",
    "stack": "concat",
    "gather": "gather",
}
_FAMILIES = {
    "elementwise": ELEMENTWISE,
    "movement": MOVEMENT,
    "reduce": REDUCE,
    "pool": POOL,
    "loop": LOOP,
    "sort": SORT,
    "scatter": SCATTER,
}


def is_differentiable(equation: Equation) -> bool:
    """Tells whether reverse mode passes an equation: a loop of unknown length stops it."""
    return not _holds_while(equation.eqn)


def _holds_while(eqn: compat.JaxprEqn) -> bool:
    inner = (e for body in compat.bodies(eqn) for e in body.jaxpr.eqns)
    return eqn.primitive.name == "while" or any(_holds_while(e) for e in inner)


def family(equation: Equation) -> str:
    """Returns the family of an equation.

    One of ``conv matmul concat gather elementwise movement reduce pool loop sort scatter``.

    Raises:
      UnknownPrimitiveError: the primitive is in no family.
    """
    name = equation.primitive
    if name in _KINDS:
        return _KINDS[name]
    for kind, members in _FAMILIES.items():
        if name in members:
            return kind
    place = equation.scope or compat.source(equation.eqn) or compat.source(equation.caller)
    raise UnknownPrimitiveError(
        f"Primitive {name!r} at {place} depends on the "
        "inputs and has no rule, so its cost is unknown; expected one of the primitives in "
        "autosplit/graph/primitives.py. Compute it outside the traced function, write it with "
        "other operations, or add it to the family it belongs to."
    )
