"""The integer edge equals fake quantization at every layer, given the same inputs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autosplit
from autosplit.errors import InputError, PlanMismatchError
from autosplit.execution import edge_half
from autosplit.execution.edge_layers import edge_layer, integer_weight, run_edge_layer
from autosplit.execution.grids import decode, encode, from_levels, make_grid, to_levels
from autosplit.execution.weights import pack_weight
from autosplit.graph.running import prepare, run_layer, run_layers
from autosplit.models import create_model
from autosplit.profiling.assignment import Assignment, Quantized, quantized_weights, weight_clips
from autosplit.quant.affine import fake_quant
from autosplit.workload import FLOAT_BITS

NEAR = 1e-3  # of a level: so near to the middle of two, rounding may go either way


def calibrated(graph, params, inputs, w_bits, a_bits):
    """Returns the float network with the ranges of one call as clips."""
    weights = prepare(graph, params)
    known = all_values(graph, weights, jax.tree.leaves(inputs))
    ends = [
        (known[t].min(), known[t].max()) if tensor.is_float and tensor.size else (0, 0)
        for t, tensor in enumerate(graph.tensors)
    ]
    low, high = np.array(ends, np.float32).reshape(-1, 2).T
    count = len(graph.layers)
    assignment = Assignment(
        on_edge=jnp.ones(count, bool), w_high=weight_clips(graph, weights, np.ones(count)),
        w_bits=jnp.asarray(np.resize(w_bits, count).astype(np.int32)),
        a_bits=jnp.asarray(np.resize(a_bits, len(graph.tensors)).astype(np.int32)),
        a_low=jnp.asarray(low), a_high=jnp.asarray(high),
    )  # fmt: skip
    return Quantized(weights=weights, assignment=assignment), known


@functools.partial(jax.jit, static_argnums=0)
def _all_values(graph, weights, leaves):
    known = dict(zip(graph.inputs, leaves, strict=True))
    return run_layers(graph, weights, known, range(len(graph.layers)))


def all_values(graph, weights, leaves):
    return {t: np.asarray(x) for t, x in _all_values(graph, weights, leaves).items()}


def check_layers(graph, quantized, known):
    """Compares each layer with fake quantization, on the calibration's own values.

    Returns:
      The forms, and the part of all codes that differ.
    """
    assignment = quantized.assignment
    last = graph.cuts()[-1]
    half, kept, packed = edge_half.edge_half(graph, last, quantized.weights, assignment)
    named = {**kept, **jax.jit(half.unpack)(packed)}
    plain = quantized_weights(quantized.weights, assignment)
    steps = half.layers

    @jax.jit
    def run(named, plain, known):
        """Runs both on every layer: two compilations for each would take long."""
        pairs = []
        for index, step in steps.items():
            grids = list(zip(step.layer.inputs, step.inputs, step.dtypes, strict=True))
            codes = [known[t] if grid is None else encode(grid, known[t]) for t, grid, _ in grids]
            floats = [
                x if grid is None else decode(grid, x, dtype)
                for x, (_, grid, dtype) in zip(codes, grids, strict=True)
            ]
            own = plain.layers[index]
            expected = run_layer(step.layer, own, floats, own.weight)
            # Apart from each other: XLA would merge what both compute.
            codes = jax.lax.optimization_barrier(codes)
            pairs.append((half.run_layer(named, index, codes), expected))
        return pairs

    wrong = total = 0
    for step, (found, expected) in zip(steps.values(), run(named, plain, known), strict=True):
        for code, value, grid in zip(found, expected, step.outputs, strict=True):
            if grid is None:
                np.testing.assert_allclose(code, value, rtol=1e-5, atol=1e-6)
                continue
            assert code.dtype == jnp.int8
            assert code.shape == value.shape
            wrong += check_codes(code, value, grid)
            total += code.size
    return [step.form("cpu") for step in steps.values()], wrong / max(total, 1)


def check_codes(code, value, grid):
    """Counts the codes off by one level: only where the value is near the middle of two."""
    place = np.asarray(value, np.float64) / grid.scale + grid.zero
    expected = np.clip(np.round(place), -grid.offset, grid.offset - 1)
    distance = np.abs(np.asarray(code, np.float64) - expected)
    assert distance.max(initial=0) <= 1
    off = distance > 0
    assert (np.abs(place - np.floor(place) - 0.5)[off] < NEAR).all()
    return off.sum()


class TestEveryLayer:
    @pytest.mark.parametrize("bits", [((8,), (8,)), ((1, 2, 3, 4, 5, 6, 7), (8, 3, 5, 1))])
    def test_equals_fake_quantization(self, network, bits):
        quantized, known = calibrated(network.graph, network.params, network.inputs, *bits)
        forms, wrong = check_layers(network.graph, quantized, known)
        assert wrong <= 1e-2
        weighted = [layer.weight is not None for layer in network.graph.layers]
        assert sum(weighted) == 0 or len(forms) == len(weighted)

    def test_products_and_convolutions_run_in_integers(self, network):
        """The traced program multiplies int8 by int8 into int32, layer by layer."""
        graph = network.graph
        count, tensors = len(graph.layers), len(graph.tensors)
        weights = jax.eval_shape(lambda p: prepare(graph, p), network.params)
        grids = [
            make_grid(-1.0, 2.0, 8) if tensor.is_float and t not in graph.inputs else None
            for t, tensor in enumerate(graph.tensors)
        ]
        assert len(grids) == tensors
        for index in range(count):
            step, layer = edge_layer(graph, index, grids, 8), graph.layers[index]
            if layer.weight is None or layer.kind not in ("conv", "matmul"):
                assert step.product is None
                continue
            if set(layer.inputs) & set(graph.inputs) or upsamples(layer):
                assert step.product is None
                continue
            assert step.product is not None
            packed = jax.eval_shape(
                lambda w, layer=layer: pack_weight(w, layer.weight.channel_axes, 1.0, 8, 8),
                weights.layers[index].weight,
            )
            ready = jax.eval_shape(functools.partial(integer_weight, step.product), packed)
            codes = [
                jax.ShapeDtypeStruct(graph.tensors[t].shape, jnp.int8) for t in layer.inputs
            ]
            jaxpr = jax.make_jaxpr(functools.partial(run_edge_layer, step))(
                weights.layers[index], ready, codes
            )
            assert any(map(is_integer_product, equations(jaxpr.jaxpr)))
            assert not any(map(is_float_product, equations(jaxpr.jaxpr)))

    @pytest.mark.heavy
    @pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
    @pytest.mark.parametrize("bits", [(8, 8), (4, 4)])
    def test_vision_networks(self, name, bits):
        case = vision_case(name, 64)
        quantized, known = calibrated(*case, (bits[0],), (bits[1],))
        forms, wrong = check_layers(case[0], quantized, known)
        assert wrong < 1e-3
        assert set(forms) >= {"vector", "dot", "conv" if name == "resnet18" else "shifted"}


def vision_case(name, pixels):
    model = create_model(name, num_classes=10)
    x = jax.random.normal(jax.random.key(1), (2, pixels, pixels, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    random = np.random.default_rng(0)

    def fill(path, shape):
        if len(shape.shape) > 1:
            spread = (2 / np.prod(shape.shape[:-1])) ** 0.5
            return jnp.asarray(random.normal(0, spread, shape.shape), shape.dtype)
        positive = path[-1].key in ("var", "scale")
        return jnp.asarray(random.normal(positive, 0.1, shape.shape), shape.dtype)

    params = jax.tree_util.tree_map_with_path(fill, shapes)
    return autosplit.trace(model.apply, params, x), params, (x,)


def upsamples(layer):
    (anchor,) = [e for e in layer.equations if e is layer.anchor]
    return set(anchor.params.get("lhs_dilation", (1,))) != {1}


def equations(jaxpr):
    """All equations, those of inner jaxprs of the CPU's branches included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "jaxpr"):
                    yield from equations(inner.jaxpr)


