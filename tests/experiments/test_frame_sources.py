import importlib
import itertools

import numpy as np
import PIL.Image
import pytest

from autosplit.data import letterbox, resize_and_crop
from autosplit.errors import InputError
from autosplit.execution.manifest import TensorSpec
from autosplit.models import image_input
from experiments.frame_sources import open_frames

SPECS = (TensorSpec(name="x", shape=(1, 32, 32, 3), dtype="float32", bits=32, payload_bytes=12288),)


@pytest.fixture
def pictures(tmp_path):
    """Three smooth photographs as PNG files, and their pixels."""
    ramp = np.linspace(0, 200, 48)
    images = []
    for index in range(3):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., index] = ramp[:, None]
        image[..., (index + 1) % 3] = 60 * index
        PIL.Image.fromarray(image).save(tmp_path / f"{index}.png")
        images.append(image)
    return [tmp_path / f"{index}.png" for index in range(3)], images


def frames_of(inputs, camera=None, model=None, specs=SPECS):
    frames, is_live = open_frames([str(one) for one in inputs], camera, model, specs)
    return list(frames), is_live


def as_classifiers(image):
    crop = resize_and_crop(PIL.Image.fromarray(image), round(32 * 256 / 224), 32)
    return image_input("resnet18").normalize(crop)[None]


def test_photographs_and_their_folder_give_the_same_frames(pictures):
    paths, images = pictures
    named, is_live = frames_of(paths)
    found, _ = frames_of([paths[0].parent])
    assert not is_live
    assert len(named) == len(found) == 3
    for (one,), (other,), image in zip(named, found, images, strict=True):
        assert (one.dtype, one.shape) == (np.float32, (1, 32, 32, 3))
        np.testing.assert_array_equal(one, as_classifiers(image))
        np.testing.assert_array_equal(one, other)


def test_photographs_are_prepared_for_their_model(pictures):
    paths, images = pictures
    (frame,), = frames_of(paths[:1], model="yolov3_tiny")[0]
    fitted = letterbox(images[0], (32, 32))
    np.testing.assert_array_equal(frame[0], image_input("yolov3_tiny").normalize(fitted))


def test_npz_files_hold_ready_inputs(tmp_path):
    arrays = {"arg0": np.arange(6.0).reshape(3, 2), "arg1": np.arange(3)}
    np.savez(tmp_path / "in.npz", **arrays)
    frames, is_live = frames_of([tmp_path / "in.npz"], specs=SPECS * 2)
    assert not is_live
    assert [(first.tolist(), int(second)) for first, second in frames] == [
        ([0.0, 1.0], 0), ([2.0, 3.0], 1), ([4.0, 5.0], 2)
    ]  # fmt: skip


def test_a_video_file_gives_its_pictures(tmp_path, pictures):
    cv2 = pytest.importorskip("cv2", reason="video files need opencv-python-headless")
    _, images = pictures
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)
    )
    for image in images * 2:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    frames, is_live = frames_of([tmp_path / "clip.avi"])
    assert is_live
    assert len(frames) == 6
    for (frame,), image in zip(frames, itertools.cycle(images)):
        assert np.abs(frame - as_classifiers(image)).max() < 0.35  # JPEG; red and blue keep apart


def test_a_camera_is_read_until_it_ends_and_released(monkeypatch, pictures):
    cv2 = pytest.importorskip("cv2", reason="cameras need opencv-python-headless")
    images, opened = pictures[1], []

    class Camera:
        def __init__(self, number):
            self.number, self.left, self.released = number, list(images), False
            opened.append(self)

        def read(self):
            return (True, self.left.pop(0)[..., ::-1]) if self.left else (False, None)

        def release(self):
            self.released = True

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    frames, is_live = frames_of([], camera=2)
    assert is_live
    np.testing.assert_array_equal(frames[1][0], as_classifiers(images[1]))
    assert [(one.number, one.released) for one in opened] == [(2, True)]
    stream, _ = open_frames([], 0, None, SPECS)
    next(stream)
    del stream
    assert opened[1].released


def test_what_cannot_be_read_is_refused(tmp_path, pictures):
    pytest.importorskip("cv2", reason="video files need opencv-python-headless")
    paths, _ = pictures
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for inputs, words in (
        ([], "expected one of them"),
        ([*paths, tmp_path / "a.npz"], r"a.npz; expected photographs"),
        ([*paths, tmp_path / "broken.mp4"], r"broken.mp4; expected photographs"),
        ([tmp_path / "missing.npz"], "Give an npz file"),
        ([tmp_path / "broken.mp4"], "No picture can be read"),
    ):
        with pytest.raises(InputError, match=words):
            frames_of(inputs)
    with pytest.raises(InputError, match="expected one of them"):
        frames_of(paths, camera=0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 8), "photographs go into"), ((2, 32, 32, 3), "one input"), ((1, 32, 48, 3), "square")],
)
def test_a_split_that_takes_no_photographs_refuses_them(pictures, shape, words):
    specs = (TensorSpec(name="x", shape=shape, dtype="float32", bits=32, payload_bytes=1),)
    with pytest.raises(InputError, match=words):
        frames_of(pictures[0], specs=specs)


def test_ready_inputs_need_no_optional_library():
    source = importlib.import_module("experiments.frame_sources")
    assert not {"cv2", "autosplit.models", "image_input"} & set(vars(source))
