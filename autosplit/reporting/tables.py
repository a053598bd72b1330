"""Tables: rows of named cells as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit.errors import InputError

Row = Mapping[str, Any]

# A column of such cells is aligned to the right.
_NUMERIC = re.compile(r"–|<?-?\d[\d.,]*(e[-+]?\d+)?( (ms|B|KiB|MiB|%))?")


def markdown_table(rows: Sequence[Row]) -> str:
    r"""Writes rows as a Markdown table.

    >>> print(markdown_table([{"plan": "a|b", "latency": "66.1 ms"}]))
    | plan | latency |
    | --- | --- |
    | a\|b | 66.1 ms |

    Args:
      rows: all with the same keys in the same order, which are the columns.

    Returns:
      Lines without a final newline; an empty text for no rows.

    Raises:
      InputError: rows have different columns.
    """
    columns = _columns(rows)
    if not columns:
        return ""
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines)


def html_table(
    rows: Sequence[Row], tags: Mapping[str, str] | None = None, highlight: int | None = None
) -> str:
    r"""Writes rows as an HTML table that scrolls sideways on a narrow screen.

    >>> print(html_table([{"plan": "<b>"}]).replace("</thead>", "</thead>\n"))
    <div class="scroll"><table><thead><tr><th scope="col">plan</th></tr></thead>
    <tbody><tr><td>&lt;b&gt;</td></tr></tbody></table></div>

    Args:
      rows: as in `markdown_table`; cells are escaped.
      tags: by column, where its figures come from: ``simulated``, ``measured`` or
        ``counted``.
      highlight: index of a row to mark.

    Returns:
      HTML; an empty text for no rows.

    Raises:
      InputError: rows have different columns, or a tag has no column.
    """
    columns = _columns(rows)
    tags = tags or {}
    if unknown := sorted(set(tags) - set(columns)):
        raise InputError(f"Tags for {unknown}, which are no columns; the table has {columns}.")
    if not columns:
        return ""
    numeric = [all(_NUMERIC.fullmatch(str(row[name])) for row in rows) for name in columns]
    head = "".join(
        f'<th scope="col"{_kind(right)}>{_head(name, tags.get(name))}</th>'
        for name, right in zip(columns, numeric, strict=True)
    )
    body = "".join(
        f"<tr{' class=chosen' if index == highlight else ''}>"
        + "".join(f"<td{_kind(right)}>{html.escape(str(row[name]))}</td>"
                  for name, right in zip(columns, numeric, strict=True))
        + "</tr>"
        for index, row in enumerate(rows)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def tag_html(tag: str) -> str:
    """Writes the mark that says where a figure comes from.

    >>> tag_html("measured")
    '<span class="tag measured">measured</span>'
    """
    name = html.escape(tag)
    return f'<span class="tag {name}">{name}</span>'


def _columns(rows: Sequence[Row]) -> list[str]:
    columns = list(rows[0]) if rows else []
    for index, row in enumerate(rows):
        if list(row) != columns:
            raise InputError(f"Row {index} has columns {list(row)}; expected {columns} as row 0.")
    return columns


def _markdown_cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _head(name: str, tag: str | None) -> str:
    return html.escape(name) + (f"<br>{tag_html(tag)}" if tag else "")


def _kind(is_number: bool) -> str:
    return ' class="number"' if is_number else ""
