"""What the measurement of the codec runs, and what it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.graph.running import prepare
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error_search import clip_tables
from autosplit.quant.clipping import METHODS
from configs import codec_speed as settings
from experiments import codec_speed
from experiments.speed_case import Case


def network(weights, x):
    hidden = jax.nn.relu(x @ weights["w"])
    return jax.nn.relu(hidden @ weights["v"]) @ weights["u"]


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    shapes = {"w": (6, 16), "v": (16, 32), "u": (32, 4)}
    weights = {k: jnp.asarray(random.normal(size=s), jnp.float32) for k, s in shapes.items()}
    images = random.normal(size=(8, 6)).astype(np.float32)
    return Case(name="small", apply=network, variables=weights, images=images)


@pytest.fixture
def config():
    config = settings.get_config()
    config.sizes, config.bits, config.rounds, config.calls = (64,), (3, 8), 1, 1
    return config


def test_only_what_crosses_changes_its_bits(case, config):
    graph = autosplit.trace(case.apply, case.variables, case.images[:1])
    weights = prepare(graph, case.variables)
    calls = calibration_calls(graph, case.images)
    clips = {
        bits: clip_tables(graph, weights, [calls], jnp.array([bits]), ["minmax"])["minmax"]
        for bits in (3, 8)
    }
    layer = graph.layers[1].name
    plan = codec_speed.cut_plan(graph, clips, layer, bits=3, edge_bits=8)
    split = autosplit.split(graph, case.variables, plan)
    assert [spec.bits for spec in split.manifest.crossing] == [3]
    assert sum(plan.crosses) == 1
    others = zip(plan.a_bits, plan.crosses, strict=True)
    assert {bits for bits, crosses in others if not crosses} == {8}
    expected = network(case.variables, case.images[:1])
    got = split.cloud(split.edge(case.images[:1]))
    assert float(jnp.abs(got - expected).max() / jnp.abs(expected).max()) < 0.5


def test_both_parts_are_measured_and_written(case, config, tmp_path, monkeypatch):
    graph = autosplit.trace(case.apply, case.variables, case.images[:1])
    config.cuts = (graph.layers[0].name, graph.layers[1].name)
    monkeypatch.setattr(codec_speed, "load_case", lambda *_: case)
    document = codec_speed.run(config, tmp_path)
    assert [(row["size"], row["bits"]) for row in document["speed"]] == [(64, 3), (64, 8)]
    assert all(row[f"{step}_ratio"] > 0 for row in document["speed"] for step in codec_speed.STEPS)
    for row in document["coding"]:
        assert row["sent_bytes"] <= row["packed_bytes"]
        assert row["entropy_bytes"] <= row["packed_bytes"]
        pays = row["pays_below_bits_per_s"] > config.bits_per_s
        assert pays == (row["gain_s"] > 0)
    names = {"codec_speed.json", "codec_speed.csv", "codec_coding.csv", "codec_speed.md"}
    assert {file.name for file in tmp_path.iterdir()} == names
    text = (tmp_path / "codec_speed.md").read_text()
    assert all(name in text for name in (*config.cuts, *codec_speed.STEPS))


def test_the_entropy_of_levels_is_that_of_their_shares():
    levels = np.repeat(np.arange(8, dtype=np.uint8), 5)
    assert codec_speed.entropy_bits(levels) == pytest.approx(3 * 40)
    assert codec_speed.entropy_bits(np.zeros((4, 4), np.uint8)) == 0


def test_the_configuration_names_what_exists():
    config = settings.get_config()
    assert config.clipping in METHODS
    assert set(config.bits) <= set(range(1, 9))
    assert config.edge_bits in range(1, 9)
