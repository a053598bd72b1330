"""The steps of a workload on a tiny detector with generated photographs and boxes."""

from __future__ import annotations

import csv
import json

import ml_collections
import numpy as np
import PIL.Image
import pytest

from autosplit.data.coco import COCO_CATEGORIES
from autosplit.models import preprocessing, zoo
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.darknet_sections import with_classes
from autosplit.models.yolo import YOLO
from configs.workloads._base import make_detector
from experiments import workload
from experiments.steps import constraints_of
from experiments.workload_case import Case
from experiments.workload_documents import read_step
from experiments.workload_heads import solve_by_heads, with_head_gains
from experiments.workload_scores import Runner

pytestmark = pytest.mark.heavy

PIXELS = 32
CONVOLUTION = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=2\npad=1\n" \
              "activation=leaky\n"
CFG = "[net]\nchannels=3\n" + "".join(CONVOLUTION.format(count) for count in (4, 8, 8)) + """
[convolutional]
filters=18
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=4,6, 8,8, 16,12
classes=1
num=3
"""


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Adds a detector of four convolutions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            zoo.MODELS, "tiny_detector",
            lambda num_classes: YOLO(sections=with_classes(parse_cfg(CFG), num_classes)),
        )  # fmt: skip
        patch.setitem(preprocessing.INPUTS, "tiny_detector", preprocessing.ImageInput(
            mean=(0.0,) * 3, std=(255.0,) * 3, letterbox=True,
        ))  # fmt: skip
        yield


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Returns a folder of two photographs and the file of their boxes."""
    folder, random = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    for number in (1, 2):
        coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = PIL.Image.fromarray(coarse).resize((48, 40), PIL.Image.Resampling.BILINEAR)
        picture.save(folder / f"{number}.png")
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 40} for n in (1, 2)],
        "categories": [{"id": k, "name": name} for k, name in COCO_CATEGORIES.items()],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 4, 20, 16], "area": 320,
             "iscrowd": 0}
            for n in (1, 2)
        ],
    }  # fmt: skip
    path = folder / "boxes.json"
    path.write_text(json.dumps(document))
    return folder, path


def config_for(folder, annotations=""):
    config = make_detector("tiny_detector", "Tiny detector", PIXELS, memory_bytes=1 << 20)
    config.images.source, config.images.annotations = str(folder), str(annotations)
    config.model.detector.pre_nms, config.model.detector.max_detections = 20, 5
    config.network.uplink_bits_per_s = 1e5
    config.bits = (4, 8)
    config.latency.repeats = 1
    return config


@pytest.fixture(scope="module")
def workdir(coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "tiny"
    workload.run(config_for(*coco), folder)
    return folder


def rows_of(folder, name):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_decoding_and_suppression_are_the_last_layer(workdir):
    layers = rows_of(workdir, "layers.csv")
    assert layers[-1]["kind"] == "loop"
    assert [row["kind"] for row in layers].count("loop") == 1
    assert read_step(workdir, "statistics")["result"]["candidates"] == len(layers) + 1


def test_plans_are_scored_by_their_boxes_and_by_the_heads(workdir):
    rows = rows_of(workdir, "accuracy.csv")
    assert len(rows) > 3
    for row in rows:
        assert 0 <= float(row["map"]) <= float(row["map50"]) <= 1
    assert float(rows[0]["output_error"]) == 0
    quantized = [float(row["output_error"]) for row in rows if row["plan"].startswith("edge-only")]
    assert max(quantized) > 0


def test_heads_are_compared_as_the_model_gives_them(coco, workdir):
    case = Case(config=config_for(*coco), workdir=workdir)
    model = zoo.create_model("tiny_detector", 80)
    expected = model.apply(case.job.variables, case.job.inputs)
    found = Runner(case=case).reference.compared
    assert [head[:, 0].shape for head in found] == [head.shape for head in expected]
    np.testing.assert_allclose(found[0][:, 0], expected[0], rtol=1e-4, atol=1e-4)


def test_an_output_error_is_that_of_the_heads(coco, workdir):
    config = config_for(coco[0])
    config.constraints = ml_collections.ConfigDict({"memory_bytes": 1 << 20, "output_error": 0.01})
    case = Case(config=config, workdir=workdir)
    profile = with_head_gains(case, case.profile)
    rounds = []
    plans = solve_by_heads(case, profile, constraints_of(config), lambda *told: rounds.append(told))
    best = plans.best_split
    assert best.output_error <= 0.01
    assert best.output_error == Runner(case=case, first=2).scores(best)["output_error"]
    # The prediction is of first order.
    assert best.output_error == pytest.approx(best.predicted_output_error, rel=2.0)
    assert all(plan.output_error is not None for plan in plans)
    assert 1 <= len(rounds) <= 6


def test_without_boxes_there_is_no_map(coco, workdir):
    case = Case(config=config_for(coco[0]), workdir=workdir)
    scores = Runner(case=case).scores(case.chosen)
    assert scores["map"] is None
    assert scores["output_error"] > 0
    assert scores["images"] == 2


def test_the_table_tells_the_map(workdir):
    assert "mAP" in (workdir / "workloads.md").read_text()


def test_a_missing_file_of_boxes_is_told(coco, tmp_path):
    config = config_for(coco[0], tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"none\.json"):
        workload.run(config, tmp_path / "workdir")
