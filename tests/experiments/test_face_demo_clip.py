"""The demonstration's clip and its camera."""

import sys
import types

import numpy as np
import PIL.Image
import pytest

from autosplit.errors import InputError
from experiments.face_demo_clip import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    Clip,
    Move,
    Window,
    network_input,
    open_camera,
    render,
)


def ramp(width, height):
    """A picture whose red grows to the right and whose green grows downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / width, 255 * rows / height
    return PIL.Image.fromarray(np.stack([red, green, 0 * red], axis=-1).astype(np.uint8))


@pytest.fixture
def clip():
    left, right = (Window(x=x, y=0.5, width=0.5) for x in (0.2, 0.8))
    wide, narrow = (Window(x=0.5, y=0.5, width=width) for width in (1.0, 0.4))
    moves = (Move(photograph=0, start=left, end=right), Move(photograph=1, start=wide, end=narrow))
    photographs = [ramp(320, 200), ramp(150, 300)]
    return Clip(photographs=photographs, moves=moves, frames_per_s=4.0, move_s=2.0)


def test_it_pans_to_the_right_then_zooms_in(clip):
    frames = [clip.frame(index).astype(float) for index in range(len(clip))]
    assert {frame.shape for frame in frames} == {(FRAME_HEIGHT, FRAME_WIDTH, 3)}
    red = [frame[..., 0].mean() for frame in frames[:8]]
    assert red == sorted(red)
    assert red[-1] > red[0] + 50
    spread = [np.ptp(frame[..., 0]) for frame in frames[8:]]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 2 * spread[-1]


def test_it_begins_anew_and_is_the_same_each_time(clip):
    np.testing.assert_array_equal(clip.frame(3), clip.frame(3 + len(clip)))


def test_a_slow_viewer_misses_frames(clip):
    numbers = [clip.frame_at(elapsed_s)[0] for elapsed_s in (0.0, 0.2, 0.26, 1.6)]
    assert numbers == [0, 0, 1, 6]


@pytest.mark.parametrize("x", [-3.0, 0.0, 1.0, 7.0])
def test_a_window_stays_within_the_photograph(x):
    frame = render(PIL.Image.new("RGB", (90, 50), "white"), Window(x=x, y=x, width=0.9))
    assert frame.min() == 255


def test_the_network_sees_the_middle_of_the_frame():
    frame = np.asarray(ramp(640, 480))
    seen = network_input(frame, 192, 192)  # a square: the sides are cut off
    assert seen.shape == (192, 192, 3)
    assert abs(int(seen[96, 96, 0]) - 127) <= 2
    assert seen[..., 0].min() > 20
    assert seen[..., 1].min() < 5


@pytest.mark.parametrize("changes", [{"photographs": []}, {"moves": ()}, {"frames_per_s": 0.1}])
def test_a_clip_without_pictures_is_refused(clip, changes):
    fields = {"photographs": clip.photographs, "moves": clip.moves, **changes}
    with pytest.raises(InputError, match="expected"):
        Clip(**fields)


class Capture:
    """What OpenCV gives for a camera: blue first."""

    def __init__(self, opened=True, pictures=1):
        self.opened, self.pictures = opened, pictures

    def isOpened(self):  # noqa: N802
        return self.opened

    def set(self, *_):
        return True

    def read(self):
        self.pictures -= 1
        if self.pictures < 0:
            return False, None
        return True, np.tile(np.array([255, 0, 9], np.uint8), (90, 160, 1))


def camera_of(monkeypatch, capture):
    fake = types.SimpleNamespace(VideoCapture=lambda number: capture, CAP_PROP_BUFFERSIZE=38)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    return open_camera(0)


def test_a_camera_gives_frames_in_red_green_blue(monkeypatch):
    camera = camera_of(monkeypatch, Capture())
    number, frame = camera.frame_at(1.5)
    assert (number, frame.shape) == (1500, (FRAME_HEIGHT, FRAME_WIDTH, 3))
    assert frame[0, 0].tolist() == [9, 0, 255]
    with pytest.raises(InputError, match="no picture"):
        camera.frame_at(1.6)


def test_a_missing_camera_is_refused(monkeypatch):
    with pytest.raises(InputError, match="no camera 0"):
        camera_of(monkeypatch, Capture(opened=False))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="needs OpenCV"):
        open_camera(0)
