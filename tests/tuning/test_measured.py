"""Plans are held against what they do."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import InfeasibleError, PlanMismatchError
from autosplit.hardware import EYERISS, TPU


class Net(nn.Module):
    """Small, with a residual connection."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        x = x + nn.relu(nn.Conv(8, (3, 3))(x))
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def job():
    net = Net()
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    params = net.init(jax.random.key(0), images[:1])
    graph = autosplit.trace(net.apply, params, images[:1])
    profile = autosplit.profile(
        graph,
        params,
        images,
        edge=EYERISS,
        cloud=TPU,
        network=autosplit.Network(uplink_bits_per_s=1e5, round_trip_s=0.01),
    )
    return net, graph, params, images, profile


def relative_error(outputs, reference):
    return float(jnp.sum((outputs - reference) ** 2) / jnp.sum(reference**2))


def test_the_measured_error_is_that_of_the_running_split(job):
    net, graph, params, images, profile = job
    plans = autosplit.measure(graph, params, images, autosplit.solve(profile))
    reference = net.apply(params, images)
    exact = [plan for plan in plans if plan.encoding in ("packed", "raw")]
    # A split compiles two programs: a tenth of the list, from end to end.
    for plan in exact[:: max(len(exact) // 10, 1)]:
        split = autosplit.split(graph, params, plan)
        outputs = jnp.concatenate([split.cloud(split.edge(image[None])) for image in images])
        np.testing.assert_allclose(
            plan.output_error, relative_error(outputs, reference), rtol=1e-3, atol=1e-9
        )


def test_measuring_judges_again(job):
    _, graph, params, images, profile = job
    plans = autosplit.solve(profile, autosplit.Constraints(output_error=1e-2))
    strict = dataclasses.replace(plans, constraints=autosplit.Constraints(output_error=1e-6))
    measured = autosplit.measure(graph, params, images, strict)
    for plan in measured:
        if plan.output_error is not None:
            assert plan.feasible == (plan.output_error <= 1e-6 * (1 + 1e-9))


def test_a_lossy_encoding_is_measured_on_its_decoded_images(job):
    net, graph, params, images, profile = job
    plans = autosplit.solve(profile)
    darker = images * 0.9
    measured = autosplit.measure(graph, params, images, plans, decoded={"jpeg-q50": darker})
    by_encoding = {plan.encoding: plan for plan in measured}
    expected = relative_error(net.apply(params, darker), net.apply(params, images))
    np.testing.assert_allclose(by_encoding["jpeg-q50"].output_error, expected, rtol=1e-3)
    assert by_encoding["jpeg-q75"].output_error is None


def test_the_fastest_split_keeps_the_budget_once_measured(job):
    _, graph, params, images, profile = job
    rounds = []
    for budget in (3e-1, 3e-2, 3e-3):
        plans = autosplit.solve_measured(
            graph,
            params,
            images,
            profile,
            autosplit.Constraints(output_error=budget),
            on_round=lambda number, found: rounds.append((number, len(found))),
        )
        assert plans.fastest.output_error <= budget * (1 + 1e-9)
        assert any(plan.feasible and plan.encoding == "packed" for plan in plans)
    assert rounds


def test_tighter_rounds_do_not_raise_the_bound(job):
    _, graph, params, images, profile = job
    constraints = autosplit.Constraints(output_error=3e-2)
    plans = autosplit.solve_measured(graph, params, images, profile, constraints)
    assert plans.lower_bound == autosplit.solve(profile, constraints).lower_bound
    assert plans.gap >= 0


def test_a_budget_that_nothing_keeps_is_explained(job):
    _, graph, params, images, profile = job
    with pytest.raises(InfeasibleError, match="latency"):
        autosplit.solve_measured(
            graph, params, images, profile, autosplit.Constraints(latency_s=1e-9)
        )


def test_a_tighter_round_that_finds_nothing_ends_in_an_explanation(job):
    # Only splits are fast enough, and the prediction alone would let one pass.
    _, graph, params, images, profile = job
    gained = dataclasses.replace(
        profile,
        weight_gain=profile.weight_gain * 1e-6,
        activation_gain=profile.activation_gain * 1e-6,
    )
    cloud = min(p.latency_s for p in autosplit.solve(profile) if p.encoding != "packed")
    constraints = autosplit.Constraints(output_error=1e-7, latency_s=0.9 * cloud)
    with pytest.raises(InfeasibleError, match="once its output error is measured") as caught:
        autosplit.solve_measured(graph, params, images, gained, constraints)
    assert any("output_error" in reason for reason in caught.value.reasons)


def test_plans_of_another_graph_are_refused(job):
    net, _, params, images, profile = job
    other = autosplit.trace(lambda p, x: net.apply(p, x) * 2, params, images[:1])
    with pytest.raises(PlanMismatchError, match="was made for a graph"):
        autosplit.measure(other, params, images, autosplit.solve(profile))
