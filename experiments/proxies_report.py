"""Rank correlations of the proxies with what was measured, as a table and as plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autosplit.reporting.canvas import INK, new_figure, settle_layout, style
from autosplit.reporting.tables import markdown_table
from experiments.proxies_scores import PROXIES

Row = dict[str, Any]

LOSSES = {
    "output_error": "output error",
    "divergence": "divergence",
    "agreement": "disagreement",
    "accuracy": "wrong answers",
}
"""What was measured; of agreement and accuracy the part that is missing to 1."""

COLOURS = {"varied": "#2f6fde", "equal mean": "#c2410c", "solver": "#15803d"}
PREDICTED = {
    "gauss_newton": "output_error",
    "fisher": "divergence",
    "alone_error": "output_error",
    "alone_divergence": "divergence",
}
"""Proxies that predict a quantity and not an order alone."""


def loss(row: Row, name: str) -> float:
    """Returns a measured quantity, the lower the better; NaN where it is not known."""
    value = row[name]
    if value is None:
        return math.nan
    return 1 - value if name in ("agreement", "accuracy") else value


def rank_correlations(rows: Sequence[Row]) -> list[Row]:
    """Returns Spearman's correlation of each proxy with each loss, by source and of all draws.

    A correlation is None where all values are equal or not known.
    """
    sources = list(dict.fromkeys(row["source"] for row in rows))
    return [
        {"source": source, "proxy": proxy, "assignments": len(own)}
        | {name: _spearman([r[proxy] for r in own], [loss(r, name) for r in own])
           for name in LOSSES}
        for source in sources
        for own in [[row for row in rows if row["source"] == source]]
        for proxy in PROXIES
    ]  # fmt: skip


def _spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    from scipy.stats import spearmanr

    if len(one) < 3 or np.isnan(other).any() or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def csv_text(rows: Sequence[Row]) -> str:
    """Writes a row for each assignment."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(document: Row) -> str:
    """Writes the results as Markdown."""
    record = document["record"]
    seconds = ", ".join(f"{name} {s:.0f} s" for name, s in document["seconds"].items())
    return f"""# {document["title"]}

Spearman's rank correlation of each proxy with what was measured on photographs that did not
calibrate. A solver's plans have few layers on the edge or all of them, at bits chosen by gains.

{markdown_table([_correlation_cells(row) for row in document["correlations"]])}

The solver's plans: predicted over measured, where 1 is right and more is careful.

{markdown_table([_ratio_cells(row) for row in document["rows"] if row["source"] == "solver"])}

Commit {record["git"]["commit"]}{" with changes" if record["git"]["dirty"] else ""}, seed
{record["seed"]}, {record["device"]["cpu"]} with {record["device"]["cpu_cores"]} cores, jax
{record["packages"]["jax"]}, {record["started_utc"]}; {seconds}.
"""


def _correlation_cells(row: Row) -> Row:
    return {
        "network": row["network"], "assignments": f"{row['assignments']} {row['source']}",
        "proxy": PROXIES[row["proxy"]],
        **{title: _two_digits(row[name]) for name, title in LOSSES.items()},
    }  # fmt: skip


def _ratio_cells(row: Row) -> Row:
    return {
        "network": row["network"], "plan": row["label"], "layers": str(row["layers_on_edge"]),
        "mean bits": f"{-row['mean_bits']:.2f}",
        "output error": f"{row['output_error']:.2g}",
        "Gauss-Newton over it": _two_digits(ratio(row, "gauss_newton")),
        "each alone over it": _two_digits(ratio(row, "alone_error")),
        "divergence": f"{row['divergence']:.2g}",
        "Fisher over that": _two_digits(ratio(row, "fisher")),
        "each alone over that": _two_digits(ratio(row, "alone_divergence")),
        "agreement": _two_digits(row["agreement"]), "accuracy": _two_digits(row["accuracy"]),
    }  # fmt: skip


def ratio(row: Row, proxy: str) -> float | None:
    """Returns predicted over measured, None where nothing was measured."""
    measured = row[PREDICTED[proxy]]
    return row[proxy] / measured if measured > 0 else None


def _two_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def proxies_figure(network: str, rows: Sequence[Row]) -> Any:
    """Plots measured output error and divergence over each proxy, for `save_figure`."""
    shown = ("output_error", "divergence")
    with style():
        figure, axes = new_figure(2.4 * len(PROXIES), 5.4, nrows=2, ncols=len(PROXIES),
                                  sharey="row")  # fmt: skip
        for column, (proxy, title) in enumerate(PROXIES.items()):
            for panel, measured in zip(axes[:, column], shown, strict=True):
                for source, colour in COLOURS.items():
                    own = [row for row in rows if row["source"] == source]
                    panel.scatter([row[proxy] for row in own], [row[measured] for row in own],
                                  s=14, color=colour, label=source, alpha=0.8)  # fmt: skip
                logarithmic = proxy != "mean_bits"
                panel.set(yscale="log", xscale="log" if logarithmic else "linear")
                if PREDICTED.get(proxy) == measured:
                    ends = [row[measured] for row in rows if row[measured] > 0]
                    line = [min(ends), max(ends)]
                    panel.plot(line, line, color=INK, linewidth=1, alpha=0.6)
                panel.grid(True)
            axes[1, column].set_xlabel(title)
        axes[0, 0].set_ylabel("measured output error")
        axes[1, 0].set_ylabel("measured divergence (nats)")
        axes[0, 0].set_title(network)
        axes[0, -1].legend(loc="lower right", fontsize=8)
        settle_layout(figure)
    return figure
