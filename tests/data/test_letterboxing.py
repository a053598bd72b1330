"""A photograph fits into the network's input, and boxes find their way back."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from autosplit.data.letterboxing import GREY, Placement, boxes_in_photograph, letterbox, place
from autosplit.errors import InputError

LENGTHS = st.tuples(st.integers(1, 700), st.integers(1, 700))
SIZES = st.sampled_from([(416, 416), (320, 608), (96, 64)])


@pytest.mark.parametrize(
    ("image_size", "size", "expected"),
    [
        # Worked out by hand: 416/640 = .65, 480 * .65 = 312, (416 - 312) / 2 = 52.
        ((480, 640), (416, 416), (52, 0, 312, 416)),
        ((640, 480), (416, 416), (0, 52, 416, 312)),
        # The smaller picture is enlarged; of an odd rest, the larger part is below.
        ((100, 200), (416, 416), (104, 0, 208, 416)),
        ((75, 100), (103, 100), (14, 0, 75, 100)),
        ((76, 100), (101, 100), (12, 0, 76, 100)),
        ((1, 1000), (32, 32), (15, 0, 1, 32)),
    ],
)
def test_known_places(image_size, size, expected):
    top, left, height, width = expected
    assert place(image_size, size) == Placement(top=top, left=left, height=height, width=width)


@hypothesis.given(LENGTHS, SIZES)
def test_the_photograph_lies_inside_in_the_middle_and_fills_one_side(image_size, size):
    at = place(image_size, size)
    below, right = size[0] - at.top - at.height, size[1] - at.left - at.width
    assert below - at.top in (0, 1)
    assert right - at.left in (0, 1)
    assert at.height == size[0] or at.width == size[1]


@hypothesis.given(LENGTHS, SIZES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(image_size, size, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    at = place(image_size, size)
    fraction = np.array([x1, y1, x2, y2])
    inside = fraction * np.array([at.width, at.height] * 2)
    boxes = inside + np.array([at.left, at.top] * 2)
    whole = np.array([image_size[1], image_size[0]] * 2)
    found = boxes_in_photograph(boxes, image_size, size)
    np.testing.assert_allclose(found, fraction * whole, atol=1e-3 * max(image_size))


def test_boxes_are_clipped_to_the_photograph():
    boxes = np.array([[-50, -50, 900, 900], [10, 0, 20, 51]], np.float32)
    found = boxes_in_photograph(boxes, (480, 640), (416, 416))
    np.testing.assert_array_equal(found[0], [0, 0, 640, 480])
    np.testing.assert_array_equal(found[1, [1, 3]], [0, 0])


def test_pixels_are_where_place_says():
    image = np.full((30, 50, 3), (255, 0, 7), np.uint8)
    found = letterbox(image, (64, 96))
    at = place((30, 50), (64, 96))
    assert found.shape == (64, 96, 3)
    assert found.dtype == np.uint8
    inside = np.zeros((64, 96), bool)
    inside[at.top : at.top + at.height, at.left : at.left + at.width] = True
    assert (found[inside] == (255, 0, 7)).all()
    assert (found[~inside] == GREY).all()


def test_a_mark_is_found_where_its_box_is():
    image = np.zeros((120, 200, 3), np.uint8)
    image[40:80, 100:160] = 255
    rows, columns = np.nonzero(letterbox(image, (160, 160))[..., 0] > 200)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = boxes_in_photograph(box, (120, 200), (160, 160))
    np.testing.assert_allclose(found, [100, 40, 160, 80], atol=1.3)


def test_an_equal_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    np.testing.assert_array_equal(letterbox(image, (32, 64)), image)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="expected uint8"):
        letterbox(np.zeros((4, 4, 3), np.float32), (32, 32))
    with pytest.raises(InputError, match="expected uint8"):
        letterbox(np.zeros((4, 4), np.uint8), (32, 32))
    with pytest.raises(InputError, match="at least 1"):
        letterbox(np.zeros((0, 4, 3), np.uint8), (32, 32))
    with pytest.raises(InputError, match="at least 1"):
        place((4, 4), (32, 0))
    with pytest.raises(InputError, match=r"expected \[\.\.\., 4\]"):
        boxes_in_photograph(np.zeros((2, 3)), (4, 4), (32, 32))
