"""Folders are read in a fixed order, labelled where they say so, and never in part."""

import numpy as np
import PIL.Image
import pytest

from autosplit import data
from autosplit.errors import CalibrationError, InputError


def write(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (40, 30), (level, level, level)).save(path)


def load(folder, **kwargs):
    return data.load_images(folder, resize=16, crop=8, **kwargs)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["0004_n01494475.png", "0107_n01910747.png", "0006_n01498041.png"], [4, 6, 107]),
        (["imagenet_01_559.png", "imagenet_00_243.png"], [243, 559]),
        (["b/1.png", "a/2.png", "b/0.png"], [0, 1, 1]),
        (["IMG_2034.png", "IMG_2035.png"], None),
        (["IMG_20260314_120000.png", "IMG_20260314_120001.png"], None),
        (["0004_n01494475.png", "holiday.png"], None),
    ],
)
def test_order_and_labels_follow_the_names(tmp_path, names, labels):
    for level, name in enumerate(sorted(names)):
        write(tmp_path / name, 10 * level)
    loaded = load(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in loaded.paths] == sorted(names)
    assert loaded.images.shape == (len(names), 8, 8, 3)
    assert loaded.images.dtype == np.uint8
    assert loaded.images[:, 0, 0, 0].tolist() == [10 * i for i in range(len(names))]
    if labels is None:
        assert loaded.labels is None
    else:
        assert loaded.labels.tolist() == labels
        assert loaded.labels.dtype == np.int64


def test_an_empty_subfolder_keeps_its_class(tmp_path):
    write(tmp_path / "a" / "0.png", 0)
    (tmp_path / "b").mkdir()
    write(tmp_path / "c" / "0.png", 0)
    assert load(tmp_path).labels.tolist() == [0, 2]


def test_a_limit_spreads_over_the_folder(tmp_path):
    for index in range(10):
        write(tmp_path / f"{index:04d}_n{index:08d}.png", index)
    assert load(tmp_path, limit=5).labels.tolist() == [0, 2, 4, 6, 8]
    assert load(tmp_path, limit=3).labels.tolist() == [0, 3, 6]
    assert len(load(tmp_path, limit=99)) == 10
    with pytest.raises(InputError, match="limit is 0"):
        load(tmp_path, limit=0)


def test_given_files_keep_their_order(tmp_path):
    names = ["imagenet_01_559.png", "imagenet_00_243.png"]
    for name in names:
        write(tmp_path / name, 0)
    loaded = data.load_files([tmp_path / name for name in names], resize=16, crop=8)
    assert loaded.labels.tolist() == [559, 243]
    with pytest.raises(CalibrationError, match="no image files"):
        data.load_files([])


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no image", lambda b: b""]
)
def test_a_corrupt_file_is_named(tmp_path, damage):
    write(tmp_path / "good.jpg", 0)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes(damage((tmp_path / "half.jpg").read_bytes()))
    with pytest.raises(CalibrationError, match=r"half\.jpg cannot be decoded"):
        load(tmp_path)


def test_folders_without_a_clear_set_of_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        load(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(CalibrationError, match="has no images"):
        load(tmp_path)
    write(tmp_path / "0.png", 0)
    write(tmp_path / "a" / "0.png", 0)
    with pytest.raises(CalibrationError, match="1 images beside 1 in subfolders"):
        load(tmp_path)


def test_what_cannot_be_decoded_is_left_out_and_listed_when_asked(tmp_path):
    for index in range(4):
        write(tmp_path / f"imagenet_0{index}_{index + 7}.png", 50 * index)
    (tmp_path / "imagenet_01_8.png").write_bytes(b"no image")
    loaded = load(tmp_path, on_error="skip")
    assert loaded.labels.tolist() == [7, 9, 10]
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 100, 150]
    assert [path.name[9:11] for path in loaded.paths] == ["00", "02", "03"]
    (skipped,) = loaded.skipped
    assert skipped.what == str(tmp_path / "imagenet_01_8.png")
    assert "cannot be decoded" in skipped.reason
    files = data.keep_intact(data.list_images(tmp_path))
    assert (files.paths, files.labels.tolist()) == (loaded.paths, loaded.labels.tolist())
    assert files.skipped == loaded.skipped
    with pytest.raises(InputError, match="on_error is 'ignore'; expected 'raise' or 'skip'"):
        load(tmp_path, on_error="ignore")


def test_a_folder_of_nothing_but_corrupt_files_is_refused(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"none of 2 images.*a\.jpg cannot be decoded"):
        load(tmp_path, on_error="skip")


def test_subfolders_name_the_classes(tmp_path):
    for name in ("dog/0.png", "cat/1.png", "cat/0.png"):
        write(tmp_path / name, 0)
    files = data.list_images(tmp_path)
    assert files.class_names == ("cat", "dog")
    assert [path.parent.name for path in files.paths] == ["cat", "cat", "dog"]
    assert data.load_labelled(files, 16, 8).labels.tolist() == [0, 0, 1]
