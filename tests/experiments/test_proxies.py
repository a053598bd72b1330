"""What the proxies are, that the draws are as asked for, and that a small run is whole."""

import csv
import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import InputError
from autosplit.graph.running import prepare
from autosplit.hardware import EYERISS, TPU, Network
from autosplit.profiling.sensitivity_tables import sensitivity_table
from autosplit.workload import FLOAT_BITS
from configs import proxies as settings
from experiments import proxies
from experiments.proxies_draws import drawn_bits, drawn_bits_of_mean, free_places
from experiments.proxies_report import LOSSES, loss, rank_correlations, ratio
from experiments.proxies_scores import PROXIES, proxy_values, tensor_powers


@pytest.fixture(scope="module")
def case():
    """Two products with an activation, profiled at three bit-widths."""
    rng = np.random.default_rng(0)
    params = tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((6, 8), (8, 5)))
    batch = rng.normal(size=(6, 6)).astype(np.float32)

    def fn(p, x):
        return jax.nn.relu(x @ p[0]) @ p[1]

    graph = autosplit.trace(fn, params, batch[:1])
    profile = autosplit.profile(
        graph, params, batch, edge=EYERISS, cloud=TPU,
        network=Network(uplink_bits_per_s=1e6), bits=(2, 4, 8),
    )  # fmt: skip
    weights, calls = prepare(graph, params), [jnp.asarray(batch[:, None])]
    return types.SimpleNamespace(
        graph=graph, params=params, batch=batch, profile=profile,
        powers=tensor_powers(graph, weights, calls),
        table=sensitivity_table(graph, params, batch, profile),
    )  # fmt: skip


# ---- Draws


def test_drawn_bits_are_candidates_where_something_is_quantized(case):
    rng = np.random.default_rng(0)
    means = []
    for _ in range(50):
        every = np.concatenate(drawn_bits(case.profile, rng, 1.0))
        free = free_places(case.profile)
        assert set(every[free]) <= set(case.profile.bits)
        assert (every[~free] == FLOAT_BITS).all()
        means.append(every[free].mean())
    assert min(means) < 5 < 7 < max(means)


