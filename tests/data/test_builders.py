"""Prepared data sets give back the files' bytes, labels and boxes, in order, without TensorFlow."""

import functools
import sys

import numpy as np
import PIL.Image
import pytest

from autosplit import data
from autosplit.errors import CalibrationError, InputError

pytest.importorskip("tensorflow_datasets", reason="builders need tensorflow-datasets")
pytest.importorskip("array_record", reason="builders write ArrayRecord files")

import tensorflow_datasets as tfds

from autosplit.data import builders

tfds.disable_progress_bar()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    names = ["cat/1.jpg", "dog/0.png", "cat/0.jpg", "dog/2.jpg", "eel/0.jpg"]
    for number, name in enumerate(names):
        path = tmp_path / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (12, 14 + number, 3), np.uint8)
        PIL.Image.fromarray(pixels).convert("L" if number == 2 else "RGB").save(path)
    return tmp_path / "photographs"


def test_a_folder_comes_back_in_its_order(folder, tmp_path):
    files = data.list_images(folder)
    builder = builders.prepare_files("animals", files, tmp_path / "prepared")
    records = builders.encoded_records(builder)
    assert [bytes(record["image"]) for record in records] == [p.read_bytes() for p in files.paths]
    assert [record["label"] for record in records] == files.labels.tolist() == [0, 0, 1, 1, 2]
    assert builder.info.features["label"].names == ["cat", "dog", "eel"]
    assert [record["file"].decode() for record in records] == list(map(str, files.paths))
    assert "tensorflow" not in sys.modules


def test_records_are_a_source_equal_to_the_files(folder, tmp_path):
    files = data.list_images(folder)
    builder = builders.prepare_files("animals", files, tmp_path / "prepared")
    options = {"prepare": functools.partial(data.resize_and_crop, resize=10, crop=8),
               "shape": (8, 8, 3)}  # fmt: skip
    from_files = data.FileSource(paths=files.paths, labels=files.labels, **options)
    from_records = data.RecordSource(
        records=builders.encoded_records(builder), has_labels=True, **options
    )
    assert len(from_records) == len(from_files) == 5
    for index in range(5):
        np.testing.assert_array_equal(from_records[index][0], from_files[index][0], strict=True)
        assert from_records[index][1] == from_files[index][1]


def test_records_are_read_from_many_threads(folder, tmp_path):
    loading = pytest.importorskip("autosplit.data.loading", reason="loading needs grain")
    files = data.list_images(folder)
    builder = builders.prepare_files("animals", files, tmp_path / "prepared")
    source = data.RecordSource(
        records=builders.encoded_records(builder), has_labels=True, shape=(8, 8, 3),
        prepare=functools.partial(data.resize_and_crop, resize=10, crop=8),
    )  # fmt: skip
    options = loading.Loading(batch_size=1, seed=0, threads=4, prefetch_batches=5)
    batches = list(loading.load_batches(source, options))
    assert sorted(int(batch.indices[0]) for batch in batches) == [0, 1, 2, 3, 4]
    for batch in batches:
        image, label = source[int(batch.indices[0])]
        np.testing.assert_array_equal(batch.images[0], image)
        assert batch.labels.tolist() == [label]


def test_parts_of_a_split_are_read(folder, tmp_path):
    builder = builders.prepare_files("animals", data.list_images(folder), tmp_path / "prepared")
    whole = [bytes(record["image"]) for record in builders.encoded_records(builder)]
    parts = [
        [bytes(record["image"]) for record in builders.encoded_records(builder, split)]
        for split in ("train[:2]", "train[2:]")
    ]
    assert [len(part) for part in parts] == [2, 3]
    assert parts[0] + parts[1] == whole


def test_what_is_prepared_is_found_again_until_the_files_change(folder, tmp_path):
    files, prepared = data.list_images(folder), tmp_path / "prepared"
    first = builders.prepare_files("animals", files, prepared)
    again = builders.prepare_files("animals", data.list_images(folder), prepared)
    assert again.data_dir == first.data_dir
    PIL.Image.new("RGB", (30, 30)).save(folder / "eel" / "0.jpg")
    changed = builders.prepare_files("animals", data.list_images(folder), prepared)
    assert changed.data_dir != first.data_dir
    record = builders.encoded_records(changed)[4]
    assert bytes(record["image"]) == (folder / "eel" / "0.jpg").read_bytes()


