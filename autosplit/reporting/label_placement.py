"""Places labels of points so that they cover neither each other nor other points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from autosplit.reporting.canvas import settle_layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

POINT_RADIUS = 10.0
"""Radius in points about a point that stays free of labels."""

_LINE = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4}

# Where a label may lie about its point, nearest first: (dx, dy) of its anchor in points
# and its alignment.
_DISTANCES = (12, 20, 30, 42, 58, 76)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_ALIGNMENT: dict[int, Literal["right", "center", "left"]] = {-1: "right", 0: "center", 1: "left"}
_VERTICAL: dict[int, Literal["top", "center", "bottom"]] = {-1: "top", 0: "center", 1: "bottom"}


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    obstacles: Sequence[tuple[float, float]] = (),
) -> list[Bbox]:
    """Writes a label beside each point, with a thin line where it is not next to it.

    Greedy: each label in turn takes the nearest of 48 places that is free and inside
    the axes; where none is, the place that overlaps least. Call it last: the
    places depend on the limits of the axes.

    Args:
      axes: with its final limits.
      points: in data coordinates, one per label.
      labels: texts.
      obstacles: other points that should stay visible, in data coordinates.

    Returns:
      The extent of each label in pixels, in the order given.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    settle_layout(figure)
    pixels = axes.transData.transform([*points, *obstacles])
    radius = POINT_RADIUS * figure.dpi / 72
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]
    placed: list[Bbox] = []
    for point, label in zip(points, labels, strict=True):
        box = _write_label(axes, point, label, [*taken, *placed])
        placed.append(box)
    return placed


def _write_label(axes: Axes, point: tuple[float, float], label: str, taken: list[Bbox]) -> Bbox:
    offsets = [(d * dx, d * dy) for d in _DISTANCES for dx, dy in _DIRECTIONS]
    best, best_box, least = offsets[0], None, float("inf")
    for offset in offsets:
        trial = _annotate(axes, point, label, offset)
        box = trial.get_window_extent().padded(2)
        trial.remove()
        cost = _overlap(box, taken) + _outside(box, axes.get_window_extent())
        if cost < least:
            best, best_box, least = offset, box, cost
        if cost == 0:
            break
    far = max(map(abs, best)) > _DISTANCES[0]
    _annotate(axes, point, label, best, arrowprops=_LINE if far else None)
    assert best_box is not None
    return best_box


def _annotate(
    axes: Axes, point: tuple[float, float], label: str, offset: tuple[float, float], **line: Any
) -> Text:
    return axes.annotate(
        label, point, xytext=offset, textcoords="offset points", fontsize=8.5, zorder=6,
        ha=_ALIGNMENT[_sign(offset[0])], va=_VERTICAL[_sign(offset[1])], **line,
    )


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _overlap(box: Bbox, taken: Sequence[Bbox]) -> float:
    """Returns the area in pixels that a box shares with others."""
    shared = [box.intersection(box, other) for other in taken]
    return sum(part.width * part.height for part in shared if part is not None)


def _outside(box: Bbox, frame: Bbox) -> float:
    """Returns the area in pixels by which a box leaves its frame."""
    inside = box.intersection(box, frame)
    return box.width * box.height - (inside.width * inside.height if inside is not None else 0.0)
