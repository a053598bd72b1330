"""A device file of a tiny network: what is in it holds together. No time is judged."""

import csv
import importlib
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autosplit
from autosplit.errors import InputError
from autosplit.execution.edge_layers import run_edge_layer
from autosplit.execution.grids import decode, encode
from autosplit.graph.running import prepare, run_layer
from autosplit.hardware import EYERISS, Network
from autosplit.hardware.measured import load_device
from autosplit.profiling.pricing import layer_latency_s
from experiments import measure_device
from experiments.layer_timing import (
    GraphTimes,
    ShapeTimes,
    alike_layers,
    integer_arguments,
    integer_step,
    repeat,
)

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = Network(name="link", uplink_bits_per_s=1e6)
PIXELS = 12


def conv(x, kernel, stride=1, groups=1, dilation=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def apply(params, x):
    """Runs a layer of every form."""
    x = jax.nn.relu(conv(x, params["stem"], stride=2) + params["bias"])
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    y = jax.nn.relu(conv(x, params["narrow"]))
    y = jax.nn.swish(conv(y, params["few"]))
    y = jax.nn.swish(conv(y, params["dense"], dilation=2))
    y = conv(y, params["depthwise"], groups=8, stride=2)
    y = conv(y, params["grouped"], groups=2)
    x = conv(x, params["pointwise"], stride=2)
    x = conv(jax.nn.relu(x + y), params["same"]) + y
    x = jnp.sort(x.mean((1, 2)), axis=-1)
    return x @ params["fc"]


def draw(shape, seed):
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def subject():
    shapes = {
        "stem": (3, 3, 3, 8), "bias": (8,), "narrow": (1, 1, 8, 3), "few": (3, 3, 3, 8),
        "dense": (3, 3, 8, 8), "depthwise": (3, 3, 1, 8),
        "grouped": (3, 3, 4, 8), "pointwise": (1, 1, 8, 8), "same": (1, 1, 8, 8), "fc": (8, 5),
    }  # fmt: skip
    return measure_device.Subject(
        title="tiny",
        apply=apply,
        variables={name: draw(shape, seed) for seed, (name, shape) in enumerate(shapes.items())},
        images=draw((1, PIXELS, PIXELS, 3), 99),
        settings={"model": "tiny"},
        seed=0,
    )


@pytest.fixture(scope="module")
def graph(subject):
    return autosplit.trace(subject.apply, subject.variables, subject.images)


@pytest.fixture(scope="module")
def result(subject, tmp_path_factory):
    """The device of one short run, and the file."""
    output = tmp_path_factory.mktemp("device") / "new" / "tiny.json"
    device = measure_device.run(
        subject, output, name="here", rounds=2, sample_s=1e-5, copy_bytes=1 << 16
    )
    return device, output


# ---- What a run leaves


def test_files_are_there_and_nothing_else_is(result):
    device, output = result
    names = sorted(path.name for path in output.parent.iterdir())
    assert names == ["tiny.csv", "tiny.json", "tiny.md", "tiny.png"]
    assert load_device(output) == device


def test_the_record_says_what_it_was_measured_on(result, graph):
    device, _ = result
    assert device.fingerprints == (graph.fingerprint,)
    assert {"device", "packages", "started_utc", "git", "summary", "xla_flags"} <= set(
        device.record
    )
    found = device.record["summary"]
    assert found["network_error"] == pytest.approx(
        found["layer_sum_s"] / found["network_s"] - 1, rel=1e-9
    )


def test_every_shape_of_the_graph_has_one_time(result, graph):
    device, _ = result
    shapes = {w for layer in graph.layers for w in layer.workloads}
    assert {time.workload for time in device.times} == shapes
    assert len(device.times) == len(shapes)


def test_the_table_has_every_layer(result, graph):
    _, output = result
    with output.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["alike"]) for row in rows) == len(graph.layers)
    assert {row["int8_form"] for row in rows} >= {
        "patches", "int8", "conv", "shifted", "block diagonal", "dot", "vector", "float",
    }  # fmt: skip
    text = output.with_suffix(".md").read_text()
    assert all(row["layer"] in text for row in rows)


