"""A cut that no profile listed is found, and the two halves run there."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.hardware import EYERISS, TPU, Network
from autosplit.solvers.open_cuts import with_cuts


def branches(params, x):
    """Two long branches; the one that is written first grows, the other one shrinks."""
    grown = x
    for weight in params["grow"]:
        grown = jax.nn.relu(grown @ weight)
    shrunk = x
    for weight in params["shrink"]:
        shrunk = jax.nn.relu(shrunk @ weight)
    return grown.sum(-1) + shrunk.sum(-1)


@pytest.mark.heavy
def test_a_split_at_an_unlisted_cut_runs():
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def weights(*sizes):
        return [
            jax.random.normal(next(keys), shape) * (2 / shape[0]) ** 0.5
            for shape in itertools.pairwise(sizes)
        ]

    params = {"grow": weights(64, 256, 512), "shrink": weights(64, 32, 4, 2)}
    x = jax.random.normal(next(keys), (4, 64))
    graph = autosplit.trace(branches, params, x[:1])
    whole = autosplit.profile(graph, params, x, edge=EYERISS, cloud=TPU,
                              network=Network(uplink_bits_per_s=1e5), bits=(2, 8))  # fmt: skip
    count = len(graph.layers)
    prefix = [np.flatnonzero((whole.on_edge == (np.arange(count) < n)).all(axis=1))[0]
              for n in range(count + 1)]  # fmt: skip
    few = dataclasses.replace(
        whole, on_edge=whole.on_edge[prefix], crosses=whole.crosses[prefix],
        cut_names=tuple(whole.cut_names[i] for i in prefix), open_cuts=True,
    )  # fmt: skip
    limits = autosplit.Constraints(memory_bytes=16_000)
    plan, listed = (autosplit.solve(p, limits).best_split for p in (few, whole))
    assert plan.on_edge not in [tuple(row) for row in few.on_edge.tolist()]
    assert plan.latency_s == listed.latency_s == plan.lower_bound
    again = with_cuts(few, np.array([plan.on_edge]))
    np.testing.assert_array_equal(again.crosses[-2], np.array(plan.crosses))
    split = autosplit.split(graph, params, plan)
    expected = jnp.stack([branches(params, row[None])[0] for row in x])
    found = jnp.stack([split.cloud(split.edge(row[None]))[0] for row in x])
    assert found.shape == expected.shape
    assert jnp.abs(found - expected).mean() < 0.5 * jnp.abs(expected).mean()
