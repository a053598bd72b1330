"""COCO annotations are read whole, or what is wrong is named or listed."""

import math

import numpy as np
import pytest

from autosplit import data
from autosplit.errors import CalibrationError, InputError


def load(coco_set, **kwargs):
    coco_set.write()
    return data.load_annotations(coco_set.annotations, coco_set.folder, **kwargs)


def test_images_come_by_id_with_their_boxes(coco_set):
    loaded = load(coco_set)
    assert [image.image_id for image in loaded.images] == [10, 20, 30, 40]
    assert [image.path.name for image in loaded.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert loaded.categories == {2: "bicycle", 9: "boat"}
    assert loaded.class_names == ("bicycle", "boat")
    third = loaded.images[2]
    assert (third.width_pixels, third.height_pixels) == (50, 40)
    np.testing.assert_array_equal(third.boxes, [[1, 2, 11, 22], [5.5, 0, 9.5, 4]])
    np.testing.assert_array_equal(third.classes, [0, 1])
    np.testing.assert_array_equal(third.areas, [150.5, 16])
    np.testing.assert_array_equal(third.is_crowd, [False, True])
    assert loaded.skipped == ()


def test_an_image_without_annotations_is_kept(coco_set):
    image = load(coco_set).images[1]
    assert (image.width_pixels, image.height_pixels) == (20, 10)
    assert image.boxes.shape == (0, 4)
    assert image.classes.shape == image.areas.shape == image.is_crowd.shape == (0,)


def test_skipping_nothing_equals_raising_nothing(coco_set):
    assert repr(load(coco_set, on_error="skip")) == repr(load(coco_set))


def test_a_limit_takes_the_lowest_ids(coco_set):
    limited = load(coco_set, limit=2)
    assert [image.image_id for image in limited.images] == [10, 20]
    assert limited.skipped == ()
    with pytest.raises(InputError, match="limit is 0"):
        load(coco_set, limit=0)


def test_given_categories_set_the_order_of_the_classes(coco_set):
    wanted = {9: "boat", 3: "car", 2: "bicycle"}
    loaded = load(coco_set, categories=wanted)
    assert loaded.class_names == ("boat", "car", "bicycle")
    assert loaded.images[2].classes.tolist() == [2, 0]
    coco = load(coco_set, categories=data.COCO_CATEGORIES)
    assert [coco.class_names[index] for index in coco.images[2].classes] == ["bicycle", "boat"]
    with pytest.raises(InputError, match=r"category 2 .* is 'bicycle'; expected 'bike'"):
        load(coco_set, categories={2: "bike", 9: "boat"})


WRONG_ANNOTATIONS = [
    ({"id": None}, "annotation 1 of .* has no integer id"),
    ({"id": 5}, "annotation 5 of .* is there twice"),
    ({"image_id": 99}, "annotation 6 of .* has the image_id 99, which is not listed"),
    ({"image_id": None}, "has the image_id None"),
    ({"category_id": 3}, "category_id 3; expected one of 2, 9"),
    ({"category_id": [9]}, r"category_id \[9\]"),
    ({"bbox": None}, "bbox None; expected four finite numbers"),
    ({"bbox": [1, 2, 3]}, "expected four finite numbers"),
    ({"bbox": [1, 2, "3", 4]}, "expected four finite numbers"),
    ({"bbox": [1, 2, math.inf, 4]}, "expected four finite numbers"),
    ({"bbox": [math.nan, 2, 3, 4]}, "expected four finite numbers"),
    ({"bbox": [1, 2, 0, 4]}, "box of 0 x 4 pixels; expected both above 0"),
    ({"bbox": [1, 2, 3, -4]}, "box of 3 x -4 pixels"),
    ({"bbox": [1, 2, 41, 4]}, r"box x 1 to 42, y 2 to 6; expected it inside .* 40 x 30"),
    ({"bbox": [-1.5, 2, 4, 4]}, "expected it inside"),
    ({"bbox": [1, 28, 4, 4]}, "expected it inside"),
    ({"area": -1}, "area -1; expected"),
    ({"area": "big"}, "area 'big'; expected"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_ANNOTATIONS)
def test_a_wrong_annotation_is_named_or_listed(coco_set, change, message):
    coco_set.document["annotations"][1] |= change
    with pytest.raises(InputError, match=message):
        load(coco_set)
    loaded = load(coco_set, on_error="skip")
    assert [len(image.boxes) for image in loaded.images] == [0, 0, 2, 1]
    (skipped,) = loaded.skipped
    assert skipped.what.startswith("annotation ")


def test_a_missing_image_is_named_or_listed_with_its_boxes_gone(coco_set):
    (coco_set.folder / "c.jpg").unlink()
    with pytest.raises(InputError, match=r"c\.jpg is not there"):
        load(coco_set)
    loaded = load(coco_set, on_error="skip")
    assert [image.image_id for image in loaded.images] == [10, 20, 40]
    assert [skipped.what for skipped in loaded.skipped] == [str(coco_set.folder / "c.jpg")]


@pytest.mark.parametrize("damage", [lambda b: b"no image", lambda b: b""])
def test_a_file_that_is_no_image_is_named_or_listed(coco_set, damage):
    path = coco_set.folder / "c.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CalibrationError, match=r"c\.jpg cannot be decoded"):
        load(coco_set)
    assert [s.what for s in load(coco_set, on_error="skip").skipped] == [str(path)]


def test_a_truncated_image_is_found_by_skipping_and_raised_by_decoding(coco_set):
    path = coco_set.folder / "c.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    loaded = load(coco_set, on_error="skip")
    assert [s.what for s in loaded.skipped] == [str(path)]
    assert len(loaded) == 3
    with pytest.raises(CalibrationError, match=r"c\.jpg cannot be decoded.*truncated"):
        data.decode_image(load(coco_set).images[2].path)


@pytest.mark.parametrize(
    ("change", "message", "kept"),
    [
        ({"width": 51}, r"c\.jpg has 50 x 40 pixels; expected 51 x 40", [10, 20, 40]),
        ({"id": 10}, r"image id 10 of .* is listed twice \(c\.jpg, a\.jpg\)", [10, 20, 40]),
        ({"id": "30"}, "image 0 of .* lacks an integer id", [10, 20, 40]),
        ({"file_name": None}, "lacks an integer id or a file_name", [10, 20, 40]),
    ],
)
def test_a_wrong_image_is_named_or_listed(coco_set, change, message, kept):
    coco_set.document["images"][0] |= change
    with pytest.raises(InputError, match=message):
        load(coco_set)
    loaded = load(coco_set, on_error="skip")
    assert [image.image_id for image in loaded.images] == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no complete JSON"),
        ('{"images": [', "no complete JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": {}}', "no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [3]}', "no list 'categories'"),
    ],
)
def test_another_document_is_refused(coco_set, text, message):
    coco_set.annotations.write_text(text)
    with pytest.raises(InputError, match=message):
        data.load_annotations(coco_set.annotations, coco_set.folder)


@pytest.mark.parametrize("category", [{"id": 9, "name": "b"}, {"id": 3}, {"name": "c"}])
def test_wrong_categories_are_refused(coco_set, category):
    coco_set.document["categories"].append(category)
    with pytest.raises(InputError, match="expected a new id and a name"):
        load(coco_set, on_error="skip")


def test_no_usable_image_is_refused(coco_set):
    coco_set.document |= {"images": [], "annotations": []}
    with pytest.raises(CalibrationError, match="names no usable image"):
        load(coco_set)
    with pytest.raises(InputError, match="on_error is 'ignore'"):
        load(coco_set, on_error="ignore")
