"""Recipes are checked, and each of their fields does what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import CalibrationError, InputError, PlanMismatchError
from autosplit.graph import trace
from autosplit.profiling.assignment import (
    assignment_outputs,
    float_outputs,
    quantized_weights,
    relative_error,
)
from autosplit.profiling.plan import SplitPlan
from autosplit.ptq import Recipe, quantize
from autosplit.quant.clipping import METHODS
from autosplit.workload import FLOAT_BITS

from .conftest import quantized_weight


def made(net, **fields):
    return quantize(net.graph, net.params, net.images, Recipe(**fields))


def error(net, quantized):
    found = assignment_outputs(net.graph, quantized.weights, quantized.assignment, net.calls)
    return relative_error(found, float_outputs(net.graph, net.weights, net.calls))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"w_bits": 0}, "w_bits is 0"),
        ({"w_bits": 4.5}, "w_bits is 4.5"),
        ({"a_bits": (4, 9)}, "a_bits"),
        ({"a_bits": [[4]]}, "a_bits"),
        ({"first_last_bits": 16}, "first_last_bits is 16"),
        ({"weight_clipping": "best"}, "'best'.*minmax"),
        ({"activation_clipping": "none"}, "'none'"),
        ({"granularity": "row"}, "granularity is 'row'.*'channel'"),
        ({"correct": "all"}, "correct is 'all'"),
        ({"rounding": "up"}, "rounding is 'up'.*'adaround'"),
        ({"joint": True}, "joint is True"),
        ({"lapq_init": "l4"}, "lapq_init is 'l4'"),
        ({"lapq_evaluations": 0}, "lapq_evaluations is 0"),
        ({"lapq_images": -1}, "lapq_images is -1"),
        ({"rounding_steps": 1.5}, "rounding_steps is 1.5"),
        ({"channel_bits": True, "granularity": "tensor"}, "channel_bits needs"),
        ({"channel_bits": True, "symmetric_weights": False}, "symmetric"),
        ({"correct": "weights", "rounding": "brecq"}, "undo"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(fields, message):
    with pytest.raises(InputError, match=message):
        Recipe(**fields)


def test_bits_may_be_any_sequence_of_whole_numbers():
    assert Recipe(w_bits=np.array([2, 4])).w_bits == (2, 4)
    assert Recipe(a_bits=[8, FLOAT_BITS]).a_bits == (8, 32)
    assert Recipe(w_bits=np.int64(3)).w_bits == 3


def test_entries_must_fit_the_graph(net):
    layers, tensors = len(net.graph.layers), len(net.graph.tensors)
    for fields, message in (
        ({"w_bits": (4,) * (layers + 1)}, f"w_bits has {layers + 1} entries.*{layers} layers"),
        ({"a_bits": (4,)}, f"a_bits has 1 entries.*{tensors} tensors"),
        ({"on_edge": (True,)}, "on_edge has 1 flags"),
    ):
        with pytest.raises(InputError, match=message):
            made(net, **fields)


def test_bad_calibration_and_labels_are_refused(net):
    for images in (net.images[:0], net.images[:3], np.full_like(net.images, np.nan)):
        with pytest.raises(CalibrationError):
            quantize(net.graph, net.params, images, Recipe())
    with pytest.raises(InputError, match="labels"):
        quantize(net.graph, net.params, net.images, Recipe(joint="lapq"), labels=np.zeros(2, int))


def test_weights_equal_numpy_at_the_whole_range(net):
    for granularity in ("channel", "tensor"):
        found = made(
            net, w_bits=4, first_last_bits=None, weight_clipping="minmax", granularity=granularity
        ).assignment
        for own, clip in zip(net.weights.layers, found.w_high, strict=True):
            if own.weight is None:
                assert clip is None
                continue
            weight = np.abs(np.asarray(own.weight))
            axes = tuple(range(weight.ndim - 1)) if granularity == "channel" else None
            np.testing.assert_allclose(
                np.squeeze(clip), np.squeeze(weight.max(axis=axes)), rtol=1e-6
            )


def test_channel_clips_by_squared_error_beat_any_common_part(net):
    found = made(net, w_bits=3, first_last_bits=None, weight_clipping="mse").assignment
    for own, clip in zip(net.weights.layers, found.w_high, strict=True):
        if own.weight is not None:
            weight = np.asarray(own.weight, np.float64)
            reach = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)), keepdims=True)

            def squared(clip, weight=weight):
                return np.mean((weight - quantized_weight(weight, clip, 3)) ** 2)

            common = min(squared(r * reach) for r in np.linspace(0.2, 1, 81))
            assert squared(np.asarray(clip, np.float64)) <= 1.02 * common


def test_first_and_last_layer_and_the_outputs_have_their_bits(net):
    found = made(net, w_bits=4, a_bits=3, first_last_bits=8).assignment
    weighted = [i for i, own in enumerate(net.weights.layers) if own.weight is not None]
    w_bits, a_bits = np.asarray(found.w_bits), np.asarray(found.a_bits)
    assert w_bits[weighted].tolist() == [8] + [4] * (len(weighted) - 2) + [8]
    last = net.graph.layers[weighted[-1]]
    high = {*net.graph.inputs, *last.inputs, *net.graph.outputs}
    assert {t for t in range(len(a_bits)) if a_bits[t] == 8} == high
    assert set(a_bits.tolist()) == {3, 8}
    same = made(net, w_bits=4, a_bits=3, first_last_bits=None).assignment
    assert set(np.asarray(same.w_bits).tolist()) == {4}


def test_fused_sums_stay_in_float_where_nothing_else_reads_them(net):
    found = np.asarray(made(net, a_bits=4, fused_sums=True).assignment.a_bits)
    kept = np.flatnonzero(found == FLOAT_BITS)
    assert len(kept) == 1  # the other operand is read by a convolution too
    (reader,) = net.graph.tensors[kept[0]].consumers
    assert net.graph.layers[reader].kind == "add"


def test_symmetric_activations_are_centred_unless_none_is_negative(net):
    free, centred = (
        made(net, a_bits=4, symmetric_activations=flag, activation_clipping="minmax").assignment
        for flag in (False, True)
    )
    low, high = np.asarray(free.a_low), np.asarray(free.a_high)
    reach = np.maximum(-low, high)
    for t, bits in enumerate(np.asarray(free.a_bits)):
        step = reach[t] / (2 ** (bits - 1) - 1)
        wanted = (-reach[t] - step, reach[t]) if low[t] < 0 else (low[t], high[t])
        assert (centred.a_low[t], centred.a_high[t]) == pytest.approx(wanted, rel=1e-5)
    assert (low < 0).any()
    assert (low == 0).any()


def test_asymmetric_weights_have_two_ends(net):
    found = made(net, w_bits=4, weight_clipping="minmax", symmetric_weights=False)
    for own, low, high in zip(
        net.weights.layers, found.assignment.w_low, found.assignment.w_high, strict=True
    ):
        if own.weight is not None:
            weight = np.asarray(own.weight)
            axes = tuple(range(weight.ndim - 1))
            np.testing.assert_allclose(np.ravel(low), weight.min(axes), rtol=1e-5)
            np.testing.assert_allclose(np.ravel(high), weight.max(axes), rtol=1e-5)
    assert error(net, found) < 0.2


def test_channel_bits_keep_the_mean_and_favour_wide_channels(net):
    found = made(net, w_bits=4, first_last_bits=None, channel_bits=True).assignment
    for own, bits in zip(net.weights.layers, found.w_bits, strict=True):
        if own.weight is None:
            assert bits is None
            continue
        bits = np.ravel(bits)
        spread = np.asarray(own.weight).std(axis=tuple(range(own.weight.ndim - 1)))
        assert bits.mean() == pytest.approx(4, abs=0.5)
        assert (np.diff(bits[np.argsort(spread)]) >= 0).all()


@pytest.mark.parametrize("clipping", list(METHODS))
def test_every_clipping_method_works_at_8_bits(net, clipping):
    found = made(net, weight_clipping=clipping, activation_clipping=clipping)
    assert error(net, found) < 0.1


def weight_errors(net, quantized):
    """Returns the relative squared error of every weight, against the one that it came from."""
    levels = quantized_weights(quantized.weights, quantized.assignment).layers
    pairs = zip(quantized.weights.layers, levels, strict=True)
    return np.array([
        float(jnp.sum((own.weight - level.weight) ** 2) / jnp.sum(own.weight**2))
        for own, level in pairs if own.weight is not None
    ])  # fmt: skip


def test_clips_by_channel_and_equalization_lower_the_error_of_weights(net):
    fields = {"w_bits": 3, "first_last_bits": None, "weight_clipping": "mse"}
    naive = weight_errors(net, made(net, **fields, granularity="tensor"))
    assert (weight_errors(net, made(net, **fields)) < naive).all()
    equalized = weight_errors(net, made(net, **fields, granularity="tensor", equalize=True))
    assert equalized.sum() < 0.9 * naive.sum()


def test_bias_correction_lowers_the_output_error(net):
    fields = {"w_bits": 3, "a_bits": FLOAT_BITS, "weight_clipping": "mse"}
    assert error(net, made(net, **fields, correct="bias")) < error(net, made(net, **fields))


def test_bits_of_32_change_nothing(net):
    for fields in ({}, {"equalize": True}, {"correct": "bias"}, {"symmetric_weights": False}):
        found = made(net, w_bits=FLOAT_BITS, a_bits=FLOAT_BITS, **fields)
        assert error(net, found) < 1e-8


def test_lapq_lowers_the_loss_and_tells_of_it(net):
    lines = []
    fields = {"w_bits": 3, "a_bits": 3, "joint": "lapq", "lapq_evaluations": 60}
    recipe = Recipe(**fields, lapq_iterations=1)
    found = quantize(net.graph, net.params, net.images, recipe, on_progress=lines.append)
    assert any("lapq: loss" in line for line in lines)
    assert error(net, found) < error(net, made(net, w_bits=3, a_bits=3, weight_clipping="minmax"))


@pytest.mark.parametrize("rounding", ["adaround", "brecq"])
def test_learned_rounding_is_told_of_and_stays_on_the_grid(net, rounding):
    lines = []
    recipe = Recipe(w_bits=3, a_bits=FLOAT_BITS, rounding=rounding, rounding_steps=20,
                    rounding_batch=64, correct="bias")  # fmt: skip
    found = quantize(net.graph, net.params, net.images, recipe, on_progress=lines.append)
    assert weight_errors(net, found).max() < 1e-9
    assert np.isfinite(error(net, found))
    assert any(rounding in line for line in lines)


def plan_for(graph, edge_layers):
    """Returns a plan of mixed bits, whose prices play no part here."""
    layers, tensors = len(graph.layers), len(graph.tensors)
    on_edge = tuple(i < edge_layers for i in range(layers))
    return SplitPlan(
        label="mixed", fingerprint=graph.fingerprint, cut_name="", on_edge=on_edge,
        crosses=(False,) * tensors, encoding="packed",
        w_bits=tuple(2 + i if on_edge[i] else FLOAT_BITS for i in range(layers)),
        a_bits=tuple(3 + t if t < edge_layers else FLOAT_BITS for t in range(tensors)),
        weight_ratio=(1.0,) * layers, activation_low=(0.0,) * tensors,
        activation_high=(0.0,) * tensors, edge_s=0.0, pack_s=0.0, uplink_s=0.0, unpack_s=0.0,
        cloud_s=0.0, downlink_s=0.0, round_trip_s=0.0, uplink_bytes=0.0, downlink_bytes=0.0,
        edge_weight_bytes=0, edge_activation_bytes=0, quant_mse=0.0, predicted_output_error=0.0,
    )  # fmt: skip


def test_a_plan_decides_bits_and_edge(net):
    plan = plan_for(net.graph, edge_layers=4)
    recipe = Recipe.of_plan(net.graph, plan, correct="bias")
    found = quantize(net.graph, net.params, net.images, recipe)
    assert tuple(np.asarray(found.assignment.on_edge)) == plan.on_edge
    assert tuple(np.asarray(found.assignment.w_bits)) == plan.w_bits
    assert tuple(np.asarray(found.assignment.a_bits)) == plan.a_bits
    assert 0 < error(net, found) < 1
    with pytest.raises(InputError, match="w_bits cannot be given"):
        Recipe.of_plan(net.graph, plan, w_bits=4)
    other = dataclasses.replace(plan, fingerprint="0" * 64)
    with pytest.raises(PlanMismatchError):
        Recipe.of_plan(net.graph, other)


@pytest.mark.parametrize("bits", [1, 8])
def test_dead_channels_and_constant_tensors_make_no_nan(bits):
    params = {"a": jnp.zeros((3, 4)).at[:, 0].set(1.0), "b": jnp.ones((4, 2))}
    graph = trace(
        lambda p, x: jax.nn.relu(-jnp.abs(x @ p["a"])) @ p["b"], params, jnp.ones((1, 3))
    )
    for fields in (
        {"correct": "bias", "equalize": True},
        {"correct": "weights"},
        {"joint": "lapq", "lapq_init": "none", "lapq_evaluations": 5},
        {"granularity": "tensor", "symmetric_weights": False},
        {"channel_bits": True},
    ):
        recipe = Recipe(w_bits=bits, a_bits=bits, first_last_bits=None, **fields)
        found = quantize(graph, params, np.ones((4, 3), np.float32), recipe)
        outputs = assignment_outputs(
            graph, found.weights, found.assignment, [jnp.ones((2, 1, 3))]
        )
        assert np.isfinite(outputs[0]).all(), fields


def test_a_function_without_weights_is_no_problem():
    graph = trace(lambda p, x: jnp.tanh(x), {}, jnp.ones((1, 3)))
    recipe = Recipe(a_bits=4, correct="bias", equalize=True)
    found = quantize(graph, {}, np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), recipe)
    assert found.assignment.w_high == (None,)
