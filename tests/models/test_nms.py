"""Suppression equals a plain NumPy loop, ties included."""

import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autosplit.errors import InputError
from autosplit.models.nms import non_max_suppression

IMAGES, ANCHORS, CLASSES = 2, 9, 3
SETTINGS = {"score_threshold": 0.25, "iou_threshold": 0.5, "max_detections": 4, "pre_nms": 7}


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (area - both) if area > both else 0


def reference(boxes, scores, *, class_agnostic, multi_label, **settings):
    """Returns (box, score, class) of what is kept in one image."""
    pairs = [(-scores[a, c], a, c) for a in range(ANCHORS) for c in range(CLASSES)]
    if not multi_label:
        pairs = [min(p for p in pairs if p[1] == a) for a in range(ANCHORS)]
    kept = []
    for score, anchor, label in sorted(pairs)[: settings["pre_nms"]]:
        rivals = [b for b, _, c in kept if class_agnostic or c == label]
        free = all(overlap(b, boxes[anchor]) <= settings["iou_threshold"] for b in rivals)
        if -score > settings["score_threshold"] and free:
            kept.append((boxes[anchor], -score, label))
    return kept[: settings["max_detections"]]


@functools.cache
def compiled(class_agnostic, multi_label):
    options = {"class_agnostic": class_agnostic, "multi_label": multi_label}
    return jax.jit(functools.partial(non_max_suppression, **SETTINGS, **options)), options


# Few numbers, so that scores and boxes are often equal and overlaps often just a half.
CORNERS = arrays.arrays(np.float32, (IMAGES, ANCHORS, 2), elements=st.sampled_from([0, 1, 2, 3]))
LENGTHS = arrays.arrays(np.float32, (IMAGES, ANCHORS, 2), elements=st.sampled_from([0, 1, 2, 4]))
SCORES = arrays.arrays(
    np.float32, (IMAGES, ANCHORS, CLASSES), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
)


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@hypothesis.given(corners=CORNERS, lengths=LENGTHS, scores=SCORES)
def test_equals_the_reference(class_agnostic, multi_label, corners, lengths, scores):
    suppress, options = compiled(class_agnostic, multi_label)
    boxes = np.concatenate([corners, corners + lengths], axis=-1)
    found = jax.tree.map(np.asarray, suppress(boxes, scores))
    for image in range(IMAGES):
        expected = reference(boxes[image], scores[image], **SETTINGS, **options)
        count = len(expected)
        assert found.valid[image].tolist() == [True] * count + [False] * (4 - count)
        for place, (box, score, label) in enumerate(expected):
            assert found.boxes[image, place].tolist() == box.tolist()
            assert found.scores[image, place] == score
            assert found.classes[image, place] == label
        for rest in (found.boxes, found.scores, found.classes):
            assert not rest[image, count:].any()


def test_many_anchors_of_any_place_and_size():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (1, 2000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 90, corners.shape)], -1)
    boxes, scores = boxes.astype(np.float32), rng.random((1, 2000, 1)).astype(np.float32)
    found = jax.jit(
        lambda b, s: non_max_suppression(
            b, s, score_threshold=0.2, iou_threshold=0.45, max_detections=300, pre_nms=1500
        )
    )(boxes, scores)
    order = np.argsort(-scores[0, :, 0], kind="stable")[:1500]
    kept = []
    for index in order[scores[0, order, 0] > 0.2]:
        if len(kept) < 300 and all(overlap(boxes[0, k], boxes[0, index]) <= 0.45 for k in kept):
            kept.append(index)
    valid = np.asarray(found.valid[0])
    np.testing.assert_array_equal(found.boxes[0][valid], boxes[0, kept])


def test_fewer_anchors_than_places():
    boxes = np.array([[[0, 0, 1, 1]]], np.float32)
    for multi_label in (False, True):
        found = non_max_suppression(
            boxes, np.array([[[0.5, 0.75]]], np.float32), **SETTINGS, multi_label=multi_label
        )
        assert found.valid.sum() == 1 + multi_label
        assert found.classes[0, 0] == 1


def test_gradients_pass():
    boxes = np.array([[[0, 0, 2, 2], [5, 5, 7, 7], [0, 0, 2, 2]]], np.float32)
    scores = np.array([[[0.5], [0.9], [0.6]]], np.float32)
    gradient = jax.grad(lambda s: non_max_suppression(boxes, s, **SETTINGS).scores.sum())(scores)
    assert gradient[0, :, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": np.zeros((1, 5, 4))}, "shapes"),
        ({"scores": np.zeros((1, 9))}, "shapes"),
        ({"scores": np.zeros((1, 9, 0))}, "shapes"),
        ({"iou_threshold": 1.5}, "numbers of 0 to 1"),
        ({"score_threshold": -0.1}, "numbers of 0 to 1"),
        ({"max_detections": 0}, "at least 1"),
        ({"pre_nms": 0}, "at least 1"),
    ],
)
def test_bad_input_is_refused(changed, message):
    arguments = {"boxes": np.zeros((1, 9, 4)), "scores": np.zeros((1, 9, 2)), **SETTINGS}
    with pytest.raises(InputError, match=message):
        non_max_suppression(**arguments | changed)
