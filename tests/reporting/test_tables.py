"""Tables keep every cell, escape it and name their columns once."""

from __future__ import annotations

import html
import re

import pytest

from autosplit.errors import InputError
from autosplit.reporting.formats import format_ms, format_number, format_size
from autosplit.reporting.tables import html_table, markdown_table

ROWS = [{"plan": "a<b>", "latency": "6.5 ms"}, {"plan": "x|y\nz", "latency": "120 ms"}]


def test_markdown_has_a_line_per_row_with_equal_numbers_of_cells() -> None:
    lines = markdown_table(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


def test_html_cells_come_back_when_unescaped() -> None:
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html_table(ROWS), re.S)
    assert [html.unescape(cell) for cell in cells] == [v for row in ROWS for v in row.values()]


def test_html_escapes_cells_and_heads() -> None:
    text = html_table([{"<i>": "<script>"}])
    assert "<script>" not in text
    assert "<i>" not in text


def test_html_marks_one_row_numbers_and_tagged_columns() -> None:
    text = html_table(ROWS, {"latency": "simulated"}, highlight=1)
    assert text.count("class=chosen") == 1
    assert text.count('<td class="number">') == 2
    assert "simulated" in text.partition("</thead>")[0]


def test_rows_with_other_columns_raise() -> None:
    for table in (markdown_table, html_table):
        with pytest.raises(InputError, match="Row 1 has columns"):
            table([{"a": 1}, {"b": 1}])


def test_a_tag_without_a_column_raises() -> None:
    with pytest.raises(InputError, match="no columns"):
        html_table(ROWS, {"speed": "measured"})


def test_no_rows_give_no_table() -> None:
    assert (markdown_table([]), html_table([])) == ("", "")


@pytest.mark.parametrize("value", [0.00123, 0.5, 7.25, 31.4159, 999.4, 123456.0, 2.5e-9, 4e12])
def test_number_is_within_half_of_its_third_digit(value: float) -> None:
    assert float(format_number(value).replace(",", "")) == pytest.approx(value, rel=5e-3)


def test_units_follow_the_size() -> None:
    assert format_size(1023).endswith(" B")
    assert format_size(1 << 10) == "1.00 KiB"
    assert format_size(1 << 20) == "1.00 MiB"
    assert format_ms(1.5) == "1,500 ms"