def is_integer_product(eqn):
    """A product of int8 into int32, or a multiplication of int16 (depthwise)."""
    kinds = [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]
    if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
        return kinds == [jnp.int8, jnp.int8, jnp.int32]
    return eqn.primitive.name == "mul" and kinds == [jnp.int16] * 3


def is_float_product(eqn):
    return eqn.primitive.name in ("dot_general", "conv_general_dilated") and jnp.issubdtype(
        eqn.outvars[0].aval.dtype, jnp.floating
    )


# ---- What split does with it


def random_net(p, x):
    x = jax.nn.relu(x @ p["a"])
    x = jnp.tanh(x @ p["b"]) * 2
    return x @ p["c"]


@pytest.fixture(scope="module")
def small():
    random = np.random.default_rng(0)
    params = {n: jnp.asarray(random.normal(size=(8, 8)), jnp.float32) for n in "abc"}
    x = jnp.asarray(random.normal(size=(4, 8)), jnp.float32)
    graph = autosplit.trace(random_net, params, x)
    return graph, params, (x,)


def at_cut(graph, quantized, cut):
    on_edge = jnp.asarray(cut.on_edge)
    return dataclasses.replace(
        quantized, assignment=dataclasses.replace(quantized.assignment, on_edge=on_edge)
    )


