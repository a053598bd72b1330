"""Blocks: every layer in one, in order, and residual blocks where there are some."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.graph import trace
from autosplit.models import create_model, variable_shapes
from autosplit.ptq.blocks import block_of, find_blocks


def traced(fn, params, *shapes):
    return trace(fn, params, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))


def names(graph, block):
    return [graph.layers[i].name for i in block.layers]


def network(name):
    model = create_model(name)
    variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), variable_shapes(model))
    return traced(model.apply, variables, (1, 64, 64, 3))


def forked(p, x):
    """Both branches read the input, a third one leaves as an output of its own."""
    a, b = jax.nn.relu(x @ p), jnp.tanh(x @ p.T)
    side = a @ p
    return (a @ p + b @ p) @ p, side


def chain(p, x):
    for _ in range(7):
        x = jax.nn.relu(x @ p)
    return jax.nn.softmax(x)


def no_weights(p, x):
    return jnp.cumsum(jnp.tanh(x) * x.sum(), -1)


@pytest.fixture(scope="module", params=["net", "forked", "chain", "no_weights", "resnet18"])
def graph(request, net):
    if request.param == "net":
        return net.graph
    if request.param == "resnet18":
        return network("resnet18")
    return traced(globals()[request.param], jnp.eye(4), (2, 4))


@pytest.mark.parametrize("max_weights", [1, 2, 8])
def test_blocks_hold_every_layer_once_and_follow_what_they_read(graph, max_weights):
    blocks = find_blocks(graph, max_weights)
    listed = [i for block in blocks for i in block.layers]
    assert sorted(listed) == list(range(len(graph.layers)))
    known = set(graph.inputs)
    for block in blocks:
        assert list(block.layers) == sorted(block.layers)
        assert set(block.inputs) <= known
        known.update(t for i in block.layers for t in graph.layers[i].outputs)
        weights = sum(graph.layers[i].weight is not None for i in block.layers)
        assert weights <= max_weights
        assert weights or len(blocks) == 1


def test_what_a_block_writes_for_others_is_its_output(graph):
    blocks = find_blocks(graph)
    for number, block in enumerate(blocks):
        later = {t for other in blocks[number + 1 :] for t in other.inputs}
        final = {t for t in graph.outputs if t is not None}
        written = {t for i in block.layers for t in graph.layers[i].outputs}
        assert set(block.outputs) == written & (later | final)


def test_resnet_18_has_its_residual_blocks():
    graph = network("resnet18")
    found = {frozenset(n for n in names(graph, b) if n != "pool") for b in find_blocks(graph)}
    modules = {}
    for layer in graph.layers:
        module = layer.name.split("/")[0] if layer.name.startswith("layer") else None
        if module:
            modules.setdefault(module, set()).add(layer.name)
    assert len(modules) == 8
    assert found == {*map(frozenset, modules.values()), frozenset({"conv1"}),
                     frozenset({"reduce", "fc"})}  # fmt: skip


def test_mobilenet_v2_has_its_inverted_residuals():
    graph = network("mobilenet_v2")
    blocks = [set(names(graph, block)) for block in find_blocks(graph)]
    for number in range(2, 18):
        module = {n.name for n in graph.layers if n.name.startswith(f"features_{number}/")}
        assert module in blocks


def test_a_chain_with_activations_is_taken_in_threes():
    graph = traced(chain, jnp.eye(4), (2, 4))
    weights = [
        sum(graph.layers[i].weight is not None for i in block.layers)
        for block in find_blocks(graph)
    ]
    assert weights == [3, 3, 1]


def test_one_layer_is_a_block(net):
    layer = net.graph.layers[1]
    block = block_of(net.graph, [1])
    assert block.inputs == layer.inputs
    assert block.outputs == layer.outputs


def test_a_block_needs_room_for_a_weight(net):
    with pytest.raises(InputError, match="max_weights is 0"):
        find_blocks(net.graph, 0)


def test_a_tensor_that_a_later_layer_reads_too_is_no_cut():
    def skips(p, x):
        a = jax.nn.relu(x @ p)
        b = jax.nn.relu(a @ p)
        return jax.nn.relu(b @ p) + a

    graph = traced(skips, jnp.asarray(np.eye(4), jnp.float32), (2, 4))
    joined = max(find_blocks(graph), key=lambda block: len(block.layers))
    assert len(joined.inputs) == 1
    assert sum(graph.layers[i].weight is not None for i in joined.layers) == 2


def test_a_loop_that_no_gradient_passes_stands_alone():
    def looping(p, x):
        a = jax.nn.relu(x @ p)
        h = jax.lax.while_loop(lambda s: s.sum() > 1, lambda s: s * 0.5, a)
        return jax.nn.relu(h @ p) + a

    graph = traced(looping, jnp.eye(4), (2, 4))
    (loop,) = [i for i, layer in enumerate(graph.layers) if layer.kind == "loop"]
    assert (loop,) in [block.layers for block in find_blocks(graph)]
