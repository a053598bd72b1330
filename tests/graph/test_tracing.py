"""What kinds of functions trace, and into which layers and tensors."""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from autosplit.errors import TraceError
from autosplit.graph import trace
from autosplit.models import create_model, variable_shapes


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def kinds(graph):
    return [layer.kind for layer in graph.layers]


def reads(graph):
    """Returns for each layer the layers that it reads (-1: a graph input), in order."""
    return [[graph.tensors[t].producer for t in layer.inputs] for layer in graph.layers]


class ConvBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Conv(8, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), use_bias=False)(y))
        return nn.relu(x + y)


class Inverted(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm
        y = nn.relu6(norm(use_running_average=True)(nn.Conv(24, (1, 1), use_bias=False)(x)))
        y = nn.Conv(24, (3, 3), feature_group_count=24, use_bias=False)(y)
        y = nn.relu6(norm(use_running_average=True)(y))
        return x + norm(use_running_average=True)(nn.Conv(4, (1, 1), use_bias=False)(y))


def trace_module(module, *inputs):
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return trace(module.apply, variables, *inputs)


class TestLinen:
    def test_residual_block_is_two_convolutions_and_an_addition(self):
        graph = trace_module(ConvBlock(), shaped(1, 8, 8, 4))
        assert kinds(graph) == ["conv", "conv", "add"]
        assert reads(graph) == [[-1], [0], [-1, 1]]
        assert [layer.activation for layer in graph.layers] == [("max",), (), ("add", "max")]
        assert len(graph.tensors) == 4

    def test_inverted_residual(self):
        graph = trace_module(Inverted(), shaped(1, 8, 8, 4))
        assert kinds(graph) == ["conv", "conv", "conv", "add"]
        assert all(layer.has_bias for layer in graph.layers[:3])
        # relu6 stays with its convolution.
        assert [len(layer.activation) for layer in graph.layers[:3]] == [2, 2, 0]

    def test_layers_are_named_by_module_path(self):
        graph = trace_module(ConvBlock(), shaped(1, 8, 8, 4))
        # The network's own name, which all paths begin with, is left out.
        assert [layer.name for layer in graph.layers[:2]] == ["Conv_0", "Conv_1"]
        assert graph.tensors[graph.layers[0].outputs[0]].name == "Conv_0"

    def test_names_are_unique(self):
        def twice(w, x):
            return jnp.sin(jax.nn.relu(x @ w) @ w) @ w

        names = [layer.name for layer in trace(twice, shaped(3, 3), shaped(2, 3)).layers]
        assert len(set(names)) == len(names) == 3

    @pytest.mark.parametrize("head", [2, 4])
    def test_transformer_block(self, head):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x):
                y = nn.LayerNorm()(x)
                x = x + nn.MultiHeadDotProductAttention(num_heads=head)(y)
                y = nn.Dense(32)(nn.LayerNorm()(x))
                return x + nn.Dense(16)(nn.gelu(y))

        graph = trace_module(Block(), shaped(1, 6, 16))
        products = [layer for layer in graph.layers if layer.kind == "matmul"]
        weighted = [layer for layer in products if layer.weight]
        # Query, key, value, out, and two of the MLP carry weights; scores and their
        # product with the values do not.
        assert (len(products), len(weighted)) == (8, 6)
        assert all(layer.has_bias for layer in weighted)
        tokens, width, hidden = 6, 16, 32
        projections = 4 * tokens * width * width + 2 * tokens * width * hidden
        attention = 2 * tokens * tokens * width
        assert sum(layer.macs for layer in products) == projections + attention
        # gelu runs in the layer of the first dense of the MLP.
        assert any("tanh" in layer.activation for layer in weighted)


