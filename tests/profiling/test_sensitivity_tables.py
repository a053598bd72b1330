"""Every entry of a table is the score of the assignment that it names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autosplit.errors import InputError, PlanMismatchError
from autosplit.graph.running import prepare
from autosplit.profiling import assignment as module
from autosplit.profiling.assignment import profile_assignment
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.many_assignments import evaluate_assignments
from autosplit.profiling.sensitivity_tables import measure_sensitivities, sensitivity_table
from autosplit.workload import FLOAT_BITS

LABELS = np.arange(8) % 10


@pytest.fixture(scope="module")
def table(net, profiled):
    return sensitivity_table(net.graph, net.params, net.calibration, profiled, labels=LABELS)


def alone(net, profiled, field, index, bits):
    """Returns the assignment that has bits in one place."""
    weights = prepare(net.graph, net.params)
    chosen = {"w_bits": np.full(len(net.graph.layers), FLOAT_BITS),
              "a_bits": np.full(len(net.graph.tensors), FLOAT_BITS)}  # fmt: skip
    chosen[field][index] = bits
    return profile_assignment(net.graph, weights, profiled, **chosen)


def test_entries_are_the_scores_of_single_assignments(net, profiled, table):
    places = [("w_bits", i) for i in np.flatnonzero(profiled.has_weight)]
    places += [("a_bits", t) for t in np.flatnonzero(profiled.producer >= 0)]
    places = [(*place, k) for place in places for k in range(len(profiled.bits))]
    some = (alone(net, profiled, f, i, profiled.bits[k]) for f, i, k in places)
    calls = calibration_calls(net.graph, net.calibration)
    weights = prepare(net.graph, net.params)
    scores = evaluate_assignments(net.graph, weights, some, calls, labels=LABELS)
    for number, (field, index, k) in enumerate(places):
        side = table.weights if field == "w_bits" else table.activations
        for name in ("output_error", "divergence", "agreement", "accuracy"):
            found, expected = getattr(side, name)[index, k], getattr(scores, name)[number]
            assert found == pytest.approx(expected, rel=2e-3, abs=1e-6), (field, index, k, name)


def test_what_is_not_quantized_makes_no_error(net, profiled, table):
    plain = evaluate_assignments(
        net.graph, prepare(net.graph, net.params), [alone(net, profiled, "w_bits", 0, FLOAT_BITS)],
        calibration_calls(net.graph, net.calibration), labels=LABELS,
    )  # fmt: skip
    for side, rows in ((table.weights, ~profiled.has_weight),
                       (table.activations, profiled.producer < 0)):  # fmt: skip
        assert (side.output_error[rows] == 0).all()
        assert (side.output_error[~rows] > 0).all()
        assert (side.agreement[rows] == 1).all()
        assert (side.accuracy[rows] == plain.accuracy[0]).all()


def test_errors_fall_with_bits(table):
    for side in (table.weights, table.activations):
        assert side.output_error.shape[1] == len(table.bits)
        assert (side.output_error[:, -1] <= side.output_error[:, 0]).all()


def test_a_table_is_near_the_gains_at_many_bits(profiled, table):
    """The two say the same where the first order holds: at 8 bits, in sum."""
    predicted = (profiled.weight_gain * profiled.weight_error)[:, -1].sum()
    assert 0.5 < predicted / table.weights.output_error[:, -1].sum() < 2
    predicted = (profiled.activation_gain * profiled.activation_error)[:, -1].sum()
    assert 0.5 < predicted / table.activations.output_error[:, -1].sum() < 2


def test_each_layer_is_traced_once_for_all_entries(net, profiled, monkeypatch):
    runs = []
    run_layer = module.run_layer

    def counting(layer, *arguments):
        runs.append(layer.name)
        return run_layer(layer, *arguments)

    monkeypatch.setattr(module, "run_layer", counting)
    done = []
    graph = dataclasses.replace(net.graph)
    sensitivity_table(
        graph, net.params, net.calibration, profiled, calls_at_once=3,
        progress=lambda *both: done.append(both),
    )  # fmt: skip
    assert sorted(runs) == sorted(layer.name for layer in graph.layers)
    assert done[-1][0] == done[-1][1] == len(done)


def test_clips_of_any_method_and_bits_by_channel(net, profiled, table):
    weights = prepare(net.graph, net.params)
    plain = profile_assignment(net.graph, weights, profiled, 4, 4)
    by_channel = dataclasses.replace(
        plain,
        w_bits=tuple(None if h is None else jnp.full(h.shape, 4, jnp.int32) for h in plain.w_high),
    )
    wide = dataclasses.replace(plain, w_high=jax.tree.map(lambda h: 3 * h, plain.w_high))
    calls = calibration_calls(net.graph, net.calibration)
    one, two = (
        measure_sensitivities(net.graph, weights, calls, {4: setting}, calls_at_once=8)
        for setting in (by_channel, wide)
    )
    column = list(table.bits).index(4)
    same = table.weights.output_error[:, column]
    np.testing.assert_allclose(one.weights.output_error[:, 0], same, rtol=2e-3)
    np.testing.assert_allclose(
        two.activations.output_error[:, 0], table.activations.output_error[:, column], rtol=2e-3
    )
    assert two.weights.output_error.sum() > 2 * same.sum()
    assert one.weights.accuracy is None


def test_wrong_inputs(net, profiled):
    calls = calibration_calls(net.graph, net.calibration)
    weights = prepare(net.graph, net.params)
    with pytest.raises(InputError, match="0 bit-widths"):
        measure_sensitivities(net.graph, weights, calls, {})
    with pytest.raises(InputError, match="8 whole"):
        sensitivity_table(net.graph, net.params, net.calibration, profiled, labels=[1])
    other = dataclasses.replace(profiled, fingerprint="0" * 64)
    with pytest.raises(PlanMismatchError):
        sensitivity_table(net.graph, net.params, net.calibration, other)
