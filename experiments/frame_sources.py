"""Frames for the edge: arrays of an npz file, photographs, a folder, a video file or a camera."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import PIL.Image

from autosplit.data import decode_image, letterbox, list_images, resize_and_crop
from autosplit.data.folder import SUFFIXES
from autosplit.errors import InputError
from autosplit.execution.manifest import TensorSpec

Frame = tuple[np.ndarray, ...]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


def open_frames(
    inputs: Sequence[str], camera: int | None, model: str | None, specs: Sequence[TensorSpec]
) -> tuple[Iterator[Frame], bool]:
    """Opens what the flags name.

    Args:
      inputs: one npz file, folder or video file, or any number of photographs.
      camera: number of a camera, instead.
      model: of `autosplit.models.MODELS`, whose preprocessing photographs and video get;
        None is that of torchvision's classifiers, at the size of the split's input.
      specs: ``manifest.inputs``.

    Returns:
      The inputs of each request, as they are read; and whether they come at a pace of their
      own or may be many: video and cameras.

    Raises:
      InputError: a file is missing or of no such kind, or the split takes no photographs.
    """
    if bool(inputs) == (camera is not None):
        raise InputError(
            f"--inputs is {list(inputs)}, --camera is {camera}; expected one of them. Say where "
            "the frames come from."
        )
    paths = [pathlib.Path(name) for name in inputs]
    if len(paths) == 1 and not paths[0].is_dir() and not _is_picture(paths[0]):
        return iter(load_requests(paths[0], specs)), False
    prepare = preparation(model, specs)
    if camera is not None:
        return map(prepare, _video(camera, f"camera {camera}")), True
    if len(paths) == 1 and _suffix(paths[0]) in VIDEO_SUFFIXES:
        return map(prepare, _video(str(paths[0]), str(paths[0]))), True
    if len(paths) == 1 and paths[0].is_dir():
        paths = list(list_images(paths[0]).paths)
    odd = [str(path) for path in paths if _suffix(path) not in SUFFIXES]
    if odd:
        raise InputError(
            f"--inputs names {', '.join(odd[:5])}; expected photographs that end in "
            f"{', '.join(SUFFIXES)}, or a single npz file, folder or video file."
        )
    return (prepare(np.asarray(decode_image(path))) for path in paths), False


def load_requests(path: pathlib.Path, specs: Sequence[TensorSpec]) -> list[Frame]:
    """Returns the inputs of each request of an npz file.

    Args:
      path: npz file with one array per spec, named arg0, arg1, ..., requests leading.
      specs: ``manifest.inputs``.

    Returns:
      One tuple of arrays per request; shapes and types are not checked.

    Raises:
      InputError: no such file, other names, no request, or arrays of unequal length.
    """
    names = [f"arg{index}" for index in range(len(specs))]
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Cannot read inputs from {path}: {error}. Give an npz file.") from error
    lengths = {array.shape[:1] for array in arrays.values()}
    if sorted(arrays) != sorted(names) or len(lengths) != 1 or lengths & {(), (0,)}:
        found = {name: array.shape for name, array in arrays.items()}
        expected = {
            name: ("requests", *spec.shape) for name, spec in zip(names, specs, strict=True)
        }
        raise InputError(
            f"{path} holds {found}; expected {expected} with the same number of requests, "
            "at least one, in each. Stack the requests along a new leading axis."
        )
    return list(zip(*(arrays[name] for name in names), strict=True))


def preparation(
    model: str | None, specs: Sequence[TensorSpec]
) -> Callable[[np.ndarray], Frame]:
    """Returns what makes a request of one photograph.

    Args:
      model: see `open_frames`.
      specs: ``manifest.inputs``: one batch of one image.

    Raises:
      InputError: the split takes something else, or the model is not known.
    """
    shape = specs[0].shape
    if len(specs) != 1 or len(shape) != 4 or (shape[0], shape[3]) != (1, 3):
        raise InputError(
            f"The split takes {[spec.shape for spec in specs]}; photographs go into one input of "
            "the shape (1, height, width, 3). Give an npz file of ready inputs."
        )
    size = (shape[1], shape[2])
    # Here, because a device that runs npz files needs no Flax.
    from autosplit.models.preprocessing import TORCHVISION, image_input

    form = TORCHVISION if model is None else image_input(model)
    resize = size[0] * form.resize_pixels / form.crop_pixels
    if not form.letterbox and size[0] != size[1]:
        raise InputError(
            f"The split takes images of {size} pixels, and centres are cut out square. Give an "
            "npz file of ready inputs, or the --model that fits whole photographs in."
        )

    def prepare(image: np.ndarray) -> Frame:
        if form.letterbox:
            fitted = letterbox(image, size)
        else:
            fitted = resize_and_crop(PIL.Image.fromarray(image), round(resize), size[0])
        return (form.normalize(fitted)[None].astype(specs[0].dtype),)

    return prepare


def _video(source: str | int, shown: str) -> Iterator[np.ndarray]:
    """Yields u8[height, width, 3], red first, until the video ends."""
    import cv2

    capture = cv2.VideoCapture(source)
    try:
        read, image = capture.read()
        if not read:
            raise InputError(
                f"No picture can be read from {shown}; expected a video that OpenCV decodes, or a "
                "camera that is there and free."
            )
        while read:
            yield np.ascontiguousarray(image[..., ::-1])
            read, image = capture.read()
    finally:
        capture.release()


def _is_picture(path: pathlib.Path) -> bool:
    return _suffix(path) in (*SUFFIXES, *VIDEO_SUFFIXES)


def _suffix(path: pathlib.Path) -> str:
    return path.suffix.lower()