class TestOtherFunctions:
    def test_split_nnx_state(self):
        class Net(nnx.Module):
            def __init__(self, rngs):
                self.first = nnx.Linear(4, 8, rngs=rngs)
                self.second = nnx.Linear(8, 3, rngs=rngs)

            def __call__(self, x):
                return self.second(nnx.relu(self.first(x)))

        definition, state = nnx.split(Net(nnx.Rngs(0)))
        graph = trace(lambda s, x: nnx.merge(definition, s)(x), state, shaped(2, 4))
        assert kinds(graph) == ["matmul", "matmul"]
        assert [layer.has_bias for layer in graph.layers] == [True, True]
        assert graph.num_params == 4

    def test_plain_function_without_modules_has_the_same_layers(self):
        def relu_net(params, x):
            for kernel, bias in params:
                x = jnp.maximum(x @ kernel + bias, 0)
            return x

        params = [(shaped(4, 5), shaped(5)), (shaped(5, 6), shaped(6))]
        graph = trace(relu_net, params, shaped(2, 4))
        assert kinds(graph) == ["matmul", "matmul"]
        assert [layer.name for layer in graph.layers] == ["matmul_0", "matmul_1"]

    @pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.remat, lambda f: f])
    def test_calls_are_inlined(self, wrap):
        @wrap
        def layer(w, x):
            return jax.nn.relu(x @ w)

        graph = trace(lambda w, x: layer(w, layer(w, x)), shaped(4, 4), shaped(2, 4))
        assert kinds(graph) == ["matmul", "matmul"]
        assert reads(graph) == [[-1], [0]]

    def test_custom_derivatives_are_inlined(self):
        @jax.custom_vjp
        def double(x):
            return x * 2

        double.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 2,))
        graph = trace(lambda w, x: jax.nn.relu(double(x @ w)), shaped(4, 4), shaped(2, 4))
        assert kinds(graph) == ["matmul"]
        assert graph.layers[0].activation == ("max",)

    def test_inputs_may_be_a_pytree(self):
        graph = trace(
            lambda w, batch: batch["a"] @ w + batch["b"],
            shaped(3, 3),
            {"b": shaped(2, 3), "a": shaped(2, 3)},
        )
        assert len(graph.inputs) == 2
        assert [t.name for t in graph.tensors[:2]] == ["input", "input.1"]


class TestHoisting:
    def test_parameter_only_equations_make_no_layer(self):
        def normalised(params, x):
            kernel = params["v"] * params["g"] / jnp.linalg.norm(params["v"], axis=0)
            return x @ kernel.T

        graph = trace(normalised, {"v": shaped(4, 4), "g": shaped(4)}, shaped(2, 4))
        assert kinds(graph) == ["matmul"]
        assert len(graph.hoisted) >= 3

    def test_output_of_parameters_alone_has_no_tensor(self):
        graph = trace(lambda w, x: (x @ w, w * 2), shaped(3, 3), shaped(2, 3))
        assert graph.outputs[0] is not None
        assert graph.outputs[1] is None
        assert kinds(graph) == ["matmul"]

    def test_dead_code_makes_no_layer(self):
        def wasteful(w, x):
            jnp.sort(x @ w)
            return x @ w

        assert kinds(trace(wasteful, shaped(3, 3), shaped(2, 3))) == ["matmul"]


class TestInputsAndOutputs:
    def test_several_inputs_and_outputs(self):
        def many(w, x, y):
            h = jax.nn.relu(x @ w)
            return {"h": h, "sum": h + y @ w}

        graph = trace(many, shaped(3, 3), shaped(2, 3), shaped(2, 3))
        assert kinds(graph) == ["matmul", "matmul", "add"]
        assert [graph.tensors[o].producer for o in graph.outputs] == [0, 2]
        hidden = graph.tensors[graph.outputs[0]]
        assert hidden.is_output
        assert hidden.consumers == (2,)

    def test_an_output_that_is_an_input(self):
        graph = trace(lambda w, x: (x, x @ w), shaped(3, 3), shaped(2, 3))
        assert graph.outputs[0] == graph.inputs[0]
        assert graph.tensors[graph.inputs[0]].is_output

    def test_an_output_returned_twice_is_one_tensor(self):
        def same(w, x):
            y = x @ w
            return y, y

        graph = trace(same, shaped(3, 3), shaped(2, 3))
        assert graph.outputs[0] == graph.outputs[1]
        assert len(graph.tensors) == 2

    def test_unused_second_input_is_kept(self):
        graph = trace(lambda w, x, y: x @ w, shaped(3, 3), shaped(2, 3), shaped(5))
        assert graph.tensors[graph.inputs[1]].consumers == ()

    def test_function_of_parameters_alone_raises(self):
        with pytest.raises(TraceError, match="does nothing with its inputs"):
            trace(lambda w, x: w * 2, shaped(3), shaped(2))

    def test_producers_and_consumers_agree(self):
        shapes = variable_shapes(create_model("resnet18", num_classes=10), 32)
        graph = trace(create_model("resnet18", 10).apply, shapes, shaped(1, 32, 32, 3))
        for index, layer in enumerate(graph.layers):
            assert all(graph.tensors[t].producer == index for t in layer.outputs)
            assert all(index in graph.tensors[t].consumers for t in layer.inputs)
            assert all(graph.tensors[t].producer < index for t in layer.inputs)
        for index, tensor in enumerate(graph.tensors):
            assert all(index in graph.layers[c].inputs for c in tensor.consumers)