def test_draws_of_one_mean_differ_and_have_it():
    profile = types.SimpleNamespace(
        bits=np.arange(2, 9), has_weight=np.ones(40, bool), macs=np.ones(40),
        producer=np.arange(-1, 40), activation_gain=np.ones((41, 7)),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    drawn = [np.concatenate(drawn_bits_of_mean(profile, rng, 1.5, 5.5)) for _ in range(20)]
    free = free_places(profile)
    assert {one[free].mean() for one in drawn} == {5.5}
    assert len({tuple(one) for one in drawn}) == 20
    with pytest.raises(InputError, match="expected 2 to 8"):
        drawn_bits_of_mean(profile, rng, 1.5, 9.0)


def test_a_mean_that_the_candidates_cannot_make_is_come_near(case):
    rng = np.random.default_rng(0)
    for _ in range(20):
        every = np.concatenate(drawn_bits_of_mean(case.profile, rng, 1.0, 5.0))
        free = free_places(case.profile)
        assert abs(every[free].sum() - 5.0 * free.sum()) <= 2


# ---- Proxies


def values(case, w_bits, a_bits):
    layers, tensors = len(case.graph.layers), len(case.graph.tensors)
    return proxy_values(
        case.profile, case.profile, case.table, case.powers,
        np.broadcast_to(w_bits, layers), np.broadcast_to(a_bits, tensors),
    )  # fmt: skip


def test_proxies_add_up_what_is_quantized(case):
    profile = case.profile
    one = values(case, 4, FLOAT_BITS)
    assert one["quant_mse"] == pytest.approx(profile.weight_error[:, 1].sum())
    gains = (profile.weight_gain * profile.weight_error)[:, 1].sum()
    assert one["gauss_newton"] == pytest.approx(gains)
    assert one["alone_error"] == pytest.approx(case.table.weights.output_error[:, 1].sum())
    assert one["mean_bits"] == -4
    both, other = values(case, 4, 8), values(case, FLOAT_BITS, 8)
    for name in set(PROXIES) - {"mean_bits"}:
        assert both[name] == pytest.approx(one[name] + other[name])
    nothing = values(case, FLOAT_BITS, FLOAT_BITS)
    assert set(nothing.values()) == {0.0}


def test_every_proxy_is_larger_at_fewer_bits(case):
    found = [values(case, b, b) for b in (2, 4, 8)]
    assert set(found[0]) == set(PROXIES)
    for name in PROXIES:
        assert found[0][name] > found[1][name] > found[2][name]


def test_powers_are_mean_squares(case):
    by_layer, by_tensor = case.powers
    weights = [np.mean(np.square(p)) for p in case.params]
    assert sorted(by_layer[case.profile.has_weight]) == pytest.approx(sorted(weights))
    assert by_tensor[0] == pytest.approx(np.mean(case.batch**2))
    hidden = np.maximum(case.batch @ case.params[0], 0)
    assert np.isclose(by_tensor, np.mean(hidden**2), rtol=1e-4).any()


# ---- Correlations


def row(number, **changes):
    return {
        "source": "varied", **dict.fromkeys(PROXIES, number), "output_error": number**2,
        "divergence": -number, "agreement": 1 - number / 10, "accuracy": None, **changes,
    }  # fmt: skip


def test_correlations_are_of_ranks_and_by_source():
    rows = [row(float(n)) for n in range(5)] + [row(1.0, source="solver")]
    found = rank_correlations(rows)
    assert len(found) == 2 * len(PROXIES)
    first = found[0]
    assert (first["output_error"], first["divergence"]) == (pytest.approx(1), pytest.approx(-1))
    assert first["agreement"] == pytest.approx(1)
    assert first["accuracy"] is None
    assert all(found[-1][name] is None for name in LOSSES)


def test_losses_and_ratios():
    assert loss(row(2.0), "agreement") == pytest.approx(0.2)
    assert math.isnan(loss(row(2.0), "accuracy"))
    assert ratio(row(2.0), "gauss_newton") == 0.5
    assert ratio(row(0.0), "gauss_newton") is None


# ---- A run


@pytest.fixture
def small(checkpoint, labelled):
    config = settings.get_config()
    with config.unlocked():
        config.models = {"mobilenet_v2": str(checkpoint)}
    config.images.source = str(labelled)
    config.images.resize_pixels = config.images.crop_pixels = 32
    config.images.calibration = config.images.table = 1
    config.bits = (4, 8)
    config.draws, config.equal_draws = 4, 3
    config.limits.output = config.limits.fisher = (0.5,)
    return config


def test_a_small_run_is_whole(small, case, monkeypatch, tmp_path):
    network = proxies.Network(
        graph=case.graph, variables=case.params, weights=prepare(case.graph, case.params),
        calibration=case.batch[:4], evaluation=case.batch[4:], labels=np.array([1, 0]),
    )  # fmt: skip
    monkeypatch.setattr(proxies, "load_network", lambda *_: network)
    document = proxies.run(small, tmp_path)
    rows = document["rows"]
    sources = [row["source"] for row in rows]
    assert sources.count(proxies.VARIED) == 4
    assert sources.count(proxies.EQUAL) == 3
    assert sources.count(proxies.SOLVED) >= 1
    assert all(row["output_error"] > 0 for row in rows)
    assert {row["accuracy"] for row in rows} <= {0.0, 0.5, 1.0}
    assert json.loads((tmp_path / "proxies.json").read_text())["rows"] == rows
    with open(tmp_path / "proxies.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(rows)
    text = (tmp_path / "proxies.md").read_text()
    assert all(title in text for title in PROXIES.values())
    assert (tmp_path / "proxies_mobilenet_v2.png").stat().st_size > 1000


def test_photographs_are_cut_in_two(small):
    network = proxies.load_network(small, "mobilenet_v2", small.models.mobilenet_v2)
    assert (len(network.calibration), len(network.evaluation)) == (1, 2)
    assert network.labels.tolist() == [1, 2]


def test_too_many_calibrate(small, tmp_path):
    small.images.calibration = 3
    with pytest.raises(InputError, match="fewer than the 3 photographs"):
        proxies.run(small, tmp_path)


def test_no_networks(small, tmp_path):
    with small.unlocked():
        small.models = {}
    with pytest.raises(InputError, match=r"config\.models is empty"):
        proxies.run(small, tmp_path)
    assert not any(tmp_path.iterdir())