def test_layers_of_the_device_sum_to_the_sum_that_it_reports(result, graph):
    device, _ = result
    in_float = layer_latency_s(graph, device, [32], [32]).sum()
    assert in_float == pytest.approx(device.record["summary"]["layer_sum_s"])


# ---- Used like any preset


@pytest.mark.heavy
@pytest.mark.parametrize("side", ["edge", "cloud"])
def test_profile_and_solve_take_it(result, subject, graph, side):
    device = load_device(result[1])
    devices = {"edge": EYERISS, "cloud": EYERISS} | {side: device}
    profile = autosplit.profile(
        graph, subject.variables, subject.images, network=NETWORK, bits=(4, 8), **devices
    )
    plans = autosplit.solve(profile)
    assert getattr(profile, f"{side}_name") == "here"
    assert np.isfinite([plan.latency_s for plan in plans]).all()
    edge_only = next(plan for plan in plans if all(plan.on_edge))
    if side == "edge":
        expected_s = layer_latency_s(graph, device, [8], [8]).sum()
        np.testing.assert_allclose(profile.edge_latency_s[:, -1, -1].sum(), expected_s)
        assert edge_only.latency_s >= expected_s


@pytest.mark.heavy
def test_another_input_size_is_another_graph(result, subject):
    images = draw((1, PIXELS + 4, PIXELS + 4, 3), 0)
    graph = autosplit.trace(subject.apply, subject.variables, images)
    with pytest.raises(InputError, match="Device file from another graph") as caught:
        autosplit.profile(
            graph, subject.variables, images, edge=result[0], cloud=EYERISS, network=NETWORK
        )
    assert f"{PIXELS + 4}x{PIXELS + 4}x3" in str(caught.value)


# ---- What is timed


def test_a_repeated_step_gives_the_result_of_the_step():
    made = repeat(lambda x, y: x * y + 1, (jnp.arange(3.0), jnp.full(3, 2.0)), 1e-6)
    for count in (1, 2, 7):
        np.testing.assert_array_equal(made.program(count, made.arguments), [1, 3, 5])
    assert made.count >= 2


def test_a_repeated_step_runs_every_time():
    calls = []

    def step(x):
        return jax.pure_callback(lambda y: calls.append(1) or y, jax.typeof(x), x)

    made = repeat(step, (jnp.arange(3.0),), 1e-6)
    for count in (0, 1, 7):
        calls.clear()
        made.call_s(count)
        assert len(calls) == count


def test_layers_that_are_alike_share_a_program():
    def twice(params, x):
        x = jax.nn.relu(conv(x, params[0]))
        x = jax.nn.relu(conv(x, params[1]))
        x = jax.nn.relu(conv(x, params[2]))
        return jax.nn.tanh(conv(x, params[3]))

    params = [draw((3, 3, 4, 4), seed) for seed in range(4)]
    graph = autosplit.trace(twice, params, draw((1, 6, 6, 4), 9))
    # The first reads floats, as they come from the sensor.
    assert alike_layers(graph) == [(0,), (1, 2), (3,)]


def test_unlike_layers_of_one_workload_share_its_time_and_keep_the_sum(graph):
    layer = graph.layers[0]
    times = GraphTimes(
        shapes=tuple(
            shape_times(layer, layers, seconds)
            for layers, seconds in (((0, 1, 2), 1e-3), ((3,), 5e-3))
        ),
        network_s=np.ones(1),
        call_s=np.ones(1),
    )
    ((workload, (float_s, int8_s, _)),) = times.workload_seconds().items()
    assert workload == layer.workloads[0]
    assert float_s == pytest.approx(2e-3)
    assert int8_s == pytest.approx(1e-3)
    assert times.layer_sum_s == pytest.approx(8e-3)


def shape_times(layer, layers, seconds):
    samples = np.full(3, seconds)
    return ShapeTimes(
        layers=layers, layer=layer, form="conv", float_s=samples, int8_s=samples / 2
    )