class TestSharedWeights:
    def groups(self, fn, params, *inputs):
        return [layer.weight.group for layer in trace(fn, params, *inputs).layers if layer.weight]

    def test_a_weight_used_twice_is_one_group(self):
        fn = lambda w, x: jax.nn.relu(x @ w) @ w  # noqa: E731
        first, second = self.groups(fn, shaped(3, 3), shaped(2, 3))
        assert first == second

    def test_different_biases_share_the_weight(self):
        fn = lambda p, x: jax.nn.relu(x @ p[0] + p[1]) @ p[0] + p[2]  # noqa: E731
        first, second = self.groups(fn, [shaped(3, 3), shaped(3), shaped(3)], shaped(2, 3))
        assert first == second

    def test_different_batch_norms_make_it_two_weights(self):
        fn = lambda p, x: jax.nn.relu(x @ p[0] * p[1]) @ p[0] * p[2]  # noqa: E731
        first, second = self.groups(fn, [shaped(3, 3), shaped(3), shaped(3)], shaped(2, 3))
        assert first != second

    def test_two_weights_are_two_groups(self):
        fn = lambda p, x: jax.nn.relu(x @ p[0]) @ p[1]  # noqa: E731
        first, second = self.groups(fn, [shaped(3, 3), shaped(3, 3)], shaped(2, 3))
        assert first != second


FINGERPRINT = """
import jax, jax.numpy as jnp
from autosplit.graph import trace
def net(p, x):
    x = jax.nn.silu(jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC")))
    def step(c, _):
        return jax.nn.relu(c @ p["w"]), None
    x = jax.lax.scan(step, x, None, length=3)[0]
    x = jax.lax.cond(x.sum() > 0, lambda v: v + 1, jax.nn.relu, x)
    return jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: jax.nn.gelu(v) + 1, x)
shapes = {"k": jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32),
          "w": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
print(trace(net, shapes, jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)).fingerprint)
"""


class TestFingerprint:
    def test_is_equal_in_another_process(self):
        def run(seed):
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONHASHSEED": seed}
            command = [sys.executable, "-c", FINGERPRINT]
            return subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout

        first, second = run("1"), run("2")
        assert len(first.strip()) == 64
        assert first == second

    def test_tells_structures_apart(self):
        x = shaped(2, 3)
        graphs = [
            trace(lambda w, x: jax.nn.relu(x @ w), shaped(3, 3), x),
            trace(lambda w, x: jnp.tanh(x @ w), shaped(3, 3), x),
            trace(lambda w, x: jax.nn.relu(x @ w), shaped(3, 4), x),
            trace(lambda w, x: jax.nn.relu(x @ w) * 2, shaped(3, 3), x),
            trace(lambda w, x: jax.nn.relu(x @ w) * 3, shaped(3, 3), x),
        ]
        assert len({graph.fingerprint for graph in graphs}) == len(graphs)

    def test_does_not_depend_on_the_weights(self):
        fn = lambda w, x: x @ w  # noqa: E731
        ones, zeros = jnp.ones((3, 3)), jnp.zeros((3, 3))
        x = jnp.ones((2, 3))
        assert trace(fn, ones, x).fingerprint == trace(fn, zeros, x).fingerprint


def test_shapes_alone_trace_like_arrays_and_nothing_is_computed():
    calls = []

    def fn(w, x):
        calls.append(isinstance(x, jax.core.Tracer))
        return jax.nn.relu(x @ w)

    # A terabyte: computing anything would fail.
    big = trace(fn, shaped(2**19, 2**19), shaped(1, 2**19))
    assert all(calls)
    assert big.layers[0].macs == 2**38
    small = trace(fn, np.ones((4, 4), np.float32), np.ones((2, 4), np.float32))
    assert kinds(small) == kinds(big)


@pytest.mark.parametrize(
    ("name", "gmacs", "weights"),
    # MACs: 224 x 224, as published with torchvision's weights. Weights: all of its parameters
    # less batch norm and the classifier's bias.
    [
        ("resnet18", 1.814, 11_689_512 - 2 * 4800 - 1000),
        ("resnet50", 4.089, 25_557_032 - 2 * 26560 - 1000),
        ("mobilenet_v2", 0.3008, 3_504_872 - 2 * 17056 - 1000),
    ],
)
def test_full_networks_have_the_published_cost(name, gmacs, weights):
    model = create_model(name)
    graph = trace(model.apply, variable_shapes(model), shaped(1, 224, 224, 3))
    assert sum(layer.macs for layer in graph.layers) / 1e9 == pytest.approx(gmacs, rel=3e-4)
    assert sum(layer.weight_elements for layer in graph.layers) == weights
    assert set(kinds(graph)) <= {"conv", "matmul", "add", "pool", "reduce"}


def test_long_networks_trace_in_linear_time():
    def chain(params, x):
        for index, kernel in enumerate(params):
            y = jax.nn.relu(x @ kernel)
            x = x + y if index % 3 == 2 else y
        return x

    graph = trace(chain, [shaped(4, 4)] * 300, shaped(2, 4))
    assert len(graph.layers) == 300 + 99 + 1
