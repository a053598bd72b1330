"""The whole job on a small network: every promised file, and the split that it describes."""

import json
import pathlib
import re

import numpy as np
import pytest

import autosplit
from autosplit.data import load_images
from autosplit.models import image_input
from autosplit.profiling.storage import load_profile
from experiments import main

FILES = {
    "profile.npz", "plans.json", "plans.csv", "plan.json", "split", "edge.json", "edge.npz",
    "accuracy.json", "run.json", "graph.svg", "report.html",
    *(f"{plot}.{suffix}" for plot in ("pareto", "latency", "bits", "error")
      for suffix in ("png", "svg")),
}  # fmt: skip
SPLIT_FILES = {
    "manifest.json", "edge_unpack.stablehlo", "cloud_batch.stablehlo",
    *(f"{side}{end}" for side in ("edge", "cloud") for end in (".stablehlo", "_weights.bin")),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(make_config, labelled, tmp_path_factory):
    """Returns configuration and work directory of a run that has ended."""
    config, workdir = make_config(labelled), tmp_path_factory.mktemp("run") / "workdir"
    page = main.run(config, workdir)
    assert page == workdir / "report.html"
    return config, workdir


@pytest.mark.heavy
def test_every_promised_file_is_there_and_no_other(finished):
    _, workdir = finished
    assert {path.name for path in workdir.iterdir()} == FILES
    assert {path.name for path in (workdir / "split").iterdir()} == SPLIT_FILES


@pytest.mark.heavy
def test_plans_plan_and_profile_load_back(finished):
    config, workdir = finished
    plans = autosplit.Plans.load(workdir / "plans.json")
    plan = autosplit.SplitPlan.load(workdir / "plan.json")
    profile = load_profile(workdir / "profile.npz")
    assert plan == plans.best_split
    assert 0 < sum(plan.on_edge) < len(plan.on_edge)
    assert plan.edge_memory_bytes <= config.constraints.memory_bytes
    assert plan.output_error <= config.constraints.output_error
    assert {one.fingerprint for one in plans} == {profile.fingerprint}
    assert tuple(profile.bits) == config.bits
    assert profile.network.uplink_bits_per_s == config.network.uplink_bits_per_s
    rows = (workdir / "plans.csv").read_text().splitlines()
    assert len(rows) == 1 + len(plans)
    assert float(rows[1].split(",")[0]) == plans[0].latency_s


@pytest.mark.heavy
def test_two_processes_gave_the_outputs_of_the_saved_split(finished):
    config, workdir = finished
    split = autosplit.load(workdir / "split")
    report = json.loads((workdir / "edge.json").read_text())
    assert report["split_id"] == split.manifest.split_id
    pixels = config.images.crop_pixels
    images = load_images(config.images.source, resize=pixels, crop=pixels).images
    with np.load(workdir / report["outputs"]) as outputs:
        assert len(outputs["out0"]) == len(images) == report["requests"]
        inputs = image_input("mobilenet_v2").normalize(images)
        for image, found in zip(inputs, outputs["out0"], strict=True):
            np.testing.assert_array_equal(found, split.cloud(split.edge(image[None])))


@pytest.mark.heavy
def test_held_out_photographs_are_scored_apart(finished):
    config, workdir = finished
    scores = json.loads((workdir / "accuracy.json").read_text())
    of = {(score["label"], score["subset"]): score for score in scores}
    assert len(of) == len(scores)
    plan = autosplit.SplitPlan.load(workdir / "plan.json")
    for label in ("float", plan.label, "uniform 8-bit", "edge-only", "cloud-only (jpeg-q90)"):
        everywhere, held_out = of[label, "all"], of[label, "held-out"]
        assert everywhere["images"] == 3
        assert held_out["images"] == 3 - config.images.calibration
        for name in ("correct", "correct_top5", "same_as_float"):
            assert 0 <= everywhere[name] - held_out[name] <= config.images.calibration
    assert of["float", "all"]["output_error"] == 0
    assert of["cloud-only (png)", "all"]["output_error"] < 1e-6
    assert of[plan.label, "all"]["output_error"] > 0


@pytest.mark.heavy
def test_the_page_names_what_was_run(finished):
    config, workdir = finished
    page = text_of(workdir / "report.html")
    assert f"{config.model.title} is cut after" in page
    assert "The first 2 of the 3 photographs were also used to calibrate." in page
    assert "float, held-out images" in page
    assert "On the 1 held out the split network" in page
    assert "Of these 1 the split network has" in page
    record = json.loads((workdir / "run.json").read_text())
    assert record["config"]["bits"] == [4, 8]
    assert record["seed"] == config.seed
    assert record["packages"]["jax"]


@pytest.mark.heavy
def test_photographs_without_labels_are_compared_with_float(make_config, unlabelled, tmp_path):
    config = make_config(unlabelled)
    config.images.calibration = 3
    config.bits = (8,)
    page = text_of(main.run(config, tmp_path))
    scores = json.loads((tmp_path / "accuracy.json").read_text())
    plan = autosplit.SplitPlan.load(tmp_path / "plan.json")
    assert {score["subset"] for score in scores} == {"all"}
    assert {score["correct"] for score in scores} == {None}
    (own,) = (score for score in scores if score["label"] == plan.label)
    assert f"float network's answer {own['same_as_float']} of 3 times" in page
    assert f"output error of {own['output_error']:.1e}" in page
    assert "none is held out" in page
    assert "They have no labels" in page
    assert "Not measured in this run." in page
    # All images calibrate, so what the processes did is what was measured on the batch, but for
    # the roundings of integers that fake quantization decides the other way.
    np.testing.assert_allclose(own["output_error"], plan.output_error, rtol=1e-2)


def text_of(page: pathlib.Path) -> str:
    """Returns the text of a page without marks and entities."""
    text = re.sub(r"<[^>]*>", "", page.read_text()).replace("&#x27;", "'").replace("&nbsp;", " ")
    return " ".join(text.split())
