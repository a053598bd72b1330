"""What the comparison of searches evaluates, and what it writes."""

import jax
import jax.numpy as jnp
import numpy as np

import autosplit
from autosplit.data import PACKAGES
from autosplit.graph.running import prepare
from autosplit.models import MODELS
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error_search import clip_tables
from autosplit.profiling.many_assignments import evaluate_assignments
from autosplit.quant.clipping import METHODS
from configs import search_speed as settings
from experiments import search_speed, search_speed_report


def network(weights, x):
    return jax.nn.relu(x @ weights["w"]) @ weights["v"]


def test_drawn_assignments_are_mixed_and_run():
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(6, 16)), "v": random.normal(size=(16, 4))}
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights)
    images = random.normal(size=(8, 6)).astype(np.float32)
    config = settings.get_config()
    graph = autosplit.trace(network, weights, images[:1])
    calls = calibration_calls(graph, images)
    prepared = prepare(graph, weights)
    bits = jnp.array(config.bits)
    tables = clip_tables(graph, prepared, [calls], bits, ["mse"])["mse"]
    drawn = list(search_speed.mixed_assignments(config, graph, prepared, tables, 12))
    assert {int(b) for a in drawn for b in a.a_bits} == set(config.mixed)
    assert len({a.w_bits.tobytes() + a.a_bits.tobytes() for a in map(on_host, drawn)}) > 4
    scores = evaluate_assignments(graph, prepared, drawn, calls)
    bits_used = np.array([int(a.a_bits.sum()) for a in drawn])
    assert scores.output_error[bits_used.argmax()] < scores.output_error[bits_used.argmin()]


def test_the_configuration_names_what_exists():
    config = settings.get_config()
    assert config.network in MODELS
    assert config.settings.weights in PACKAGES
    assert set(config.methods) <= set(METHODS)
    assert set(config.mixed) <= set(config.bits)


def on_host(assignment):
    return jax.tree.map(np.asarray, assignment)


def test_the_report_has_both_parts():
    rows = search_speed.with_ratios([
        {"part": part, "name": name, "seconds": seconds, "work": "w"}
        for part in search_speed_report.TITLES
        for name, seconds in (("autosplit, compiling", 2.0), ("autosplit, warm", 1.0), ("x", 30.0))
    ])  # fmt: skip
    record = {
        "config": settings.get_config().to_dict(), "threads": 2, "peers": {"nncf": "1"},
        "load_before": (0, 0, 0), "load_after": (0, 0, 0), "packages": {"jax": "2"},
        "git": {"commit": "c", "dirty": False}, "device": {"cpu": "c", "cpu_cores": 2},
        "started_utc": "now",
    }  # fmt: skip
    document = {"title": "Title", "rows": rows, "record": record}
    text = search_speed_report.markdown_text(document)
    for title in search_speed_report.TITLES.values():
        assert f"## {title}" in text
    assert "15.0" in text
    assert "30.0" in text
    assert len(search_speed_report.search_figure(rows).axes) == 2
