"""Cuts are closed sets; they are listed once each, and charged what crosses."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosplit.errors import CutError
from autosplit.graph import trace
from autosplit.graph.cuts import enumerate_cuts


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def random_net(edges):
    """Builds a function from ``edges[i]``: the earlier values that product i reads.

    Value 0 is the input; several operands are multiplied in the layer that reads them.
    """

    def fn(w, x):
        values = [x]
        for operands in edges:
            total = values[operands[0]]
            for other in operands[1:]:
                total = jnp.maximum(total, values[other])
            values.append(total @ w)
        return [v for i, v in enumerate(values[1:], 1) if not any(i in o for o in edges)]

    return trace(fn, shaped(3, 3), shaped(2, 3))


@st.composite
def random_edges(draw, most=6):
    count = draw(st.integers(1, most))
    return [
        sorted(draw(st.sets(st.integers(0, index), min_size=1, max_size=3)))
        for index in range(count)
    ]


def closed_sets(graph):
    """Lists all closed sets by trying every subset."""
    needs = [{graph.tensors[t].producer for t in layer.inputs} - {-1} for layer in graph.layers]
    return {
        flags
        for flags in itertools.product([False, True], repeat=len(needs))
        if all(flags[p] for i, need in enumerate(needs) if flags[i] for p in need)
    }


def expected_crossing(graph, flags):
    """Tensors that are on the edge (made there, or inputs) and wanted in the cloud."""
    crossing = set()
    for index, tensor in enumerate(graph.tensors):
        here = tensor.producer < 0 or flags[tensor.producer]
        read_there = any(not flags[c] for c in tensor.consumers)
        # Outputs are returned by the cloud, unless there is none.
        if here and (read_there or (tensor.is_output and not all(flags))):
            crossing.add(index)
    return crossing


@settings(max_examples=25)
@given(edges=random_edges())
def test_every_closed_set_is_listed_once(edges):
    graph = random_net(edges)
    found = [cut.on_edge for cut in graph.cuts()]
    assert len(found) == len(set(found))
    assert set(found) == closed_sets(graph)


@settings(max_examples=25)
@given(edges=random_edges())
def test_crossing_tensors_are_counted_once(edges):
    graph = random_net(edges)
    for cut in graph.cuts():
        assert list(cut.crossing) == sorted(expected_crossing(graph, cut.on_edge))


@settings(max_examples=10)
@given(edges=random_edges(), limit=st.integers(1, 4))
def test_beyond_the_limit_all_are_still_closed_and_distinct(edges, limit):
    graph = random_net(edges)
    found = [cut.on_edge for cut in graph.cuts(limit=limit)]
    assert len(found) == len(set(found))
    assert set(found) <= closed_sets(graph)
    count = len(graph.layers)
    prefixes = {(True,) * n + (False,) * (count - n) for n in range(count + 1)}
    if len(closed_sets(graph)) > limit:
        assert prefixes <= set(found)


def test_cloud_only_is_first_and_edge_only_last():
    graph = random_net([[0], [1], [1], [2, 3]])
    cuts = graph.cuts()
    assert (cuts[0].name, cuts[-1].name) == ("cloud-only", "edge-only")
    assert not any(cuts[0].on_edge)
    assert all(cuts[-1].on_edge)
    assert [graph.tensors[t].producer for t in cuts[0].crossing] == [-1]
    assert cuts[-1].crossing == ()


def test_a_chain_has_a_cut_for_each_layer():
    graph = random_net([[0], [1], [2], [3]])
    assert len(graph.cuts()) == 5
    assert [len(cut.crossing) for cut in graph.cuts()] == [1, 1, 1, 1, 0]


def test_a_tensor_with_many_readers_crosses_once():
    graph = random_net([[0], [1], [1], [1]])
    cut = graph.cut_after(graph.layers[0].name)
    assert len(cut.crossing) == 1
    assert len(graph.tensors[cut.crossing[0]].consumers) == 3


def test_an_output_made_on_the_edge_crosses():
    graph = trace(lambda w, x: (x @ w, jax.nn.relu(x @ w) @ w), shaped(3, 3), shaped(2, 3))
    producers = [graph.tensors[o].producer for o in graph.outputs]
    cut = graph.cut([producers[0]])
    assert graph.outputs[0] in cut.crossing


def test_an_input_that_is_returned_crosses():
    graph = trace(lambda w, x: (x, x @ w), shaped(3, 3), shaped(2, 3))
    assert [cut.crossing for cut in graph.cuts()] == [(0,), ()]


class TestNamedCuts:
    # matmul_0, two branches matmul_1 and matmul_2, their maximum, matmul_3.
    graph = random_net([[0], [1], [1], [2, 3]])

    def test_cut_after_takes_all_predecessors_and_no_more(self):
        last = self.graph.cut_after("matmul_3")
        assert all(last.on_edge)
        branch = self.graph.cut_after("matmul_2")
        assert branch.on_edge == (True, False, True, False, False)
        assert branch.name == "after matmul_2"

    def test_names_and_indices_are_the_same(self):
        by_name = self.graph.cut(["matmul_0", "matmul_2"])
        assert by_name == self.graph.cut([0, 2])

    def test_a_set_that_is_not_closed_raises(self):
        with pytest.raises(CutError, match=r"'elementwise' is on the edge but 'matmul_1'"):
            self.graph.cut(["matmul_0", "matmul_2", "elementwise"])

    def test_unknown_layers_raise_and_list_the_known(self):
        with pytest.raises(CutError, match=r"'conv9'.*matmul_0, matmul_1"):
            self.graph.cut(["conv9"])
        with pytest.raises(CutError, match="expected 0 to 4"):
            self.graph.cut([5])
        with pytest.raises(CutError, match="expected 0 to 4"):
            self.graph.cut([-1])


def many_branches():
    """Wide layers and, in parallel, a branch that shrinks what is sent."""

    def fn(p, x):
        x = jax.nn.relu(x @ p["in"])
        # Eight long branches: 4 ** 8 closed sets, more than the limit.
        tails = []
        for index in range(8):
            y = x @ p["small"]
            if index % 2:
                y = jax.nn.relu(y @ p["s"]) @ p["grow"]
            else:
                y = jax.nn.relu(y @ p["wide"]) @ p["s2"]
            tails.append(y.sum())
        return sum(tails[1:], tails[0])

    shapes = {
        "in": shaped(64, 64), "small": shaped(64, 4), "s": shaped(4, 4), "grow": shaped(4, 512),
        "wide": shaped(4, 512), "s2": shaped(512, 512),
    }  # fmt: skip
    return trace(fn, shapes, shaped(8, 64))


class TestTooManyClosedSets:
    def test_prefixes_stand_in(self):
        graph = many_branches()
        cuts, complete = enumerate_cuts(graph, limit=500)
        assert len(cuts) == len(graph.layers) + 1
        assert not complete

    def test_all_sets_are_said_to_be_all(self):
        graph = random_net([[0], [1], [1], [2, 3]])
        cuts, complete = enumerate_cuts(graph, limit=500)
        assert complete
        assert cuts == graph.cuts()
