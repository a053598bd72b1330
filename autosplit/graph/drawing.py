"""Draws a graph as SVG, with the cut and what crosses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from autosplit.graph import cuts
from autosplit.graph.arrangement import Arrangement, arrange
from autosplit.graph.summary import shape_text, shorten
from autosplit.graph.wiring import BOX_HEIGHT, BOX_WIDTH, COLUMN_OVER_ROW, LABEL_HEIGHT, Page, wire

if TYPE_CHECKING:
    from autosplit.graph.layers import LayerGraph

# Fill and border by kind of layer.
_COLOURS = {
    "conv": ("#cfe2f7", "#3572b0"),
    "matmul": ("#d9d5f5", "#5b4bb5"),
    "add": ("#fbe3b4", "#b27a00"),
    "concat": ("#fbd5be", "#c05a1c"),
    "pool": ("#c8ebe3", "#1f8a70"),
    "resize": ("#c5ecf4", "#15809a"),
    "reduce": ("#dff0c6", "#5f8f1d"),
    "elementwise": ("#f6d3e3", "#b03a72"),
    "reshape": ("#e6e6e6", "#707070"),
    "gather": ("#ead6f3", "#8a3fb0"),
    "scatter": ("#f3d0d0", "#b33a3a"),
    "sort": ("#f7c9c2", "#c0392b"),
    "loop": ("#e5d6c7", "#80552b"),
    "input": ("#ffffff", "#333333"),
    "output": ("#ffffff", "#333333"),
}
_PARTS = {"edge": ("#fff6e3", "#b06f00"), "cloud": ("#e9f2fb", "#1c5f9e")}
_CUT = "#c8102e"
_MARGIN, _LINE, _LEGEND_ITEM = 24.0, 20.0, 98.0
_STYLE = (
    "text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px;fill:#222}"
    ".name{font-weight:bold;font-size:12px}.bits{font-weight:bold;text-anchor:end}"
    ".head{font-weight:bold;font-size:15px}.part{font-weight:bold;font-size:17px}"
    ".wire{fill:none;stroke:#7a7a7a;stroke-width:1.4}"
    f".sent{{fill:none;stroke:{_CUT};stroke-width:4}}.label{{fill:{_CUT};font-weight:bold}}"
    f".cut{{fill:none;stroke:{_CUT};stroke-width:2;stroke-dasharray:9 5}}"
)


def draw_svg(graph: LayerGraph, on_edge: Sequence[bool], bits: Mapping[int, str]) -> str:
    """Draws the layers of a graph, with a cut if one is given.

    Args:
      graph: L layers.
      on_edge: a flag per layer; empty to draw no cut.
      bits: layer index -> text for its box, such as ``"w4 a8"``.

    Returns:
      A self-contained SVG document. Every box, wire and label has a title for
      screen readers and pointers.

    Raises:
      CutError: ``on_edge`` is not closed under predecessors, or has a wrong length.

    >>> import jax.numpy as jnp
    >>> from autosplit.graph import trace
    >>> graph = trace(lambda w, x: x @ w @ w, jnp.ones((3, 3)), jnp.ones((2, 3)))
    >>> svg = draw_svg(graph, (True, False), {0: "w4 a8"})
    >>> svg.count("<svg"), "w4 a8" in svg
    (1, True)
    """
    cut = cuts.make_cut(graph, tuple(on_edge)) if len(on_edge) else None
    plan = arrange(graph, on_edge, COLUMN_OVER_ROW)
    heading = _heading(graph, cut)
    page = wire(plan, top=_LINE * len(heading) + 8)
    width = max(page.right, 5 * _LEGEND_ITEM)
    legend, bottom = _legend(graph, page.bottom, width, cut is not None)
    body = [
        *_tints(page, cut),
        *_wires(graph, plan, page),
        *_boundary(page),
        *_boxes(graph, page, bits),
        *_labels(graph, page),
        *(f'<text class="head" y="{_LINE * (i + 0.7):.1f}">{escape(shorten(line, int(width / 10)))}'
          "</text>" for i, line in enumerate(heading)),
        *legend,
    ]  # fmt: skip
    return _document(body, heading, width, bottom)


def _document(body: Sequence[str], heading: Sequence[str], width: float, bottom: float) -> str:
    width, height = width + 2 * _MARGIN, bottom + 2 * _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
            f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
            f"<title>{escape(heading[0])}</title>",
            f"<desc>{escape('. '.join(heading))}</desc>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="6" refY="3" '
            'orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0L7 3L0 6z" fill="#7a7a7a"/>'
            "</marker></defs>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<g transform="translate({_MARGIN:.0f} {_MARGIN:.0f})">',
            *body,
            "</g>",
            "</svg>",
        ]
    )


def _heading(graph: LayerGraph, cut: cuts.Cut | None) -> list[str]:
    macs = sum(layer.macs for layer in graph.layers)
    weights = sum(layer.weight_elements for layer in graph.layers)
    count = len(graph.layers)
    lines = [f"{count} layers, {_count(macs)} MACs, {_count(weights)} weights"]
    if cut:
        elements = sum(graph.tensors[t].size for t in cut.crossing)
        number = len(cut.crossing)
        sent = f"sends {number} tensor{'s' * (number != 1)}, {elements:,} elements"
        lines.append(f"Cut {cut.name}: {sent}")
    return lines


def _tints(page: Page, cut: cuts.Cut | None) -> Iterable[str]:
    """Yields the tinted backgrounds of edge and cloud, with their names."""
    if cut is None:
        return
    for part, boxes in (("edge", page.edge), ("cloud", page.cloud)):
        fill, text = _PARTS[part]
        for left, top, right, bottom in boxes:
            yield (f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                   f'height="{bottom - top:.1f}" fill="{fill}"/>')  # fmt: skip
        if boxes:
            first, last = boxes[0], boxes[-1]
            x, y, anchor = first[0] + 8, min(b[1] for b in boxes) + 18, "start"
            if part == "cloud":
                x, y, anchor = last[2] - 8, last[3] - 8, "end"
            yield (f'<text class="part" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
                   f'style="fill:{text}">{part}</text>')  # fmt: skip


def _wires(graph: LayerGraph, plan: Arrangement, page: Page) -> Iterable[str]:
    """Yields the tensors; those that cross the cut bold and on top."""
    drawn = []
    for item, path in zip(plan.wires, page.paths, strict=True):
        tensor = graph.tensors[item.tensor]
        crosses = plan.crosses(item)
        look = 'class="sent"' if crosses else 'class="wire" marker-end="url(#arrow)"'
        title = f"{tensor.name}, {shape_text(tensor.shape, '×')}{', sent' * crosses}"
        drawn.append((crosses, f'<path {look} d="{path}"><title>{escape(title)}</title></path>'))
    return [text for _, text in sorted(drawn, key=lambda pair: pair[0])]


def _boundary(page: Page) -> Iterable[str]:
    if page.boundary:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in page.boundary)
        yield f'<polyline class="cut" points="{points}"><title>cut</title></polyline>'


def _boxes(graph: LayerGraph, page: Page, bits: Mapping[int, str]) -> Iterable[str]:
    """Yields layers, inputs and outputs."""
    layers, inputs = len(graph.layers), len(graph.inputs)
    for vertex, (x, y) in enumerate(page.corners):
        if vertex < layers:
            layer = graph.layers[vertex]
            shapes = ", ".join(shape_text(graph.tensors[t].shape, "×") for t in layer.outputs)
            yield _box(x, y, layer.kind, layer.name, shapes,
                       f"{_count(layer.macs)} MACs", bits.get(vertex, ""), layer.name)  # fmt: skip
        elif vertex < layers + inputs:
            tensor = graph.tensors[graph.inputs[vertex - layers]]
            yield _box(x, y, "input", tensor.name, shape_text(tensor.shape, "×"), "", "", "")
        else:
            yield _output(graph, vertex - layers - inputs, x, y)


def _output(graph: LayerGraph, number: int, x: float, y: float) -> str:
    value = graph.outputs[number]
    shape = "of parameters alone" if value is None else shape_text(graph.tensors[value].shape, "×")
    return _box(x, y, "output", f"output.{number}" if number else "output", shape, "", "", "")


def _box(
    x: float, y: float, kind: str, name: str, shapes: str, macs: str, bits: str, full_name: str
) -> str:
    fill, border = _COLOURS.get(kind, _COLOURS["reshape"])
    title = ", ".join(part for part in (full_name or name, kind, shapes, macs, bits) if part)
    # Inputs and outputs are pills with two lines, layers are boxes with three.
    pill = kind in ("input", "output")
    radius, left, first = (BOX_HEIGHT / 2, 20, 24) if pill else (6, 9, 17)
    described = shapes if pill else f"{kind} · {shapes}"
    return (
        f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(title)}</title>'
        f'<rect width="{BOX_WIDTH:.0f}" height="{BOX_HEIGHT:.0f}" rx="{radius:.0f}" '
        f'fill="{fill}" stroke="{border}" stroke-width="1.3"/>'
        f'<text class="name" x="{left}" y="{first}">{escape(shorten(name, 26))}</text>'
        f'<text x="{left}" y="{first + 15}">{escape(shorten(described, 32))}</text>'
        f'<text x="{left}" y="{first + 30}">{escape(macs)}</text>'
        f'<text class="bits" x="{BOX_WIDTH - 9:.0f}" y="{first + 30}">{escape(shorten(bits, 16))}'
        "</text></g>"
    )


def _labels(graph: LayerGraph, page: Page) -> Iterable[str]:
    """Yields the size of each tensor that crosses, on white."""
    for index, (x, y) in page.labels.items():
        tensor = graph.tensors[index]
        text = f"{tensor.size:,} elements"
        yield (
            f'<g transform="translate({x + 5:.1f} {y:.1f})"><title>{escape(tensor.name)} is sent: '
            f"{shape_text(tensor.shape, '×')}, {text}</title>"
            f'<rect y="{-LABEL_HEIGHT / 2:.1f}" width="{6.9 * len(text) + 6:.1f}" '
            f'height="{LABEL_HEIGHT - 3:.1f}" rx="4" fill="#ffffff" fill-opacity="0.9"/>'
            f'<text class="label" x="4" y="3">{text}</text></g>'
        )


def _legend(graph: LayerGraph, top: float, width: float, has_cut: bool) -> tuple[list[str], float]:
    """Explains the colours in use, in as many lines as are needed; returns also its bottom."""
    kinds = [kind for kind in _COLOURS if any(layer.kind == kind for layer in graph.layers)]
    items = [
        f'<rect width="16" height="12" rx="3" fill="{_COLOURS[kind][0]}" '
        f'stroke="{_COLOURS[kind][1]}"/><text x="22" y="10">{kind}</text>'
        for kind in kinds
    ]
    if has_cut:
        items.append('<path class="sent" d="M0 6L18 6"/><text x="24" y="10">sent</text>')
        items.append('<path class="cut" d="M0 6L20 6"/><text x="24" y="10">cut</text>')
    across = max(1, int(width // _LEGEND_ITEM))
    placed = [
        f'<g transform="translate({index % across * _LEGEND_ITEM:.0f} '
        f'{top + _LINE * (0.7 + index // across):.1f})">{item}</g>'
        for index, item in enumerate(items)
    ]
    return placed, top + _LINE * (0.7 + -(-len(items) // across))


def _count(number: int) -> str:
    """Writes 300774272 as ``300.8 M``.

    >>> _count(300774272), _count(999)
    ('300.8 M', '999')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return str(number)
