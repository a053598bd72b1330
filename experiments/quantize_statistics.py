"""Statistics of every weight and tensor, as a table and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autosplit.ptq.clips import collect_shapes
from autosplit.quant.clipping import METHODS, Histogram, clip_rule
from autosplit.reporting.canvas import INK, new_figure, settle_layout, style
from experiments.quantize_scores import Bench

COLOURS = {"weight": "#2B7BBA", "tensor": "#009E73"}

Row = Mapping[str, Any]


def statistics_rows(bench: Bench, bits: int) -> list[dict[str, Any]]:
    """Lists all weights and, over the calibration photographs, all tensors.

    Args:
      bench: network and photographs.
      bits: at which each clipping method says its clip.

    Returns:
      Rows of ``kind`` (``weight`` or ``tensor``), ``name``, ``elements`` (of one call), the
      extremes, their moving averages, mean, standard deviation and mean magnitude (from a
      histogram), and the clips by method.
    """
    calls = [jnp.asarray(bench.calibration[:, None])]
    shapes = collect_shapes(bench.graph, bench.weights, calls, "tensor", by_layer=False)
    weighted = list(shapes.reaches)
    rows = []
    if shapes.weights is not None:
        names = [bench.graph.layers[i].name for i in weighted]
        sizes = [bench.graph.layers[i].weight_elements for i in weighted]
        rows += _rows("weight", names, sizes, shapes.weights, bits, symmetric=True)
    if shapes.tensors is not None:
        tensors = [bench.graph.tensors[t] for t in shapes.floats]
        names, sizes = [t.name for t in tensors], [t.size for t in tensors]
        rows += _rows("tensor", names, sizes, shapes.tensors, bits, symmetric=False)
    return rows


def _rows(
    kind: str,
    names: Sequence[str],
    sizes: Sequence[int],
    shapes: Histogram,
    bits: int,
    *,
    symmetric: bool,
) -> list[dict[str, Any]]:
    clips = {
        name: jax.lax.map(lambda one, name=name: clip_rule(name)(one, jnp.int32(bits), symmetric),
                          shapes)
        for name in METHODS
    }  # fmt: skip
    rows = []
    for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], shapes)
        share, center = np.asarray(one.shares, np.float64), np.asarray(one.centers, np.float64)
        mean = float(share @ center)
        rows.append({
            "kind": kind, "name": name, "elements": size,
            "low": float(one.low), "high": float(one.high),
            "average_low": float(one.average_low), "average_high": float(one.average_high),
            "mean": mean, "std": float(np.sqrt(share @ (center - mean) ** 2)),
            "mean_magnitude": float(share @ np.abs(center)),
            **{f"{end} {method}, {bits} bits": float(side[index])
               for method, found in clips.items()
               for end, side in zip(("low", "high"), found, strict=True)},
        })  # fmt: skip
    return rows


def rows_csv(rows: Sequence[Row]) -> str:
    """Writes rows of the same fields as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def statistics_figure(rows: Sequence[Row], title: str) -> Any:
    """Plots range, standard deviation and mean of all weights and tensors, for `save_figure`."""
    kinds = [kind for kind in COLOURS if any(row["kind"] == kind for row in rows)]
    with style():
        figure, axes = new_figure(9.6, 3.0 * len(kinds), nrows=len(kinds), squeeze=False)
        for panel, kind in zip(axes[:, 0], kinds, strict=True):
            chosen = [row for row in rows if row["kind"] == kind]
            place = np.arange(len(chosen))
            column = {
                field: np.array([row[field] for row in chosen])
                for field in ("low", "high", "mean", "std")
            }
            panel.vlines(place, column["low"], column["high"], color=COLOURS[kind], linewidth=1,
                         label="whole range")  # fmt: skip
            panel.vlines(
                place, column["mean"] - column["std"], column["mean"] + column["std"],
                color=COLOURS[kind], linewidth=4, alpha=0.5, label="mean ± standard deviation",
            )  # fmt: skip
            panel.plot(place, column["mean"], ".", color=INK, markersize=4, label="mean")
            panel.set_yscale("symlog", linthresh=0.1 if kind == "weight" else 1.0)
            panel.set_ylabel("values")
            panel.set_xlabel(f"{kind}s in order")
            panel.grid(True, axis="y")
            panel.legend(loc="upper right", ncols=3)
        axes[0, 0].set_title(f"{title}: what is quantized")
        settle_layout(figure)
    return figure
