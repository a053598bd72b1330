"""Learns the rounding of one layer on sampled patches: products in one compiled loop.

With ``dW`` what a rounding changes of the weight, the layer's output is ``act(base + X dW)``
where ``base = X W + b`` is computed once. The loop then needs ``X dW`` only, and for its
gradient ``X^T g``: both in bfloat16 for large layers, since an error of ``dW`` is small against
the weight (3 to 5 times faster than float32 on a CPU that has such products).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from autosplit.graph import Layer
from autosplit.graph.running import LayerWeights
from autosplit.ptq.products import ProductForm, elementwise_tail
from autosplit.ptq.shared_programs import run_shared
from autosplit.ptq.weight_grid import WeightGrid, hard_levels, soft_levels, start_of
from autosplit.quant.rounding import WARM_UP, beta_at, rounding_loss

_MOST_POSITIONS = 16384
_MOST_ELEMENTS = 1 << 25  # of all patches of a layer: 128 MiB in float32
_STEP_MACS = 1 << 29  # about what a step may cost
_FEWEST, _MOST = 256, 1024  # positions in a step, where there are so many
_COARSE_SIZE = 1 << 14  # weights of at least so many elements multiply in bfloat16


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundingOptions:
    """How rounding is learned.

    Attributes:
      steps: of Adam.
      learning_rate: of V.
      strength: of the rounding loss. The reconstruction error counts in units of what
        nearest rounding of one weight adds to it, so the strength has no dimension.
    """

    steps: int
    learning_rate: float = 3e-2
    strength: float = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedWeight:
    """What the reconstruction of a layer found.

    Attributes:
      weight: on its grid.
      error: of the layer's output on the sampled positions, over that of nearest rounding.
    """

    weight: jax.Array
    error: float


def learn_layer(
    layer: Layer,
    form: ProductForm,
    own: LayerWeights,
    grid: WeightGrid,
    plain: jax.Array,
    moved: jax.Array,
    *,
    options: RoundingOptions,
    batch: int,
    seed: int,
) -> LearnedWeight:
    """Learns which weights of a layer are rounded up.

    Channel by channel the result is never worse than nearest rounding on the positions that
    were sampled.

    Args:
      layer: what is reconstructed.
      form: of the layer.
      own: its weights in float.
      grid: of its weight.
      plain, moved: its input in the network in float and in the quantized one, ``[m, ...]``.
      options: of the optimizer.
      batch: calls in a step, whose positions are sampled.
      seed: chooses and orders the positions.
    """
    positions = _batches(form, own, len(plain), batch, seed)
    patches = [
        form.take(np.asarray(x), positions.ravel()).astype(np.float32) for x in (plain, moved)
    ]
    wanted, found = (jnp.asarray(p.reshape(*positions.shape, *p.shape[1:])) for p in patches)
    settings = jnp.array([options.learning_rate, options.strength], jnp.float32)

    def learn(own: LayerWeights, *arguments: Any) -> Any:
        activation = elementwise_tail(layer, own) or (lambda y: y)
        return _learn(form, activation, own, *arguments)

    weight, errors = run_shared(
        learn, own, grid, wanted, found, jnp.int32(options.steps), settings
    )
    learned, nearest = (float(e) for e in errors)
    return LearnedWeight(weight=weight, error=learned / nearest if nearest else 1.0)


def _batches(
    form: ProductForm, own: LayerWeights, calls: int, batch: int, seed: int
) -> np.ndarray:
    """Samples output positions without repetition, as i64[batches, positions in a step]."""
    assert own.weight is not None
    elements = form.groups * math.prod(form.shape[: -form.channel_rank])
    total = form.positions * calls
    count = min(total, _MOST_POSITIONS, max(_MOST_ELEMENTS // max(elements, 1), _FEWEST))
    affordable = min(max(_STEP_MACS // own.weight.size, _FEWEST), _MOST)
    step = min(max(batch * form.positions, _FEWEST), affordable, count)
    chosen = np.random.default_rng(seed).choice(total, count // step * step, replace=False)
    return chosen.reshape(-1, step)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Samples:
    """Patches and what they should give; the number of the batch comes first.

    Attributes:
      rows: ``[batches, P, groups, K]``, what the quantized network reads.
      columns: ``[batches, K, P]``, the same for gradients; None for several groups.
      base: f32[batches, P, O], ``X W + b`` of them.
      target: f32[batches, P, O], the layer's output in float.
    """

    rows: jax.Array
    columns: jax.Array | None
    base: jax.Array
    target: jax.Array


def _learn(
    form: ProductForm,
    activation: Callable[[jax.Array], jax.Array],
    own: LayerWeights,
    grid: WeightGrid,
    wanted: jax.Array,
    found: jax.Array,
    steps: jax.Array,
    settings: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Learns the rounding on patches ``[batches, P, groups, K]``; see `learn_layer`.

    Returns:
      The weight, and its error and that of nearest rounding, f32[2].
    """
    assert own.weight is not None
    shape = own.weight.shape
    weight = form.matrix(own.weight, shape).astype(jnp.float32)
    grid = jax.tree.map(lambda a: form.matrix(a, shape), grid)
    nearest = grid.nearest.astype(jnp.float32)
    samples = _samples(activation, own, weight, wanted, found)
    numbers = jnp.arange(len(found))

    def errors(candidate: jax.Array, number: jax.Array) -> jax.Array:
        """Squared error of a candidate on one batch, by channel."""
        one = jax.tree.map(lambda a: a[number], samples)
        outputs = activation(one.base + _product(candidate - weight, one.rows, one.columns))
        return jnp.sum((outputs - one.target) ** 2, axis=0)

    def rounding_error(number: jax.Array) -> jax.Array:
        """What nearest rounding adds to the outputs before the activation."""
        one = jax.tree.map(lambda a: a[number], samples)
        return jnp.sum(_product(nearest - weight, one.rows, one.columns) ** 2)

    own_error = lax.map(rounding_error, numbers).mean()
    unit = jnp.where(own_error > 0, weight.size / own_error, 0.0)

    def loss(v: jax.Array, step: jax.Array) -> jax.Array:
        rebuilt = errors(soft_levels(v, grid), step % len(found)).sum()
        strength = jnp.where(step >= WARM_UP * steps, settings[1], 0.0)
        return unit * rebuilt + strength * rounding_loss(v, beta_at(step, steps))

    v = minimize(loss, start_of(weight, grid), steps, settings[0])
    candidates = jnp.stack([hard_levels(v, grid), nearest])
    each = lax.map(lambda n: jax.vmap(lambda c: errors(c, n))(candidates), numbers).sum(0)
    better = (each[0] <= each[1]).reshape(form.groups, 1, -1)
    best = jnp.where(better, candidates[0], candidates[1])
    totals = jnp.stack([each.min(0).sum(), each[1].sum()])
    return form.weight(best).astype(own.weight.dtype), totals