def test_a_csv_is_prepared_with_its_numbers(folder, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\ndog/0.png,12\ncat/1.jpg,3\n")
    files = data.read_label_csv(tmp_path / "labels.csv", folder)
    builder = builders.prepare_files("table", files, tmp_path / "prepared")
    assert [int(record["label"]) for record in builders.encoded_records(builder)] == [12, 3]


def test_images_without_labels_are_prepared(folder, tmp_path):
    files = data.list_images(folder / "cat")
    builder = builders.prepare_files("cats", files, tmp_path / "prepared")
    assert set(builders.encoded_records(builder)[0]) == {"image", "file"}


def test_annotations_come_back_as_they_were(coco_set, tmp_path):
    images = data.load_annotations(coco_set.annotations, coco_set.folder)
    builder = builders.prepare_annotations("boats", images, tmp_path / "prepared")
    read = builders.read_annotations(builder)
    assert read.categories == images.categories
    assert len(read) == len(images) == 4
    for one, other in zip(read.images, images.images, strict=True):
        for field in ("image_id", "path", "width_pixels", "height_pixels"):
            assert getattr(one, field) == getattr(other, field)
        for field in ("boxes", "classes", "areas", "is_crowd"):
            # The numbers of this data set are exact in float32.
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), strict=True)
    records = builders.encoded_records(builder)
    expected = [image.path.read_bytes() for image in images.images]
    assert [bytes(record["image"]) for record in records] == expected


def test_a_corrupt_image_is_named_and_nothing_half_prepared_is_left(folder, tmp_path):
    path = folder / "dog" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    files, prepared = data.list_images(folder), tmp_path / "prepared"
    with pytest.raises(CalibrationError, match=r"2\.jpg cannot be decoded"):
        builders.prepare_files("animals", files, prepared)
    assert not list(prepared.rglob("*array_record*"))
    intact = data.keep_intact(files)
    assert [skipped.what for skipped in intact.skipped] == [str(path)]
    builder = builders.prepare_files("animals", intact, prepared)
    assert len(builders.encoded_records(builder)) == 4


def prepare_imagenet(data_dir, examples, file_format):
    """Prepare given examples as the builder would prepare ImageNet's archives with TensorFlow."""
    parent = tfds.builder_cls("imagenet2012")

    class Prepared(parent, skip_registration=True):
        name, pkg_dir_path, url_infos = "imagenet2012", parent.pkg_dir_path, None

        def _split_generators(self, dl_manager):
            return {"validation": iter(examples)}

    Prepared(data_dir=str(data_dir)).download_and_prepare(file_format=file_format)


def test_imagenet_is_read_through_its_own_builder(folder, tmp_path):
    with pytest.raises(InputError, match="imagenet2012 is not prepared in"):
        builders.prepared_builder("imagenet2012", tmp_path)
    paths = sorted(folder.rglob("*.jpg"))
    examples = [
        (path.name + str(number), {"image": path, "label": 100 + number, "file_name": path.name})
        for number, path in enumerate(paths)
    ]
    prepare_imagenet(tmp_path, examples, "array_record")
    builder = builders.prepared_builder("imagenet2012", tmp_path)
    records = builders.encoded_records(builder, "validation")
    labels = {bytes(record["image"]): int(record["label"]) for record in records}
    assert labels == {path.read_bytes(): 100 + number for number, path in enumerate(paths)}


def test_files_of_another_format_are_refused(folder, tmp_path):
    path = folder / "eel" / "0.jpg"
    example = {"image": path, "label": 3, "file_name": path.name}
    prepare_imagenet(tmp_path, [("0", example)], "parquet")
    with pytest.raises(InputError, match=r"prepared in .* as parquet; expected array_record"):
        builders.prepared_builder("imagenet2012", tmp_path)


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="knows no data set 'no_such_set'"):
        builders.prepared_builder("no_such_set", tmp_path)
