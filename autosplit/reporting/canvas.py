"""The common look of the plots, and how a figure becomes a file or part of a page."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autosplit.errors import InputError
from autosplit.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2a37"
"""Colour of text and lines; on a page it becomes the colour of the page's text."""

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "svg.hashsalt": "autosplit",  # the same plot gives the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Sets the look of every figure that is made or saved within."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """Makes a figure that no window and no global state knows of.

    Args:
      width, height: in inches.
      **subplots: as for ``Figure.subplots``.

    Returns:
      The figure and its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def settle_layout(figure: Figure) -> None:
    """Arranges a figure and keeps it so: drawn again it does not move by a hair."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def mute_spines(axes: Axes, *sides: str) -> None:
    """Hides sides of the frame that carry no information."""
    for side in sides:
        axes.spines[side].set_visible(False)


def figure_bytes(figure: Figure, kind: str, transparent: bool = False) -> bytes:
    """Renders a figure.

    Args:
      figure: from one of the plotting functions.
      kind: ``png`` (160 dots an inch) or ``svg``.
      transparent: without a white background.

    Raises:
      InputError: another kind.
    """
    if kind not in ("png", "svg"):
        raise InputError(f"Plots are written as png or svg, not {kind!r}.")
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with style():
        figure.savefig(buffer, format=kind, dpi=160, transparent=transparent, metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a ``.png`` or ``.svg`` file that is whole or absent."""
    write_bytes(path, figure_bytes(figure, pathlib.Path(path).suffix.lstrip(".")))


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Renders a figure as SVG to put into a page.

    Its identifiers start with ``name``, so that plots do not meet on one page; dark
    ink takes the page's text colour; size follows the page. Nothing in it points
    outside: namespaces, which look like links, are not needed within HTML.

    Args:
      figure: from one of the plotting functions.
      name: of the plot, letters only.
      description: what it shows, for those who cannot see it.
    """
    root = ElementTree.fromstring(figure_bytes(figure, "svg", transparent=True))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _prefix_ids(_local(key), value, name)
            for key, value in element.attrib.items()
        }
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in ("metadata", "style")]:
            parent.remove(child)
    view_box = root.attrib["viewBox"]
    # The removed style sheet set these two for every element; it would for the whole page.
    root.attrib = {"viewBox": view_box, "role": "img", "aria-label": description,
                   "stroke-linejoin": "round", "stroke-linecap": "butt", "class": "plot"}
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(re.escape(INK), "currentColor", text, flags=re.IGNORECASE)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _prefix_ids(attribute: str, value: str, name: str) -> str:
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == "href":
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")
