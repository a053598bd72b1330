"""The minimum cut against every closed set of small random graphs."""

import itertools
import math
import time

import numpy as np
import pytest

from autosplit.solvers.min_cut import TOLERANCE, Topology, minimum_closed_set


def random_topology(rng, layers):
    """Draws a DAG: up to three inputs, tensors with many readers, outputs in the middle."""
    inputs = int(rng.integers(1, 4))
    tensors = inputs + layers
    producer = np.concatenate([np.full(inputs, -1), np.arange(layers)])
    reads = np.zeros((layers, tensors), dtype=bool)
    for layer in range(layers):
        known = inputs + layer
        reads[layer, rng.choice(known, size=min(int(rng.integers(1, 4)), known),
                                replace=False)] = True
    is_output = ~reads.any(axis=0) & (producer >= 0) | (rng.random(tensors) < 0.15)
    order = rng.permutation(tensors)  # nothing may depend on the order of the tensors
    return Topology(producer=producer[order], reads=reads[:, order], is_output=is_output[order])


def all_closed_sets(topology):
    layers = len(topology.reads)
    for flags in itertools.product([False, True], repeat=layers):
        on_edge = np.array(flags)
        if all(not on_edge[layer] or all(maker < 0 or on_edge[maker]
                                         for maker in topology.producer[row])
               for layer, row in enumerate(topology.reads)):
            yield on_edge


def cost_of(topology, on_edge, edge_cost, cloud_cost, tensor_cost):
    """Adds up the definition, tensor by tensor."""
    total = sum(edge_cost[on_edge]) + sum(cloud_cost[~on_edge])
    for tensor, maker in enumerate(topology.producer):
        made = maker < 0 or on_edge[maker]
        readers = np.flatnonzero(topology.reads[:, tensor])
        if made and (topology.is_output[tensor] or not all(on_edge[reader] for reader in readers)):
            total += tensor_cost[tensor]
    return total


def draw_prices(rng, topology):
    layers, tensors = topology.reads.shape
    edge, cloud = rng.normal(0, 1, layers), rng.uniform(0, 1, layers)
    tensor = rng.uniform(0, 1, tensors) * 10 ** rng.uniform(-3, 1)
    edge[rng.random(layers) < 0.05] = math.inf
    cloud[rng.random(layers) < 0.05] = math.inf
    tensor[rng.random(tensors) < 0.05] = math.inf
    return edge, cloud, tensor


@pytest.mark.parametrize("seed", range(300))
def test_least_of_all_closed_sets(seed):
    rng = np.random.default_rng(seed)
    topology = random_topology(rng, int(rng.integers(1, 9)))
    prices = draw_prices(rng, topology)
    on_edge, in_cloud = rng.random((2, len(topology.reads))) < 0.08
    allowed = [cost_of(topology, flags, *prices) for flags in all_closed_sets(topology)
               if flags[on_edge].all() and not flags[in_cloud].any()]
    best = min(allowed, default=math.inf)
    found = minimum_closed_set(topology, *prices, on_edge=on_edge, in_cloud=in_cloud)
    if math.isinf(best):
        assert found.on_edge is None
        assert found.cost == found.lower_bound == math.inf
        return
    assert found.on_edge[on_edge].all()
    assert not found.on_edge[in_cloud].any()
    assert cost_of(topology, found.on_edge, *prices) == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert found.cost == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert found.cost - 100 * TOLERANCE <= found.lower_bound <= found.cost


def test_prices_that_differ_by_twelve_digits_are_told_apart():
    """One round of 32-bit numbers would see neither the layers nor the second tensor."""
    chain = Topology(producer=np.arange(-1, 3), is_output=np.arange(4) == 3,
                     reads=np.eye(3, 4, dtype=bool))
    edge = np.array([1e-12, 2e-12, 5e-12])
    found = minimum_closed_set(chain, edge, np.zeros(3), np.array([1.0, 4e-12, 1e-12, 1.0]))
    assert found.on_edge.tolist() == [True, True, False]
    assert found.cost == pytest.approx(4e-12, rel=1e-9)
    assert found.lower_bound == pytest.approx(4e-12, rel=1e-3)


def test_branches_are_cut_at_their_own_bottlenecks():
    """Two branches, each with its bottleneck first: no topological prefix cuts both there.

    Layers in order: stem, a0, a1, a2, b0, b1, b2, join; a0 and b0 make the small tensors.
    """
    reads = np.zeros((8, 9), dtype=bool)
    sources = [[0], [1], [2], [3], [1], [5], [6], [4, 7]]
    for layer, tensors in enumerate(sources):
        reads[layer, tensors] = True
    topology = Topology(producer=np.arange(-1, 8), reads=reads, is_output=np.arange(9) == 8)
    size = np.array([100.0, 100, 1, 50, 50, 1, 50, 50, 60])
    found = minimum_closed_set(topology, np.full(8, 2.0), np.zeros(8), size)
    assert np.flatnonzero(found.on_edge).tolist() == [0, 1, 4]
    assert found.cost == 3 * 2 + 1 + 1
    prefixes = [cost_of(topology, np.arange(8) < count, np.full(8, 2.0), np.zeros(8), size)
                for count in range(9)]
    assert min(prefixes) > 3 * found.cost
    assert np.flatnonzero(topology.crosses(found.on_edge)).tolist() == [2, 5]


def test_a_tensor_with_many_readers_is_paid_once():
    """Twenty readers of one tensor: sending it costs 3, not 60."""
    reads = np.zeros((21, 22), dtype=bool)
    reads[0, 0] = True
    reads[1:, 1] = True
    topology = Topology(producer=np.arange(-1, 21), reads=reads, is_output=np.arange(22) > 1)
    edge = np.append(1.0, np.full(20, 0.5))
    sizes = np.concatenate([[10.0, 3.0], np.full(20, 0.1)])
    found = minimum_closed_set(topology, edge, np.zeros(21), sizes)
    assert found.on_edge.tolist() == [True] + [False] * 20
    assert found.cost == 4.0


def test_contradictory_forcing_leaves_nothing():
    chain = Topology(producer=np.arange(-1, 2), is_output=np.arange(3) == 2,
                     reads=np.eye(2, 3, dtype=bool))
    found = minimum_closed_set(chain, np.ones(2), np.ones(2), np.ones(3),
                               on_edge=np.array([False, True]), in_cloud=np.array([True, False]))
    assert found.on_edge is None


def test_a_thousand_layers_take_milliseconds():
    rng = np.random.default_rng(0)
    layers = 1000
    reads = np.zeros((layers, layers + 1), dtype=bool)
    reads[0, 0] = True
    for layer in range(1, layers):
        reads[layer, rng.integers(max(0, layer - 20) + 1, layer + 1, size=2)] = True
    topology = Topology(producer=np.arange(-1, layers), reads=reads,
                        is_output=np.arange(layers + 1) == layers)
    sizes = 20 * rng.uniform(0.5, 1, layers + 1) * np.exp(-np.arange(layers + 1) / 100)
    first = minimum_closed_set(topology, rng.uniform(0, 0.002, layers), np.zeros(layers), sizes)
    begin = time.perf_counter()
    found = minimum_closed_set(topology, rng.uniform(0, 0.002, layers), np.zeros(layers), sizes)
    assert time.perf_counter() - begin < 1  # some 5 ms alone; a shared machine is slower
    assert found.lower_bound >= found.cost * (1 - 1e-10)
    assert 0 < first.on_edge.sum() < layers
