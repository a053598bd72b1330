"""Where the demonstration's frames come from: a clip of pans and zooms, or a camera."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image

from autosplit.errors import InputError

FRAME_WIDTH, FRAME_HEIGHT = 640, 480
"""Of what is shown; the network's input is made of it."""


class FrameSource(Protocol):
    """Gives the frame of a moment, as a camera would: whoever is slow misses some."""

    def frame_at(self, elapsed_s: float) -> tuple[int, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a photograph with the frame's shape, relative to the photograph.

    Attributes:
      x, y: of the centre, 0 (left, top) to 1; moved inwards where the window would leave
        the photograph.
      width: 1 is the widest window that fits.
    """

    x: float
    y: float
    width: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """A steady movement over one photograph."""

    photograph: int
    start: Window
    end: Window


MOVES = (
    Move(photograph=0, start=Window(x=0.5, y=0.65, width=1.0), end=Window(x=0.3, y=0.6, width=0.7)),
    Move(photograph=1, start=Window(x=0.75, y=0.5, width=0.8), end=Window(x=0.3, y=0.5, width=0.8)),
    Move(photograph=0, start=Window(x=0.2, y=0.6, width=0.7), end=Window(x=0.85, y=0.6, width=0.7)),
    Move(photograph=1, start=Window(x=0.5, y=0.5, width=0.6), end=Window(x=0.6, y=0.5, width=1.0)),
)
"""Over the street with the bus and its persons, and the two men at the side line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A short film made from photographs, repeated for ever.

    Attributes:
      photographs: that the moves refer to.
      moves: one after the other.
      frames_per_s: of the film.
      move_s: duration of each move.
    """

    photographs: Sequence[PIL.Image.Image]
    moves: Sequence[Move] = MOVES
    frames_per_s: float = 12.0
    move_s: float = 5.0

    def __post_init__(self) -> None:
        wanted = {move.photograph for move in self.moves}
        if not wanted or not wanted <= set(range(len(self.photographs))):
            raise InputError(
                f"The moves go over the photographs {sorted(wanted)}; expected some of the "
                f"{len(self.photographs)} that there are. Give as many as the moves name."
            )
        if not (self.frames_per_s > 0 and self.move_s * self.frames_per_s >= 2):
            raise InputError(
                f"The clip has {self.frames_per_s} frames/s and moves of {self.move_s} s; expected "
                "at least two frames for each move."
            )

    def __len__(self) -> int:
        return self._move_frames * len(self.moves)

    @property
    def _move_frames(self) -> int:
        return int(self.frames_per_s * self.move_s)

    def frame(self, index: int) -> np.ndarray:
        """Renders a frame, u8[480, 640, 3]; after the last comes the first again."""
        number, step = divmod(index % len(self), self._move_frames)
        move = self.moves[number]
        image = self.photographs[move.photograph]
        # Starts and stops gently.
        share = (1 - math.cos(math.pi * step / (self._move_frames - 1))) / 2
        return render(image, _between(move.start, move.end, share))

    def frame_at(self, elapsed_s: float) -> tuple[int, np.ndarray]:
        """Returns the number and the picture of the frame at a time since the start."""
        index = int(elapsed_s * self.frames_per_s)
        return index, self.frame(index)


def render(image: PIL.Image.Image, window: Window) -> np.ndarray:
    """Cuts a window out of a photograph and scales it to the frame, u8[480, 640, 3].

    >>> black = PIL.Image.new("RGB", (64, 64))
    >>> render(black, Window(x=0.0, y=0.5, width=0.5)).shape
    (480, 640, 3)
    """
    widest = min(image.width, image.height * FRAME_WIDTH / FRAME_HEIGHT)
    width = widest * window.width
    height = width * FRAME_HEIGHT / FRAME_WIDTH
    left = min(max(window.x * image.width - width / 2, 0.0), image.width - width)
    top = min(max(window.y * image.height - height / 2, 0.0), image.height - height)
    box = (left, top, left + width, top + height)
    size = (FRAME_WIDTH, FRAME_HEIGHT)
    return np.asarray(image.resize(size, PIL.Image.Resampling.BILINEAR, box=box))


def network_input(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales a frame to u8[height, width, 3], its middle where the shapes differ."""
    return np.asarray(_middle(PIL.Image.fromarray(frame), height, width))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera of this machine, through OpenCV."""

    capture: Any
    number: int

    def frame_at(self, elapsed_s: float) -> tuple[int, np.ndarray]:
        """Returns the newest picture; the number counts milliseconds.

        Raises:
          InputError: the camera gives no more pictures.
        """
        found, picture = self.capture.read()
        if not found:
            raise InputError(
                f"Camera {self.number} gives no picture; expected one. Is it in use elsewhere?"
            )
        image = PIL.Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))  # blue comes first
        return int(elapsed_s * 1000), np.asarray(_middle(image, FRAME_HEIGHT, FRAME_WIDTH))


def open_camera(number: int) -> Camera:
    """Opens a camera.

    Raises:
      InputError: OpenCV is not installed, or there is no such camera.
    """
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "A camera needs OpenCV, which is not installed. Run `pip install "
            "opencv-python-headless`, or leave --camera out to see the clip."
        ) from error
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise InputError(
            f"There is no camera {number}; expected the number of one that is connected and free. "
            "Leave --camera out to see the clip."
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else old pictures queue up
    return Camera(capture=capture, number=number)


def _between(start: Window, end: Window, share: float) -> Window:
    return Window(
        x=start.x + (end.x - start.x) * share,
        y=start.y + (end.y - start.y) * share,
        width=start.width + (end.width - start.width) * share,
    )


def _middle(image: PIL.Image.Image, height: int, width: int) -> PIL.Image.Image:
    """Scales the largest middle part of that shape."""
    widest = min(image.width, image.height * width / height)
    tallest = widest * height / width
    left, top = (image.width - widest) / 2, (image.height - tallest) / 2
    box = (left, top, left + widest, top + tallest)
    return image.resize((width, height), PIL.Image.Resampling.BILINEAR, box=box)
