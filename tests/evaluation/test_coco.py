"""Average precision: both engines against an independent count, and what is nothing to find."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from autosplit import data, evaluation
from autosplit.errors import InputError
from autosplit.evaluation import coco

NAMES = {1: "person", 7: "train", 8: "truck"}
COCO = pathlib.Path(__file__).parents[3] / "shared" / "data" / "coco"


@pytest.fixture(params=list(coco.ENGINES))
def engine(request):
    pytest.importorskip(coco.ENGINES[request.param], reason="an engine that is not installed")
    return request.param


def annotated(boxes, classes, is_crowd=None, areas=None):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return data.AnnotatedImage(
        image_id=0, path=pathlib.Path("x.jpg"), width_pixels=640, height_pixels=480, boxes=boxes,
        classes=np.asarray(classes, np.int64).reshape(-1),
        areas=sides.prod(axis=1) if areas is None else np.asarray(areas, np.float64),
        is_crowd=np.zeros(len(boxes), bool) if is_crowd is None else np.asarray(is_crowd, bool),
    )  # fmt: skip


def found(boxes, scores, classes):
    return evaluation.ImageDetections(
        boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
        scores=np.asarray(scores, np.float64),
        classes=np.asarray(classes, np.int64),
    )


NOTHING = found([], [], [])


def truth(*images):
    return data.AnnotatedImages(images=images, categories=NAMES)


def random_set(rng, images=6, classes=3, crowds=False):
    """Boxes of all sizes, and detections that are shifted copies, misses and inventions."""
    annotations, detections = [], []
    for _ in range(images):
        count = rng.integers(0, 6)
        corner, side = rng.uniform(0, 300, (count, 2)), 2 ** rng.uniform(2, 7.5, (count, 2))
        boxes, indices = np.hstack([corner, corner + side]), rng.integers(0, classes, count)
        crowd = rng.random(count) < 0.25 if crowds else np.zeros(count, bool)
        annotations.append(annotated(boxes, indices, crowd))
        copies = np.repeat(np.arange(count), rng.integers(0, 3, count))
        shifted = boxes[copies] + rng.normal(0, 0.08, (len(copies), 4)) * np.tile(side[copies], 2)
        extra = rng.uniform(0, 300, (rng.integers(0, 4), 2))
        guesses = np.vstack([shifted, np.hstack([extra, extra + 40])])
        guesses = np.hstack([np.minimum(guesses[:, :2], guesses[:, 2:]),
                             np.maximum(guesses[:, :2], guesses[:, 2:])])  # fmt: skip
        labels = np.concatenate([indices[copies], rng.integers(0, classes, len(extra))])
        # Few distinct scores, so that ties are common.
        detections.append(found(guesses, rng.integers(0, 8, len(guesses)) / 8, labels))
    return truth(*annotations), detections


# ---- The independent count


def overlap(first, second):
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared)


def reference_precision(annotations, detections, index, iou):
    """Precision at 101 recalls of one class, with no crowd among the annotations."""
    wanted = sum(int((image.classes == index).sum()) for image in annotations)
    if not wanted:
        return np.full(101, np.nan)
    verdicts = []
    for number, (image, each) in enumerate(zip(annotations, detections, strict=True)):
        boxes = image.boxes[image.classes == index]
        free = set(range(len(boxes)))
        mine = each.classes == index
        order = np.argsort(-each.scores[mine], kind="stable")
        for rank, guess in enumerate(order):
            box = each.boxes[mine][guess]
            best = max(free, key=lambda b: (overlap(box, boxes[b]), b), default=None)
            right = best is not None and overlap(box, boxes[best]) >= iou
            if right:
                free.remove(best)
            verdicts.append((-each.scores[mine][guess], number, rank, right))
    hits = np.array([right for *_, right in sorted(verdicts)], float)
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    recall = true / wanted
    return np.array([
        max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0.0)
        for level in np.linspace(0, 1, 101)
    ])  # fmt: skip


@hypothesis.settings(max_examples=15)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), iou=st.sampled_from([0.5, 0.75, 0.9]))
@pytest.mark.parametrize("engine", list(coco.ENGINES))
def test_precision_equals_an_independent_count(engine, seed, iou):
    pytest.importorskip(coco.ENGINES[engine], reason="an engine that is not installed")
    annotations, detections = random_set(np.random.default_rng(seed))
    scores = evaluation.evaluate_detections(detections, annotations, engine)
    at = int(np.argmin(np.abs(scores.iou_thresholds - iou)))
    for index in range(3):
        expected = reference_precision(annotations.images, detections, index, iou)
        np.testing.assert_allclose(scores.precision[at, index], expected, atol=1e-12)
    if iou == 0.5:
        expected = [reference_precision(annotations.images, detections, i, iou).mean()
                    for i in range(3)]  # fmt: skip
        np.testing.assert_allclose(scores.class_ap50, expected, atol=1e-12)


# ---- The engines against each other and against pycocotools' own summary


def pycocotools_summary(annotations, detections):
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = coco._evaluation(
            "pycocotools",
            coco._index(annotations.images, coco._truth_rows(annotations.images), 3),
            coco._index(annotations.images, coco._detection_rows(detections), 3),
        )
        assert isinstance(evaluator, cocoeval.COCOeval)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.where(evaluator.stats < 0, np.nan, evaluator.stats)[:6]


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_pycocotools_summary(engine, seed):
    annotations, detections = random_set(np.random.default_rng(seed), images=12, crowds=True)
    scores = evaluation.evaluate_detections(detections, annotations, engine)
    mine = [scores.ap, scores.ap50, scores.ap75, scores.ap_small, scores.ap_medium, scores.ap_large]
    np.testing.assert_allclose(mine, pycocotools_summary(annotations, detections), atol=1e-12)
    assert scores.engine == engine


@pytest.mark.parametrize("seed", range(4))
def test_the_engines_agree_on_every_number(seed):
    for module in coco.ENGINES.values():
        pytest.importorskip(module, reason="equality needs both engines")
    annotations, detections = random_set(np.random.default_rng(seed), images=20, crowds=True)
    first, second = (
        evaluation.evaluate_detections(detections, annotations, name) for name in coco.ENGINES
    )
    np.testing.assert_allclose(first.precision, second.precision, atol=1e-12)
    np.testing.assert_allclose(first.class_ap, second.class_ap, atol=1e-12)


def test_the_first_installed_engine_is_the_default():
    installed = [
        name for name, module in coco.ENGINES.items() if importlib.util.find_spec(module)
    ]
    if not installed:
        pytest.skip("no engine is installed")
    scores = evaluation.evaluate_detections([NOTHING], truth(annotated([], [])))
    assert scores.engine == installed[0]


# ---- Cases worked out by hand

BOX, OTHER, FAR = [10, 10, 50, 50], [10, 10, 50, 49], [200, 200, 300, 300]


def test_a_perfect_detector_has_ap_1(engine):
    annotations, _ = random_set(np.random.default_rng(5))
    perfect = [found(i.boxes, np.ones(len(i.boxes)), i.classes) for i in annotations.images]
    scores = evaluation.evaluate_detections(perfect, annotations, engine)
    assert (scores.ap, scores.ap50, scores.ap75) == pytest.approx((1, 1, 1))
    assert np.nanmin(scores.precision) == pytest.approx(1)


def test_half_of_the_boxes_give_51_of_101_recalls(engine):
    scores = evaluation.evaluate_detections(
        [found([BOX], [0.3], [0])], truth(annotated([BOX, FAR], [0, 0])), engine
    )
    assert scores.class_ap[0] == pytest.approx(51 / 101)
    assert np.isnan(scores.class_ap[1:]).all()
    assert scores.ap == scores.class_ap[0]


def test_a_worse_box_before_a_right_one_halves_the_precision(engine):
    detections = [found([FAR, BOX], [0.9, 0.8], [0, 0])]
    scores = evaluation.evaluate_detections(detections, truth(annotated([BOX], [0])), engine)
    assert scores.ap == pytest.approx(0.5)


def test_the_iou_decides_at_each_threshold(engine):
    # 40 x 27 of 40 x 40 pixels: an IoU of .675, right up to the fourth of ten thresholds.
    detections = [found([[10, 10, 50, 37]], [1], [0])]
    scores = evaluation.evaluate_detections(detections, truth(annotated([BOX], [0])), engine)
    assert (scores.ap50, scores.ap75, scores.ap) == pytest.approx((1, 0, 0.4))


def test_a_second_box_on_one_object_is_wrong(engine):
    boxes = annotated([BOX, FAR], [0, 0])
    detections = [found([BOX, OTHER, FAR], [0.9, 0.8, 0.7], [0, 0, 0])]
    scores = evaluation.evaluate_detections(detections, truth(boxes), engine)
    assert scores.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_areas_are_the_objects_not_the_boxes(engine):
    image = annotated([FAR], [0], areas=[500])
    scores = evaluation.evaluate_detections([found([FAR], [1], [0])], truth(image), engine)
    assert scores.ap_small == pytest.approx(1)
    assert np.isnan([scores.ap_medium, scores.ap_large]).all()


def test_a_box_on_a_crowd_counts_neither_for_nor_against(engine):
    crowd = annotated([FAR, BOX], [0, 0], is_crowd=[True, False])
    boxes = [[210, 210, 230, 230], [240, 240, 260, 260], BOX]
    detections = [found(boxes, [0.9, 0.8, 0.7], [0, 0, 0])]
    scores = evaluation.evaluate_detections(detections, truth(crowd), engine)
    assert scores.ap == pytest.approx(1)
    only = truth(annotated([FAR], [0], is_crowd=[True]))
    assert np.isnan(evaluation.evaluate_detections([NOTHING], only, engine).ap)


def test_no_detection_scores_0_and_no_annotation_nan(engine):
    scores = evaluation.evaluate_detections([NOTHING], truth(annotated([BOX], [1])), engine)
    assert (scores.ap, scores.ap50, scores.ap75) == (0, 0, 0)
    assert scores.class_ap[1] == 0
    assert np.isnan(scores.class_ap[[0, 2]]).all()
    for detections in (NOTHING, found([BOX], [1], [0])):
        scores = evaluation.evaluate_detections([detections], truth(annotated([], [])), engine)
        assert np.isnan([scores.ap, scores.ap50, scores.ap_large, *scores.class_ap]).all()


def test_a_wrong_class_finds_nothing(engine):
    scores = evaluation.evaluate_detections(
        [found([BOX], [1], [2])], truth(annotated([BOX], [1])), engine
    )
    assert scores.ap == 0
    assert np.isnan(scores.class_ap[2])


def test_at_most_100_boxes_of_an_image_and_class_count(engine):
    boxes = [*([FAR] * 100), BOX]
    detections = [found(boxes, [0.9] * 100 + [0.8], [0] * 101)]
    assert evaluation.evaluate_detections(detections, truth(annotated([BOX], [0])), engine).ap == 0


def test_nothing_is_printed(engine, capfd):
    annotations, detections = random_set(np.random.default_rng(0))
    evaluation.evaluate_detections(detections, annotations, engine)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ([], "0 images have detections, 1 are annotated"),
        ([found([BOX], [1, 2], [0])], "one score and one class for each box"),
        ([found([BOX], [1], [0, 0])], "one score and one class for each box"),
        ([found([BOX], [np.nan], [0])], "hold NaN"),
        ([found([[0, 0, np.inf, 1]], [1], [0])], "hold NaN or infinity"),
        ([found([[5, 0, 4, 1]], [1], [0])], "expected x1 <= x2"),
        ([found([BOX], [1], [3])], r"classes \[3\]; expected integers from 0 to 2"),
        ([found([BOX], [1], [-1])], "expected integers from 0 to 2"),
    ],
)
def test_bad_detections_are_refused(detections, message):
    with pytest.raises(InputError, match=message):
        evaluation.evaluate_detections(detections, truth(annotated([BOX], [0])))


def test_classes_that_are_no_integers_are_refused():
    wrong = evaluation.ImageDetections(
        boxes=np.array([BOX]), scores=np.ones(1), classes=np.array([0.0])
    )
    with pytest.raises(InputError, match="expected integers"):
        evaluation.evaluate_detections([wrong], truth(annotated([BOX], [0])))


def test_unknown_and_absent_engines_are_refused(monkeypatch):
    with pytest.raises(InputError, match="engine is 'fast'; expected one of faster-coco-eval, pyc"):
        evaluation.evaluate_detections([NOTHING], truth(annotated([], [])), "fast")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="faster-coco-eval or pycocotools is not installed"):
        evaluation.evaluate_detections([NOTHING], truth(annotated([], [])))


def test_annotations_of_128_photographs_score_themselves_1(engine):
    if not COCO.is_dir():
        pytest.skip(f"{COCO} is not on this machine")
    images = data.load_annotations(COCO / "instances.json", COCO / "images", data.COCO_CATEGORIES)
    perfect = [found(i.boxes, np.ones(len(i.boxes)), i.classes) for i in images.images]
    scores = evaluation.evaluate_detections(perfect, images, engine)
    assert scores.ap == pytest.approx(1)
    present = {int(index) for image in images.images for index in image.classes}
    assert set(np.flatnonzero(~np.isnan(scores.class_ap))) == present