def fake_quantized_outputs(graph, quantized, leaves, cut):
    """Runs the edge layers in float with fake quantization: an independent loop."""
    a = quantized.assignment
    plain = quantized_weights(quantized.weights, a)
    known = dict(zip(graph.inputs, leaves, strict=True))
    for index, layer in enumerate(graph.layers):
        own = plain.layers[index] if cut.on_edge[index] else quantized.weights.layers[index]
        results = run_layer(layer, own, [known[t] for t in layer.inputs], own.weight)
        for t, x in zip(layer.outputs, results, strict=True):
            known[t] = (
                fake_quant(x, a.a_low[t], a.a_high[t], a.a_bits[t]) if cut.on_edge[index] else x
            )
    return [known[t] for t in graph.outputs]


class TestQuantizedNetworks:
    def test_at_every_cut(self, small):
        graph, params, inputs = small
        for cut in graph.cuts()[1:]:
            quantized = at_cut(graph, calibrated(*small, (8, 5), (8,))[0], cut)
            split = autosplit.split(graph, params, cut, quantized=quantized)
            found = split.cloud(split.edge(*inputs))
            expected = fake_quantized_outputs(graph, quantized, inputs, cut)[0]
            step = float(jnp.abs(expected).max()) / 255
            assert float(jnp.abs(found - expected).max()) < 3 * step

    def test_corrected_weights_are_what_runs(self, small):
        graph, params, inputs = small
        quantized, _ = calibrated(*small, (8,), (8,))
        cut = graph.cuts()[1]
        quantized = at_cut(graph, quantized, cut)
        flipped = jax.tree.map(lambda w: -w, quantized.weights)
        plain, changed = (
            autosplit.split(graph, params, cut, quantized=q).edge_layers(*inputs)[0]
            for q in (quantized, dataclasses.replace(quantized, weights=flipped))
        )
        assert not np.array_equal(plain, changed)

    def test_bits_per_channel_are_packed_at_the_most_and_run_in_integers(self, small):
        graph, *_ = small
        quantized, known = calibrated(*small, (8,), (8,))
        bits = tuple(jnp.asarray(np.resize([1, 2, 5, 4], (1, 8)), jnp.int32) for _ in graph.layers)
        quantized = dataclasses.replace(
            quantized, assignment=dataclasses.replace(quantized.assignment, w_bits=bits)
        )
        forms, wrong = check_layers(graph, quantized, known)
        assert forms == ["float", "dot", "dot"]  # the first reads the sensor
        assert wrong <= 0.02
        _, _, packed = edge_half.edge_half(
            graph, graph.cuts()[-1], quantized.weights, quantized.assignment
        )
        assert packed["0000.weight.levels"].size == 8 * 8 * 5 / 8

    @pytest.mark.parametrize("bits", [4, 8])
    def test_asymmetric_weights_run_in_float(self, small, bits):
        graph, *_ = small
        quantized, known = calibrated(*small, (bits,), (8,))
        low = tuple(-0.5 * high for high in quantized.assignment.w_high)
        quantized = dataclasses.replace(
            quantized, assignment=dataclasses.replace(quantized.assignment, w_low=low)
        )
        forms, wrong = check_layers(graph, quantized, known)
        assert forms == ["float"] * 3
        assert wrong <= 0.02

    def test_wide_and_float_tensors_stay_float(self, small):
        graph, *_ = small
        quantized, known = calibrated(*small, (8, 12, FLOAT_BITS), (8, 12, FLOAT_BITS, 8))
        forms, _ = check_layers(graph, quantized, known)
        assert forms == ["float"] * 3

    def test_another_edge_is_refused(self, small):
        graph, params, _ = small
        quantized, _ = calibrated(*small, (8,), (8,))
        with pytest.raises(PlanMismatchError, match="Quantize for this plan"):
            autosplit.split(graph, params, graph.cuts()[1], quantized=quantized)

    def test_another_graph_is_refused(self, small, dense):
        quantized, _ = calibrated(*small, (8,), (8,))
        with pytest.raises(PlanMismatchError, match="Quantize this graph"):
            autosplit.split(dense.graph, dense.params, dense.graph.cuts()[0], quantized=quantized)

    def test_infinite_clips_are_refused(self, small):
        graph, params, _ = small
        quantized, _ = calibrated(*small, (8,), (8,))
        wide = jnp.full(len(graph.tensors), jnp.inf)
        spoiled = dataclasses.replace(
            quantized, assignment=dataclasses.replace(quantized.assignment, a_high=wide)
        )
        with pytest.raises(InputError, match="Calibrate on inputs"):
            autosplit.split(graph, params, graph.cuts()[-1], quantized=spoiled)

    def test_sums_that_might_leave_int32_stay_float(self):
        # (2^31 - 1) / 127 / 255 = 66311.3 products of 8 and 8 bits.
        for terms, fits in ((66_311, True), (66_312, False)):
            graph = autosplit.trace(
                lambda w, x: x @ w,
                jax.ShapeDtypeStruct((terms, 2), jnp.float32),
                jax.ShapeDtypeStruct((1, terms), jnp.float32),
            )
            grids = [make_grid(-1.0, 1.0, 8)] * len(graph.tensors)
            step = edge_layer(graph, len(graph.layers) - 1, grids, 8)
            assert (step.product is not None) == fits


