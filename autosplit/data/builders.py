"""Data sets of tensorflow-datasets, prepared and read without TensorFlow.

A builder writes a folder of images, a CSV of labels or COCO annotations as ArrayRecord
files, which are read by index: encoded images, labels and boxes, in the order of the
source. Images are stored as their files' bytes, after each was decoded once, and are
decoded by Pillow when read, so that they equal the files' pixels.

Needs tensorflow-datasets, which `autosplit.data` does not load: import this module by
its name.

Reference:
  tensorflow-datasets 4.9.10, `GeneratorBasedBuilder`. Its own ``coco`` builder and
  ``imagenet2012``'s preparation need TensorFlow; reading what was prepared does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from autosplit.data.coco_folder import AnnotatedImage, AnnotatedImages
from autosplit.data.decoding import decode_image
from autosplit.data.folder import LabelledFiles
from autosplit.errors import InputError

SPLIT = "train"
"""The only split of the builders here, as tensorflow-datasets names a lone one."""

FILE_FORMAT = "array_record"


@dataclasses.dataclass(eq=False, kw_only=True)
class FilesConfig(tfds.core.BuilderConfig):
    """What `LabelledFilesBuilder` prepares."""

    files: LabelledFiles = dataclasses.field(repr=False)  # its text is logged


@dataclasses.dataclass(eq=False, kw_only=True)
class AnnotationsConfig(tfds.core.BuilderConfig):
    """What `AnnotatedImagesBuilder` prepares."""

    images: AnnotatedImages = dataclasses.field(repr=False)


class LabelledFilesBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Prepares what `list_images` or `read_label_csv` found: image, file name, label."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; looking it up needs importlib_resources

    def _info(self) -> Any:
        files = self.builder_config.files
        features: dict[str, Any] = {
            "image": tfds.features.Image(),
            "file": tfds.features.Text(),
        }
        if files.labels is not None:
            names = files.class_names
            features["label"] = np.int64 if names is None else tfds.features.ClassLabel(names=names)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        files = self.builder_config.files
        for index, path in enumerate(files.paths):
            example: dict[str, Any] = {"image": _intact_bytes(path), "file": str(path)}
            if files.labels is not None:
                example["label"] = int(files.labels[index])
            yield index, example


class AnnotatedImagesBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Prepares what `load_annotations` found: image, file name, ids, size and boxes."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; looking it up needs importlib_resources

    def _info(self) -> Any:
        categories = self.builder_config.images.categories
        features = {
            "image": tfds.features.Image(),
            "file": tfds.features.Text(),
            "image_id": np.int64,
            "width_pixels": np.int64,
            "height_pixels": np.int64,
            # Not BBox, which divides by the size of the image and rounds.
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "classes": tfds.features.Tensor(shape=(None,), dtype=np.int64),
            "areas": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "is_crowd": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(categories=list(map(list, categories.items()))),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, image in enumerate(self.builder_config.images.images):
            yield index, {
                "image": _intact_bytes(image.path),
                "file": str(image.path),
                "image_id": image.image_id,
                "width_pixels": image.width_pixels,
                "height_pixels": image.height_pixels,
                "boxes": image.boxes.astype(np.float32),
                "classes": image.classes,
                "areas": image.areas.astype(np.float32),
                "is_crowd": image.is_crowd.astype(np.int64),
            }


def prepare_files(name: str, files: LabelledFiles, data_dir: str | os.PathLike[str]) -> Any:
    """Prepares images with labels, or finds them prepared.

    Args:
      name: of the data set; letters, digits, ``_`` and ``-``.
      files: from `list_images` or `read_label_csv`; pass it through `keep_intact` to
        leave out what cannot be decoded.
      data_dir: to write below. Other files, sizes or labels give another folder there.

    Returns:
      The builder, prepared: ``as_data_source`` and sub-splits work, and
      `encoded_records` takes it.

    Raises:
      CalibrationError: an image cannot be decoded.
    """
    labels = [-1] * len(files) if files.labels is None else files.labels.tolist()
    facts = [(_fingerprint(path), label) for path, label in zip(files.paths, labels, strict=True)]
    config = FilesConfig(name=_config_name(name, [files.class_names, *facts]), files=files)
    return _prepare(LabelledFilesBuilder(config=config, data_dir=os.fspath(data_dir)))


def prepare_annotations(
    name: str, images: AnnotatedImages, data_dir: str | os.PathLike[str]
) -> Any:
    """Prepares images with boxes, or finds them prepared; as `prepare_files`.

    Args:
      name, data_dir: as there.
      images: from `load_annotations`.
    """
    facts = [
        (_fingerprint(image.path), image.image_id, image.boxes.tolist(), image.classes.tolist(),
         image.areas.tolist(), image.is_crowd.tolist())
        for image in images.images
    ]  # fmt: skip
    name = _config_name(name, [dict(images.categories), *facts])
    config = AnnotationsConfig(name=name, images=images)
    return _prepare(AnnotatedImagesBuilder(config=config, data_dir=os.fspath(data_dir)))


def prepared_builder(name: str, data_dir: str | os.PathLike[str]) -> Any:
    """Returns a builder of tensorflow-datasets itself whose files are prepared.

    Args:
      name: e.g. ``"imagenet2012"``.
      data_dir: that its prepared files lie below, as ``name/version``.

    Raises:
      InputError: they do not, or not as ArrayRecord files.
    """
    try:
        builder = tfds.builder(name, data_dir=os.fspath(data_dir))
    except tfds.core.registered.DatasetNotFoundError as error:
        raise InputError(f"tensorflow-datasets knows no data set {name!r}.") from error
    if not builder.is_prepared():
        raise InputError(
            f"{name} is not prepared in {data_dir} ({builder.data_dir} is not there). Prepare it "
            f"where TensorFlow is installed, with file_format={FILE_FORMAT!r}, or unpack its "
            "images and use prepare_files."
        )
    formats = {each.value for each in builder.info.available_file_formats()}
    if FILE_FORMAT not in formats:
        raise InputError(
            f"{name} is prepared in {builder.data_dir} as {', '.join(sorted(formats))}; expected "
            f"{FILE_FORMAT}. Convert it with tensorflow-datasets' convert_format."
        )
    return builder


def encoded_records(builder: Any, split: str = SPLIT) -> Sequence[Mapping[str, Any]]:
    """Opens a split of a prepared builder by index, its images still encoded.

    Args:
      builder: from one of the functions above.
      split: or a part of one, e.g. ``"train[:10%]"``.

    Returns:
      Records for `RecordSource`.
    """
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def read_annotations(builder: Any, split: str = SPLIT) -> AnnotatedImages:
    """Reads the boxes of a builder of `prepare_annotations`.

    Boxes and areas are those of the annotations as float32. Images need not be where
    they were: `encoded_records` has their bytes in the same order.
    """
    categories = builder.info.metadata["categories"]
    return AnnotatedImages(
        images=tuple(_annotated(record) for record in encoded_records(builder, split)),
        categories={int(key): name for key, name in categories},
    )


def _annotated(record: Mapping[str, Any]) -> AnnotatedImage:
    return AnnotatedImage(
        image_id=int(record["image_id"]),
        path=pathlib.Path(record["file"].decode()),
        width_pixels=int(record["width_pixels"]),
        height_pixels=int(record["height_pixels"]),
        boxes=np.asarray(record["boxes"], np.float64).reshape(-1, 4),
        classes=np.asarray(record["classes"], np.int64),
        areas=np.asarray(record["areas"], np.float64),
        is_crowd=np.asarray(record["is_crowd"], bool),
    )


def _prepare(builder: Any) -> Any:
    builder.download_and_prepare(
        file_format=FILE_FORMAT,
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return builder


def _intact_bytes(path: pathlib.Path) -> bytes:
    decode_image(path)
    return path.read_bytes()


def _fingerprint(path: pathlib.Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _config_name(name: str, facts: Sequence[Any]) -> str:
    """Returns a name that changes with the content, so that nothing stale is found prepared."""
    return f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
