"""Precision-recall plots and drawn boxes show what they should."""

from __future__ import annotations

import re

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.reporting.canvas import figure_bytes
from autosplit.reporting.drawn_boxes import draw_boxes
from autosplit.reporting.precision_recall import NAMED_COLOURS, precision_recall_figure

RECALLS = np.linspace(0, 1, 101)


def falling(ends: list[float]) -> np.ndarray:
    return np.stack([np.clip(1 - RECALLS * (1 - end), 0, 1) for end in ends])


def texts(figure) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)", figure_bytes(figure, "svg").decode()))


def test_a_line_for_each_annotated_class_and_one_for_their_mean() -> None:
    precision = falling([0.2, 0.6, 0.0])
    precision[2] = np.nan
    figure = precision_recall_figure(RECALLS, precision, ["cat", "dog", "eel"], 0.5)
    lines = figure.axes[0].get_lines()
    assert len(lines) == 3
    np.testing.assert_allclose(lines[-1].get_ydata(), precision[:2].mean(axis=0))
    shown = texts(figure)
    assert "dog  80.0" in shown
    assert "cat  60.0" in shown
    assert "mean of 2  70.0" in shown
    assert "eel" not in shown


def test_of_many_classes_the_best_and_the_worst_are_named() -> None:
    names = [f"class {letter}" for letter in "abcdefghijkl"]
    figure = precision_recall_figure(RECALLS, falling(np.linspace(0, 0.9, 12).tolist()), names, 0.5)
    shown = texts(figure)
    assert [name for name in names if name in shown] == [*names[:3], *names[-3:]]
    assert len(figure.axes[0].get_lines()) == 13
    assert len(NAMED_COLOURS) == 6


def test_plots_of_nothing_raise() -> None:
    with pytest.raises(InputError, match="No class is annotated"):
        precision_recall_figure(RECALLS, np.full((1, 101), np.nan), ["cat"], 0.5)
    with pytest.raises(InputError, match="expected 2 classes by 101 recalls"):
        precision_recall_figure(RECALLS, np.ones((1, 101)), ["cat", "dog"], 0.5)


PICTURE = np.full((120, 160, 3), 200, np.uint8)


def changed(boxes, labels, scores=None, picture=PICTURE) -> np.ndarray:
    drawn = draw_boxes(picture, boxes, labels, scores)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    return (drawn != picture).any(axis=2)


def test_the_edges_of_a_box_are_drawn_and_its_inside_is_not() -> None:
    mask = changed([[20, 40, 100, 90]], ["bus"])
    for row, column in [(40, 60), (90, 60), (60, 20), (60, 100)]:
        assert mask[row, column]
    assert not mask[45:86, 25:96].any()
    assert not mask[95:].any()
    assert mask[28:39, 20:40].any()  # the label, above
    assert (PICTURE == 200).all()


def test_without_room_above_the_label_is_inside() -> None:
    mask = changed([[20, 0, 100, 90]], ["bus"])
    assert mask[2:10, 22:35].any()


def test_a_label_stays_within_the_picture() -> None:
    wide = changed([[150, 40, 158, 60]], ["a long name"])
    narrow = changed([[150, 40, 158, 60]], ["b"])
    assert wide[25:40].any(axis=0).sum() > narrow[25:40].any(axis=0).sum()
    assert wide[25:40, :120].any()


def test_parts_outside_are_cut_off() -> None:
    assert changed([[-50, -50, 500, 500]], ["bus"])[60, [0, 159]].all()
    changed([[300, 300, 400, 400]], ["bus"])


def test_a_label_has_one_colour_and_the_best_box_lies_on_top() -> None:
    box = [20, 40, 100, 90]
    alone = draw_boxes(PICTURE, [box], ["bus"])[90, 60]
    beside = draw_boxes(PICTURE, [[110, 40, 150, 90], box], ["dog", "bus"])[90, 60]
    np.testing.assert_array_equal(alone, beside)
    for scores in ([0.9, 0.1], [0.1, 0.9]):
        both = draw_boxes(PICTURE, [box, box], ["bus", "dog"], scores)[90, 60]
        best = ["bus", "dog"][int(np.argmax(scores))]
        np.testing.assert_array_equal(both, draw_boxes(PICTURE, [box], [best])[90, 60])


def test_scores_lengthen_the_label() -> None:
    box = [[20, 40, 100, 90]]
    with_score = changed(box, ["bus"], [0.87])
    assert with_score[25:39].any(axis=0).sum() > changed(box, ["bus"])[25:39].any(axis=0).sum()


def test_no_boxes_leave_the_picture_as_it_was() -> None:
    assert not changed([], []).any()


@pytest.mark.parametrize(
    ("image", "boxes", "labels", "scores", "message"),
    [
        (PICTURE.astype(float), [], [], None, r"image is float64\[120, 160, 3\]"),
        (PICTURE[..., 0], [], [], None, r"expected uint8\[H, W, 3\]"),
        (PICTURE, [[1, 2, 3, 4]], [], None, "1 boxes have 0 labels"),
        (PICTURE, [[1, 2, 3, 4]], ["a"], [0.1, 0.2], "1 labels and 2 scores"),
        (PICTURE, [[1, 2, np.nan, 4]], ["a"], None, "NaN or infinity"),
        (PICTURE, [[5, 2, 3, 4]], ["a"], None, "expected x1 <= x2"),
    ],
)
def test_bad_boxes_are_refused(image, boxes, labels, scores, message) -> None:
    with pytest.raises(InputError, match=message):
        draw_boxes(image, boxes, labels, scores)
