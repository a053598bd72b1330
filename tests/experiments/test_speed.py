"""The comparison with other libraries: what is timed, checked and written, the libraries apart."""

import csv
import json
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import autosplit
from autosplit.data import PACKAGES
from autosplit.errors import InputError
from autosplit.graph.running import prepare
from autosplit.models import MODELS
from autosplit.quant.clipping import METHODS
from configs import speed as settings
from experiments import peers, speed, speed_case, speed_report
from experiments.peers import Runner

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def runner(name="one", bits=32, gain=1.0, seconds=0.0, log=None):
    def run(images):
        time.sleep(seconds)
        if log is not None:
            log.append(name)
        return gain * images.mean((1, 2))

    return Runner(name=name, bits=bits, take=np.asarray, run=run, give=np.asarray)


def settings_of(**changes):
    config = ml_collections.ConfigDict(
        {"rounds": 2, "calls": 1, "settle_s": 0.0, "float_tolerance": 1e-3}
    )
    config.update(changes)
    return config


def network(variables, x):
    y = jax.nn.relu(jax.lax.conv_general_dilated(
        x, variables["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))  # fmt: skip
    return y.mean((1, 2)) @ variables["v"]


def small_case():
    random = np.random.default_rng(1)
    weights = {"w": random.normal(size=(3, 3, 3, 8)), "v": random.normal(size=(8, 5))}
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights)
    return speed_case.Case(name="small", apply=network, variables=weights, images=IMAGES)


def test_runners_take_turns():
    log = []
    runners = [runner("a", log=log), runner("b", log=log)]
    times = speed.in_turn(runners, IMAGES, rounds=2, calls=2, settle_s=0.0)
    assert log == ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3
    assert [len(taken) for taken in times] == [4, 4]  # the first call of a turn does not count


def test_ratios_are_to_the_first_runner():
    runners = [runner("torch float", seconds=0.002), runner("slow", seconds=0.02)]
    first, second = speed.compare(runners, IMAGES, 2, settings_of())
    assert first["ratio"] == first["fastest_ratio"] == 1
    assert 2 < second["ratio"] < 12
    assert second["output_error"] == 0
    assert second["agreement"] == 1


def test_a_float_network_that_differs_is_not_timed():
    with pytest.raises(InputError, match=r"other and mine differ by 0\.0099 of the largest"):
        speed.compare([runner("other"), runner("mine", gain=1.01)][::-1], IMAGES, 2, settings_of())


def test_8_bits_may_differ_and_say_by_how_much():
    rows = speed.compare([runner(), runner("int8", bits=8, gain=1.1)], IMAGES, 2, settings_of())
    assert rows[1]["output_error"] == pytest.approx(0.01, rel=1e-4)
    assert rows[1]["largest_difference"] == pytest.approx(0.1, rel=1e-4)


def test_images_that_make_no_whole_batches():
    with pytest.raises(InputError, match="4 images make no whole batches of 3"):
        peers.run_in_parts(runner(), IMAGES, 3)


def test_our_float_is_the_function():
    case = small_case()
    graph = autosplit.trace(case.apply, case.variables, IMAGES[:2])
    ours = speed_case.float_runner(graph, prepare(graph, case.variables))
    expected = network(case.variables, IMAGES[:2])
    np.testing.assert_allclose(ours.outputs(IMAGES[:2]), expected, rtol=1e-4, atol=1e-5)


def test_our_8_bits_are_close_to_it():
    case = small_case()
    graph = autosplit.trace(case.apply, case.variables, IMAGES[:2])
    ours = speed_case.int8_runner(case, graph, "minmax")
    expected = np.asarray(network(case.variables, IMAGES[:2]))
    found = speed.distance(ours.outputs(IMAGES[:2]), expected)
    assert 0 < found["output_error"] < 1e-3


def test_more_images_than_there_are_photographs():
    images = speed_case.repeated(IMAGES, 10)
    np.testing.assert_array_equal(images[:4], IMAGES)
    np.testing.assert_array_equal(images[4:8], IMAGES[:, :, ::-1])
    assert len({image.tobytes() for image in images}) == 10


@pytest.mark.heavy
def test_a_random_network_of_a_configuration():
    chosen = ml_collections.ConfigDict({"weights": "random", "image_size": 32})
    case = speed_case.load_case("resnet18", chosen, images=2, seed=0)
    assert case.images.shape == (2, 32, 32, 3)
    assert np.isfinite(case.apply(case.variables, case.images)).all()


def test_a_library_that_is_missing_says_how_to_get_it():
    with pytest.raises(InputError, match=r"extra `peers`.*pip install"):
        peers.library("no_such_library")


def test_the_report_is_whole(tmp_path):
    config = settings.get_config()
    found = speed.compare([runner("torch float"), runner("autosplit int8", 8, 1.1)], IMAGES, 2,
                          settings_of())  # fmt: skip
    rows = [{"network": n, "batch": b, **row} for n in ("one", "two") for b in (1, 8)
            for row in found]  # fmt: skip
    record = {
        "config": config.to_dict(), "threads": 2, "peers": {"torch": "1"}, "load_before": (0, 0, 0),
        "load_after": (0, 0, 0), "packages": {"jax": "2"}, "started_utc": "now",
        "git": {"commit": "c", "dirty": True}, "device": {"cpu": "c", "cpu_cores": 2},
    }  # fmt: skip
    text = speed_report.markdown_text({"title": "Title", "rows": rows, "record": record})
    assert text.count("torch float |") >= 4
    assert "## two, batch 8" in text
    table = list(csv.DictReader(speed_report.csv_text(rows).splitlines()))
    assert len(table) == 8
    assert "times_s" not in table[0]
    assert json.loads(json.dumps(rows))[0]["times_s"]
    assert len(speed_report.speed_figure(rows).axes) == 4


def test_the_configuration_names_what_exists():
    config = settings.get_config()
    assert set(config.networks) <= set(MODELS)
    assert all(n.weights in {"random", *PACKAGES} for n in config.networks.values())
    assert config.clipping in METHODS
    assert all(config.images % batch == 0 for batch in config.batches)


@pytest.mark.heavy
def test_every_peer_runs_the_same_network(tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"):
        pytest.importorskip(name, reason="needs the extra `peers`")
    chosen = ml_collections.ConfigDict({"weights": "random", "image_size": 64})
    case = speed_case.load_case("resnet18", chosen, images=4, seed=0)
    files = speed.PeerFiles(case, tmp_path)
    runners = [*files.runners(2, 1), *speed.own_runners(case, 2, "mse")]
    rows = speed.compare(runners, case.images, 2, settings_of())
    assert [row["bits"] for row in rows] == [32, 32, 8, 8, 32, 8, 32, 8]
    assert all(row["output_error"] < 0.1 for row in rows)