# ---- Bad input


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(deadline=None, max_examples=30)
@given(ends=st.tuples(finite, finite), bits=st.integers(1, 8), data=st.data())
def test_grids_hold_zero_and_never_leave_their_codes(ends, bits, data):
    """Constant tensors (an empty range) and ranges on one side of zero included."""
    low, high = min(ends), max(ends)
    grid = make_grid(low, data.draw(st.sampled_from([low, high])), bits)
    assert -grid.offset <= grid.zero < grid.offset
    assert np.isfinite(grid.scale)
    assert grid.scale > 0
    special = st.sampled_from([0.0, np.inf, -np.inf, np.nan])
    x = np.array(data.draw(st.lists(st.one_of(finite, special), max_size=9)), np.float32)
    code = np.asarray(encode(grid, jnp.asarray(x)))
    assert code.shape == x.shape
    assert ((code >= -grid.offset) & (code < grid.offset)).all()
    assert (code[x == 0] == grid.zero).all()
    assert (code[x == np.inf] == grid.offset - 1).all()
    assert (code[x == -np.inf] == -grid.offset).all()
    assert np.isfinite(decode(grid, jnp.asarray(code))).all()
    levels = to_levels(grid, jnp.asarray(code))
    assert levels.dtype == jnp.uint8
    np.testing.assert_array_equal(from_levels(grid, levels), code)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_constant_tensors_and_channels_of_zeros(value):
    def fn(p, x):
        return jax.nn.relu(x @ p["a"] + p["shift"]) @ p["b"]

    a = jnp.asarray(np.eye(4, dtype=np.float32)).at[:, 1].set(0)
    params = {"a": a, "b": jnp.zeros((4, 3)), "shift": jnp.float32(value)}
    inputs = (jnp.full((2, 4), value),)
    graph = autosplit.trace(fn, params, *inputs)
    for bits in (1, 4, 8):
        quantized, known = calibrated(graph, params, inputs, (bits,), (bits,))
        forms, _ = check_layers(graph, quantized, known)
        assert forms == ["float", "dot"]
        split = autosplit.split(graph, params, graph.cuts()[-1], quantized=quantized)
        found = split.cloud(split.edge(*inputs))
        # A channel of zeros has the smallest scale; at one bit its levels are 1, not 0.
        np.testing.assert_allclose(found, fn(params, *inputs), atol=1e-6)


def test_tensors_of_no_elements():
    def fn(p, x):
        return jax.nn.relu(jnp.tanh(x) @ p)

    for rows, p in ((0, jnp.eye(4)), (2, jnp.ones((4, 0))), (2, jnp.eye(4))):
        inputs = (jnp.ones((rows, 4)),)
        graph = autosplit.trace(fn, p, *inputs)
        found, _ = calibrated(graph, p, inputs, (8,), (8,))
        split = autosplit.split(graph, p, graph.cuts()[-1], quantized=found)
        assert split.cloud(split.edge(*inputs)).shape == (rows, p.shape[1])
