"""Turns an arrangement into coordinates: boxes, wire paths and the line of the cut.

All lengths are SVG user units (pixels at scale 1), y points down.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from autosplit.graph.arrangement import Arrangement, Wire

BOX_WIDTH, BOX_HEIGHT = 218.0, 54.0
LABEL_HEIGHT = 20.0
_ROW_GAP, _TRACK, _PAD = 26.0, 11.0, 16.0
COLUMN_OVER_ROW = (BOX_WIDTH + 3 * _PAD) / (BOX_HEIGHT + _ROW_GAP)

Point = tuple[float, float]
Box = tuple[float, float, float, float]
_Key = tuple[str, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """Coordinates of everything.

    Attributes:
      corners: left top corner of the box of each vertex.
      paths: SVG path of each wire.
      labels: tensor index -> where the label of a tensor that crosses the cut is anchored.
      edge, cloud: rectangles (left, top, right, bottom) that tint the parts.
      boundary: corners of the line between them; empty where nothing is cut.
      right, bottom: extent of the drawing.
    """

    corners: tuple[Point, ...]
    paths: tuple[str, ...]
    labels: Mapping[int, Point]
    edge: tuple[Box, ...]
    cloud: tuple[Box, ...]
    boundary: tuple[Point, ...]
    right: float
    bottom: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tracks:
    """Which parallel track each tensor takes, beside lanes, columns and above the page.

    Keys: ``("lane", column, lane)`` left of a lane, ``("column", column, 0)`` right of a
    column, ``("top", 0, 0)`` above all. Tracks count away from the boxes.
    """

    number: Mapping[tuple[_Key, int], int]
    width: Mapping[_Key, int]


def wire(plan: Arrangement, top: float) -> Page:
    """Computes coordinates.

    Args:
      plan: the arrangement.
      top: y below which may be drawn.

    Returns:
      The page; its left side is at 0.
    """
    return _Geometry(plan, top).page()


class _Geometry:
    """Coordinates of one arrangement."""

    def __init__(self, plan: Arrangement, top: float):
        self.plan = plan
        self.occupied = {(row, lane) for row, lane in zip(plan.rows, plan.lanes, strict=True)}
        self.column = [plan.column(row) for row in range(1 + max(plan.rows))]
        self.crossing = [w for w in plan.wires if plan.crosses(w)]
        self.tracks = self.assign_tracks()
        self.roof = top + _PAD
        self.top = self.roof + _TRACK * self.tracks.width.get(("top", 0, 0), 0) + _PAD
        self.row_y = self.place_rows()
        self.lane_x, self.left, self.right = self.place_lanes()
        self.bottom = max(self.row_y) + BOX_HEIGHT + 2 * _PAD

    def row(self, vertex: int) -> int:
        return self.plan.rows[vertex]

    def wraps(self, wire: Wire) -> bool:
        return self.column[self.row(wire.source)] != self.column[self.row(wire.target)]

    def free_lane(self, wire: Wire) -> int | None:
        """Returns a lane of source or target that is empty between them, if any is."""
        between = range(self.row(wire.source) + 1, self.row(wire.target))
        for lane in (self.plan.lanes[wire.source], self.plan.lanes[wire.target]):
            if not any((row, lane) in self.occupied for row in between):
                return lane
        return None

    def track_spans(self, wire: Wire) -> Iterable[tuple[_Key, int, int]]:
        """Yields the tracks that a wire needs: key, start and end along it."""
        start, stop = self.row(wire.source), self.row(wire.target)
        lane = self.plan.lanes[wire.target]
        column, last = self.column[start], self.column[stop]
        if not self.wraps(wire):
            if self.free_lane(wire) is None:
                yield ("lane", column, max(lane, self.plan.lanes[wire.source])), start, stop
            return
        yield ("column", column, 0), self.plan.columns[column][0] - 1, start
        yield ("top", 0, 0), column, last
        if stop > self.plan.columns[last][0]:
            yield ("lane", last, lane), self.plan.columns[last][0] - 1, stop

    def assign_tracks(self) -> _Tracks:
        """Gives each tensor the innermost track that no other one uses on the way."""
        spans: dict[_Key, dict[int, tuple[int, int]]] = defaultdict(dict)
        for wire in self.plan.wires:
            for key, start, stop in self.track_spans(wire):
                known = spans[key].get(wire.tensor, (start, stop))
                spans[key][wire.tensor] = (min(known[0], start), max(known[1], stop))
        number, width = {}, {}
        for key, tensors in spans.items():
            used: list[list[tuple[int, int]]] = []
            for tensor, (start, stop) in sorted(tensors.items(), key=lambda t: t[1][1] - t[1][0]):
                free = (i for i, u in enumerate(used) if all(stop <= a or b <= start for a, b in u))
                track = next(free, len(used))
                if track == len(used):
                    used.append([])
                used[track].append((start, stop))
                number[key, tensor] = track
            width[key] = len(used)
        return _Tracks(number=number, width=width)

    def place_rows(self) -> list[float]:
        """Returns the top of each row; labels make room for themselves below the last edge row."""
        inside = {w.tensor for w in self.crossing if not self.wraps(w)}
        places: list[float] = []
        for row, column in enumerate(self.column):
            first = row == self.plan.columns[column][0]
            y = self.top if first else places[-1] + BOX_HEIGHT + _ROW_GAP
            if not first and row - 1 == self.plan.last_edge_row:
                y += LABEL_HEIGHT * len(inside) + _ROW_GAP
            places.append(y)
        return places

    def place_lanes(self) -> tuple[dict[tuple[int, int], float], list[float], list[float]]:
        """Returns the left of each lane, and left and right of each column's boxes."""
        lane_x: dict[tuple[int, int], float] = {}
        left, right, x = [], [], 0.0
        for column, (start, stop) in enumerate(self.plan.columns):
            left.append(x)
            inside = [n for n, r in zip(self.plan.lanes, self.plan.rows, strict=True)
                      if start <= r < stop]  # fmt: skip
            for lane in range(1 + max(inside, default=0)):
                x += 2 * _PAD + _TRACK * self.tracks.width.get(("lane", column, lane), 0)
                lane_x[column, lane] = x
                x += BOX_WIDTH
            right.append(x + _PAD / 2)
            x += 2 * _PAD + _TRACK * self.tracks.width.get(("column", column, 0), 0)
        return lane_x, left, [*right, x]

    def corner(self, vertex: int) -> Point:
        row = self.row(vertex)
        return self.lane_x[self.column[row], self.plan.lanes[vertex]], self.row_y[row]

    def track_x(self, key: _Key, tensor: int) -> float:
        """Returns the x of a tensor's track beside a lane or a column."""
        offset = _PAD + _TRACK * self.tracks.number[key, tensor]
        if key[0] == "lane":
            return self.lane_x[key[1], key[2]] - offset
        return self.right[key[1]] + offset - _PAD / 2

    def path(self, wire: Wire) -> tuple[str, Point]:
        """Returns the path of a wire, and where its label would be anchored."""
        if self.wraps(wire):
            return self.wrapped_path(wire)
        (x0, y0), (x1, y1) = self.corner(wire.source), self.corner(wire.target)
        source_row, target_row = self.row(wire.source), self.row(wire.target)
        column, lane = self.column[source_row], self.free_lane(wire)
        if lane is not None:
            x = self.lane_x[column, lane] + BOX_WIDTH / 2
            points = [(x0 + BOX_WIDTH / 2, y0 + BOX_HEIGHT), (x1 + BOX_WIDTH / 2, y1)]
            if target_row > source_row + 1:
                low = self.row_y[target_row - 1] + BOX_HEIGHT
                points[1:1] = [(x, self.row_y[source_row + 1]), (x, low)]
            if source_row == self.plan.last_edge_row:
                # Straight down past the labels, aside below the cut.
                points[1:1] = [(points[0][0], self.cut_y)]
                x = points[0][0]
            return _curve(points), (x, self.cut_y)
        key = ("lane", column, max(self.plan.lanes[wire.source], self.plan.lanes[wire.target]))
        x = self.track_x(key, wire.tensor)
        start = x0 if x < x0 else x0 + BOX_WIDTH
        stop = x1 if x < x1 else x1 + BOX_WIDTH
        # Leaving below and entering above the middle keeps chained residuals apart.
        y0, y1 = y0 + BOX_HEIGHT * 0.65, y1 + BOX_HEIGHT * 0.35
        return _rounded([(start, y0), (x, y0), (x, y1), (stop, y1)]), (x, self.cut_y)

    def wrapped_path(self, wire: Wire) -> tuple[str, Point]:
        """Leads a wire over the top of the page to a later column."""
        (x0, y0), (x1, y1) = self.corner(wire.source), self.corner(wire.target)
        column, last = self.column[self.row(wire.source)], self.column[self.row(wire.target)]
        gutter = self.track_x(("column", column, 0), wire.tensor)
        roof = self.top - _PAD - _TRACK * self.tracks.number[("top", 0, 0), wire.tensor]
        low, middle = y0 + BOX_HEIGHT + 10, x0 + BOX_WIDTH / 2
        points = [(middle, y0 + BOX_HEIGHT), (middle, low), (gutter, low), (gutter, roof)]
        if self.row(wire.target) == self.plan.columns[last][0]:
            points += [(x1 + BOX_WIDTH / 2, roof), (x1 + BOX_WIDTH / 2, y1)]
        else:
            x = self.track_x(("lane", last, self.plan.lanes[wire.target]), wire.tensor)
            y = y1 + BOX_HEIGHT * 0.35
            points += [(x, roof), (x, y), (x1, y)]
        return _rounded(points), (middle + 20, low)

    @property
    def cut_y(self) -> float:
        """Where the cut runs below the last edge row (0 where nothing is cut)."""
        last = self.plan.last_edge_row
        return 0.0 if last is None else self.row_y[last + 1] - _ROW_GAP - 8

    def page(self) -> Page:
        drawn = [self.path(wire) for wire in self.plan.wires]
        edge, cloud, boundary = self.parts()
        return Page(
            corners=tuple(self.corner(v) for v in range(len(self.plan.rows))),
            paths=tuple(path for path, _ in drawn),
            labels=self.place_labels([anchor for _, anchor in drawn]),
            edge=edge, cloud=cloud, boundary=boundary, right=self.right[-1], bottom=self.bottom,
        )  # fmt: skip

    def place_labels(self, anchors: Sequence[Point]) -> dict[int, Point]:
        """Stacks the labels of crossing tensors above the cut, each at its wire."""
        wires = zip(self.plan.wires, anchors, strict=True)
        crossing = sorted((self.wraps(w), w.tensor, at) for w, at in wires if self.plan.crosses(w))
        labels: dict[int, Point] = {}
        for wraps, tensor, (x, y) in crossing:
            if tensor not in labels:
                labels[tensor] = (x, y if wraps else y - LABEL_HEIGHT * (len(labels) + 0.7))
        return labels

    def parts(self) -> tuple[tuple[Box, ...], tuple[Box, ...], tuple[Point, ...]]:
        """Returns the rectangles of edge and cloud and the line between them."""
        roof, floor, right = self.roof - _PAD, self.bottom, self.right[-1]
        last = self.plan.last_edge_row
        if last is None:
            return ((0.0, roof, right, floor),), (), ()
        column, y = self.column[last], self.cut_y
        left, wall = self.left[column], self.right[column]
        if column == len(self.plan.columns) - 1:
            wall = right
        edge: tuple[Box, ...] = ((0.0, roof, left, floor), (left, roof, wall, y))
        cloud: tuple[Box, ...] = ((left, y, wall, floor), (wall, roof, right, floor))
        line = [(left, floor)] * (left > 0) + [(left, y), (wall, y)]
        line += [(wall, roof)] * (wall < right)
        return (
            tuple(b for b in edge if b[0] < b[2]), tuple(b for b in cloud if b[0] < b[2]),
            tuple(line),
        )  # fmt: skip


def _curve(points: Sequence[Point]) -> str:
    """Draws S-shaped steps down through the points, straight where they are in one line."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        y = (y0 + y1) / 2
        bend = f"C{x0:.1f} {y:.1f} {x1:.1f} {y:.1f} {x1:.1f} {y1:.1f}"
        path += f"L{x1:.1f} {y1:.1f}" if x0 == x1 else bend
    return path


def _rounded(points: Sequence[Point], radius: float = 9.0) -> str:
    """Draws a line through the points with rounded corners."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        path += "".join(
            f"{command}{a:.1f} {b:.1f}"
            for command, (a, b) in (
                ("L", _towards((x, y), before, radius)),
                (f"Q{x:.1f} {y:.1f} ", _towards((x, y), after, radius)),
            )
        )
    return f"{path}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _towards(start: Point, end: Point, distance: float) -> Point:
    """Returns the point that lies ``distance``, at most half way, from start to end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = abs(dx) + abs(dy)
    share = min(0.5, distance / length) if length else 0.0
    return start[0] + dx * share, start[1] + dy * share