def _samples(
    activation: Callable[[jax.Array], jax.Array],
    own: LayerWeights,
    weight: jax.Array,
    wanted: jax.Array,
    found: jax.Array,
) -> _Samples:
    """Computes what the loop reads, of patches of the two networks."""
    bias = jnp.zeros(()) if own.bias is None else own.bias.astype(jnp.float32).ravel()
    single = weight.shape[0] == 1
    # Depthwise weights are few; small products gain nothing by bfloat16.
    coarse = single and weight.size >= _COARSE_SIZE
    rows = found.astype(jnp.bfloat16) if coarse else found
    return _Samples(
        rows=rows,
        columns=rows[:, :, 0].transpose(0, 2, 1) if single else None,
        base=lax.map(lambda x: _product(weight, x, None) + bias, found),
        target=lax.map(lambda x: activation(_product(weight, x, None) + bias), wanted),
    )


def minimize(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    steps: jax.Array,
    learning_rate: jax.Array,
) -> jax.Array:
    """Runs Adam on ``loss(v, step)`` in a compiled loop; ``steps`` may be an array."""
    optimizer = optax.adam(learning_rate)

    def body(step: jax.Array, state: Any) -> Any:
        v, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(v, step), moments)
        return optax.apply_updates(v, updates), moments

    v, _ = lax.fori_loop(0, steps, body, (start, optimizer.init(start)))
    return v


def _product(matrix: jax.Array, x: jax.Array, x_t: jax.Array | None) -> jax.Array:
    """Multiplies patches ``[P, groups, K]`` with ``[groups, K, O]``: f32[P, groups * O]."""
    groups, _, outputs = matrix.shape
    if groups == 1:
        flat = x[:, 0]
        return _dense(matrix[0], flat, flat.T if x_t is None else x_t)
    if outputs == 1:
        return jnp.sum(x * matrix[..., 0], axis=-1)
    return jnp.einsum("pgk,gko->pgo", x, matrix).reshape(len(x), -1)


@jax.custom_vjp
def _dense(matrix: jax.Array, x: jax.Array, x_t: jax.Array) -> jax.Array:
    """Returns ``x matrix`` in float32; the gradient reads ``x_t``, laid out for it."""
    return lax.dot(x, matrix.astype(x.dtype), preferred_element_type=jnp.float32)


def _dense_forward(
    matrix: jax.Array, x: jax.Array, x_t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _dense(matrix, x, x_t), x_t


def _dense_backward(x_t: jax.Array, g: jax.Array) -> tuple[jax.Array, None, None]:
    return lax.dot(x_t, g.astype(x_t.dtype), preferred_element_type=jnp.float32), None, None


_dense.defvjp(_dense_forward, _dense_backward)