def test_integer_layers_compute_what_float_layers_do(graph, subject):
    """Within the step of the output's grid: values are rounded to 8 bits on the way."""
    weights, forms = prepare(graph, subject.variables), set()
    random = np.random.default_rng(5)
    for index, layer in enumerate(graph.layers):
        step, own = integer_step(graph, index), weights.layers[index]
        forms.add(step.form("cpu"))
        ready, quantized = integer_arguments(step, own)
        data = [jnp.asarray(random.uniform(-0.5, 0.5, graph.tensors[t].shape), jnp.float32)
                for t in layer.inputs]  # fmt: skip
        codes = [x if grid is None else encode(grid, x)
                 for x, grid in zip(data, step.inputs, strict=True)]  # fmt: skip
        expected = run_layer(layer, own, data, own.weight)
        found = run_edge_layer(step, ready, quantized, codes)
        for code, value, grid in zip(found, expected, step.outputs, strict=True):
            assert code.dtype == jnp.int8
            limited = np.clip(value, -2.5, 3.5)
            error = np.abs(decode(grid, code) - limited)
            # An input is off by half a step, and so is each product's weight.
            assert error.mean() < 2 * grid.scale
    assert forms == {"patches", "int8", "conv", "shifted", "block diagonal", "dot", "vector",
                     "float"}  # fmt: skip


# ---- Interface


@pytest.fixture
def fails(monkeypatch, tmp_path):
    """Returns a function that runs the program here and returns the one sentence that it says."""

    def run(**changes):
        values = {"config": None, "model": None, "image_size": 32, "name": None, "rounds": 1,
                  "output": str(tmp_path / "device.json")} | changes  # fmt: skip
        monkeypatch.setattr(measure_device.flags, "FLAGS", types.SimpleNamespace(**values))
        with pytest.raises(SystemExit) as caught:
            measure_device.main(["measure_device"])
        said = caught.value.code
        assert said.startswith("measure_device: ")
        assert "\n" not in said
        assert not (tmp_path / "device.json").exists()
        return said

    return run


def test_a_model_that_nobody_knows(fails):
    said = fails(model="resnet19")
    assert "'resnet19'" in said
    assert "expected one of resnet18" in said


def test_neither_config_nor_model_or_both(fails, config):
    assert "expected one of them" in fails()
    assert "expected one of them" in fails(config=config, model="resnet18")


def test_a_checkpoint_that_is_not_there(fails, config, tmp_path):
    config.model.weights = str(tmp_path / "none.pth")
    assert "there is no file" in fails(config=config)


def test_a_config_that_lacks_a_field(fails, config):
    del config["bits"]
    assert "lacks config.bits" in fails(config=config)


def test_an_output_in_what_is_no_folder(fails, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = fails(model="resnet18", output=str(tmp_path / "file" / "device.json"))
    assert "takes no files" in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["device", "device.txt"])
def test_an_output_that_is_no_json(fails, tmp_path, name):
    assert "ends in .json" in fails(model="resnet18", output=str(tmp_path / name))


def test_an_output_that_is_a_folder(fails, tmp_path):
    (tmp_path / "folder.json").mkdir()
    assert "ends in .json" in fails(model="resnet18", output=str(tmp_path / "folder.json"))


def test_a_folder_that_is_missing_is_made(tmp_path):
    measure_device.check_output(tmp_path / "a" / "b" / "device.json")
    assert (tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_config_file_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "experiments.measure_device", "--config=configs/none.py",
               f"--output={tmp_path / 'device.json'}"]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("measure_device: --config cannot be")
    assert not list(tmp_path.iterdir())


def test_a_config_of_the_main_job_is_its_network(config):
    subject = measure_device.config_subject(config)
    assert subject.title == "mobilenet_v2"
    assert subject.images.shape == (1, 32, 32, 3)


def test_a_config_of_the_benchmark_is_its_network():
    config = importlib.import_module("configs.benchmark_resnet50").get_config()
    config.model.stage_sizes, config.model.features, config.image_size = (1,), 4, 16
    config.model.num_classes, config.calls = 5, 2
    subject = measure_device.config_subject(config)
    assert subject.images.shape == (1, 16, 16, 3)
    assert jax.eval_shape(subject.apply, subject.variables, subject.images).shape == (1, 5)


@pytest.mark.heavy
def test_a_model_by_name_has_the_graph_of_its_config(config):
    by_config = measure_device.config_subject(config)
    by_name = measure_device.model_subject("mobilenet_v2", 32)
    fingerprints = [
        autosplit.trace(s.apply, s.variables, s.images).fingerprint for s in (by_config, by_name)
    ]
    assert fingerprints[0] == fingerprints[1]
