"""Networks beside their own frameworks: what is compared, drawn and written."""

import csv
import json

import numpy as np
import pytest

from autosplit.data import LabelledImages, load_annotations
from autosplit.errors import InputError
from autosplit.evaluation.coco import ImageDetections, evaluate_detections
from autosplit.models import Detections
from configs import zoo as zoo_config
from experiments import zoo, zoo_references
from experiments.detections import in_photographs, write_scores


@pytest.fixture
def config(checkpoint, labelled):
    config = zoo_config.get_config()
    config.classifiers, config.detectors = ("mobilenet_v2",), ("yolov3_tiny",)
    config.weights.mobilenet_v2, config.weights.yolov3_tiny = str(checkpoint), "random"
    for images, pixels in ((config.classified, 32), (config.detected, 64)):
        images.source, images.limit = str(labelled), 3
        images.resize_pixels = images.crop_pixels = pixels
    config.batch, config.shown_score = 2, 0.0
    return config


@pytest.mark.heavy
def test_a_small_run_is_whole(config, torchvision, tmp_path):
    document = zoo.run(config, tmp_path)
    classifier, detector = document["rows"]
    # Converted back, torchvision's own network answers the same.
    assert classifier["framework"] == "torchvision"
    assert classifier["same_answer"] == 1
    assert classifier["largest_difference"] < 1e-4
    assert (classifier["ours"], classifier["ours_second"]) == (
        classifier["theirs"], classifier["theirs_second"]
    )  # fmt: skip
    # Neither boxes nor an ONNX file are known.
    assert detector["ours"] is None
    assert detector["framework"] is None
    assert len(list((tmp_path / "detections").glob("yolov3_tiny-*.jpg"))) == 3
    assert json.loads((tmp_path / "zoo.json").read_text())["rows"] == document["rows"]
    rows = list(csv.DictReader((tmp_path / "zoo.csv").read_text().splitlines()))
    assert [row["network"] for row in rows] == ["mobilenet_v2", "yolov3_tiny"]
    page = (tmp_path / "zoo.md").read_text()
    assert "| yolov3_tiny | 3 | AP, AP50 | –, – |" in page
    assert page.count("](detections/yolov3_tiny-") == 3


def test_nothing_to_run(config, tmp_path):
    config.classifiers = config.detectors = ()
    with pytest.raises(InputError, match="name a model"):
        zoo.run(config, tmp_path)


def test_accuracy_needs_labels():
    logits = np.eye(6)
    assert zoo.accuracy(logits, None) is None
    assert zoo.accuracy(logits, np.array([0, 1, 2, 3, 4, 0])) == (5 / 6, 1.0)


def test_boxes_return_to_the_photographs(labelled):
    # 48 x 40 pixels in a square of 96: twice the size, 8 grey rows above and below.
    path = sorted(labelled.iterdir())[0]
    photographs = LabelledImages(
        images=np.zeros((1, 96, 96, 3), np.uint8), labels=None, paths=(path,)
    )
    found = Detections(
        boxes=np.array([[[0.0, 8, 96, 88], [20, 28, 40, 48], [1, 2, 3, 4]]]),
        scores=np.array([[0.9, 0.8, 0.0]]),
        classes=np.array([[5, 0, 0]]),
        valid=np.array([[True, True, False]]),
    )
    (only,) = in_photographs(found, photographs)
    np.testing.assert_allclose(only.boxes, [[0, 0, 48, 40], [10, 10, 20, 20]], atol=1e-5)
    assert only.classes.tolist() == [5, 0]
    assert only.scores.tolist() == [0.9, 0.8]


def test_networks_without_a_reference_have_none(tmp_path):
    inputs = np.zeros((1, 32, 32, 3), np.float32)
    assert zoo_references.torchvision_logits("mobilenet_v1", {}, inputs, 1) is None
    assert zoo_references.onnx_heads(tmp_path / "a.weights", inputs) is None


def test_scores_of_detections_become_a_table_and_a_plot(tmp_path, labelled):
    paths = sorted(labelled.iterdir())
    annotations = {
        "images": [{"id": i, "file_name": path.name, "width": 48, "height": 40}
                   for i, path in enumerate(paths)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20],
                         "area": 400, "iscrowd": 0} for i in range(len(paths))],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(annotations))
    truth = load_annotations(tmp_path / "instances.json", labelled)
    # Two of three are found, exactly.
    found = [
        ImageDetections(
            boxes=np.array([[4.0, 4, 24, 24]])[:count], scores=np.array([0.9])[:count],
            classes=np.array([0])[:count],
        )
        for count in (1, 1, 0)
    ]  # fmt: skip
    write_scores(evaluate_detections(found, truth), tmp_path, "net")
    header, row = (tmp_path / "net-classes.csv").read_text().splitlines()
    assert header == "class,ap,ap50"
    name, ap, ap50 = row.split(",")
    # Precision is 1 up to a recall of 2/3: 67 of the 101 recalls.
    assert name == "person"
    assert float(ap) == float(ap50) == pytest.approx(67 / 101)
    assert (tmp_path / "net-precision_recall.png").stat().st_size > 0
