"""The sections of the report page that show the decision, the pictures and the run."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from autosplit.files import to_plain
from autosplit.reporting import summary
from autosplit.reporting.families import STAGES
from autosplit.reporting.formats import format_number, format_percent, format_size
from autosplit.reporting.glossary import GLOSSARY
from autosplit.reporting.report_data import Photograph, ReportData
from autosplit.reporting.tables import html_table, tag_html

THUMBNAIL = 224
"""Longest side of a thumbnail in pixels."""

_UNIT = re.compile(r"(\d) (?=(?:ms|B|KiB|MiB|%|[kMG]?bit/s)\b|%)")

_SIGNS = {"slower": "✓", "equal": "=", "faster": "!"}


def section(title: str, *parts: str) -> str:
    """Wraps parts that are HTML already into a section; empty where all of them are."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{html.escape(title)}</h2>\n{content}\n</section>" if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """Writes escaped text as a paragraph; empty where there is none."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{prose(text)}</p>" if text else ""


def prose(text: str) -> str:
    """Escapes running text and keeps each unit on the line of its number."""
    return _UNIT.sub("\\1&nbsp;", html.escape(text))


def opening(data: ReportData) -> str:
    """Writes title, summary, key numbers, and what speaks against the chosen plan."""
    alarms = "".join(paragraph(text) for text in summary.warnings(data))
    return "\n".join([
        f"<header><h1>{html.escape(data.title)}</h1>",
        paragraph(summary.decision(data), "lead"),
        paragraph(summary.accuracy_sentence(data), "lead"),
        *(paragraph(text) for text in data.notes),
        "</header>",
        _key_numbers(data),
        f'<div class="warning" role="note"><b>Read this first</b>{alarms}</div>' if alarms else "",
    ])


def _key_numbers(data: ReportData) -> str:
    plan = data.chosen
    split = data.accuracy(plan.label)
    error_tag = "simulated" if plan.output_error is None else "measured"
    error = summary.error_in_words(plan).partition(" (")[0]
    cards = [
        ("latency", f"{format_number(plan.latency_s * 1e3)} ms", "simulated"),
        ("sent per request", format_size(plan.uplink_bytes), "counted"),
        ("layers on the edge", f"{sum(plan.on_edge)} of {len(plan.on_edge)}", "counted"),
        ("edge memory", format_size(plan.edge_memory_bytes), "counted"),
        ("output error", error, error_tag),
    ]
    if split is not None:
        cards.append(("right answers", f"{split.correct} of {split.images}", "measured"))
    return '<div class="numbers">' + "".join(
        f"<div><small>{html.escape(title)}</small><b>{html.escape(value)}</b>{tag_html(tag)}</div>"
        for title, value, tag in cards
    ) + "</div>"


def comparison_list(data: ReportData) -> str:
    """Writes one line for each baseline, with a sign and a colour for its verdict."""
    items = [
        f'<li class="{one.verdict}"><span class="sign">{_SIGNS[one.verdict]}</span>'
        f"{prose(one.text)}</li>"
        for one in summary.comparisons(data)
    ]
    return f'<ul class="plain">{"".join(items)}</ul>' if items else ""


def photographs(data: ReportData) -> str:
    """Writes the pictures with what the float and the split network said."""
    if not data.photographs:
        return ""
    cards = "".join(_photograph(one) for one in data.photographs)
    return section(
        "The photographs",
        f"<p>Each with its true class and both answers {tag_html('measured')}. "
        "✓ right, ✗ wrong.</p>",
        f'<div class="photographs">{cards}</div>',
        paragraph(data.photographs_note, "note"),
    )


def _photograph(one: Photograph) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail(one.image)).decode()}"
    label = "class not known" if one.label is None else one.label
    answers = "<br>".join([
        _answer("float", one.float_prediction, one.label, one.float_confidence),
        _answer("split", one.split_prediction, one.label, one.split_confidence),
    ])
    return (
        f'<figure><img src="{source}" alt="{html.escape(one.name)}"><figcaption>'
        f"<b>{html.escape(label)}</b><br>{answers}</figcaption></figure>"
    )


def _answer(who: str, prediction: str, label: str | None, confidence: float | None) -> str:
    share = "" if confidence is None else f" {confidence * 100:.0f}&nbsp;%"
    text = f"{who}: {html.escape(prediction)}{share}"
    if label is None:
        return text
    kind, sign = ("right", "✓") if prediction == label else ("wrong", "✗")
    return f'<span class="{kind}">{sign} {text}</span>'


def thumbnail(image: np.ndarray) -> bytes:
    """Returns a small JPEG of a u8[height, width, 3] picture, never enlarged."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=82)
    return buffer.getvalue()


def stage_times(data: ReportData) -> str:
    """Writes the time of each stage, predicted beside measured."""
    measured = data.measured
    rows = [
        _stage_row(title, getattr(data.chosen, field), measured, field)
        for field, (title, _) in STAGES.items()
    ]
    rows.append(_stage_row("total", data.chosen.latency_s, measured, "total_s"))
    tags = {"predicted, ms": "simulated"} | ({"measured, ms": "measured"} if measured else {})
    return section(
        "Where the time goes, stage by stage",
        html_table(rows, tags, highlight=len(rows) - 1),
        f"<p>Do not compare the two columns for speed: predicted times are those of the simulated "
        f"devices ({html.escape(data.profile.edge_name)} and "
        f"{html.escape(data.profile.cloud_name)}), measured ones those of the machine that made "
        f"this report, which is neither.</p>"
        if measured else paragraph("The split was not run, so nothing was timed."),
        paragraph(data.measured_note, "note"),
    )


def _stage_row(
    title: str, predicted_s: float, measured: Mapping[str, float] | None, field: str
) -> dict[str, str]:
    row = {"stage": title, "predicted, ms": format_number(predicted_s * 1e3)}
    if measured is not None:
        seconds = measured.get(field)
        row["measured, ms"] = "–" if seconds is None else format_number(seconds * 1e3)
    return row


def accuracy_table(data: ReportData) -> str:
    """Writes how often the network was right, for every plan that was tried."""
    rows = []
    for one in data.accuracies:
        low, high = one.interval()
        rows.append({
            "network": one.label,
            "images": str(one.images),
            "right": format_percent(one.correct / one.images),
            "95 % interval": f"{low * 100:.0f} to {high * 100:.0f} %",
            "right within five": _share(one.correct_top5, one.images),
            "same answer as float": _share(one.same_as_float, one.images),
        })
    chosen = [index for index, row in enumerate(rows) if row["network"] == data.chosen.label]
    return section(
        "Accuracy",
        html_table(rows, {"right": "measured"}, highlight=chosen[0] if chosen else None)
        if rows else paragraph("Not measured in this run."),
    )


def _share(count: int | None, images: int) -> str:
    return "–" if count is None else format_percent(count / images)


def glossary() -> str:
    """Writes the terms with their meaning."""
    entries = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>"
        for term, text in GLOSSARY.items()
    )
    return section("What the words mean", f"<dl>{entries}</dl>")


def run_record_list(record: Mapping[str, Any]) -> str:
    """Writes the run record: short values as a list, the configuration folded away."""
    plain = to_plain(record)
    entries = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(_inline(value))}</dd>"
        for name, value in plain.items() if name != "config"
    )
    config = html.escape(json.dumps(plain.get("config", {}), indent=2, ensure_ascii=False))
    return section(
        "How to make this report again",
        f"<dl>{entries}</dl>",
        f"<details><summary>configuration</summary><pre>{config}</pre></details>",
    )


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    return "not known" if value is None else str(value)
