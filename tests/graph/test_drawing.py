"""The table and the picture show every layer, and the cut that is asked for."""

import re
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import pytest

from autosplit.errors import CutError
from autosplit.graph import trace
from autosplit.graph.arrangement import arrange
from autosplit.graph.summary import shorten
from autosplit.graph.wiring import BOX_HEIGHT, BOX_WIDTH, COLUMN_OVER_ROW, wire
from autosplit.models import create_model, variable_shapes

SVG = "{http://www.w3.org/2000/svg}"


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def branching(p, x):
    a = jax.nn.relu(x @ p["w"])
    b = jax.nn.relu(a @ p["w"])
    c = jax.nn.relu(a @ p["w"]) @ p["w"]
    d = jnp.concatenate([a, b, c], -1)
    return {"out": d @ p["o"], "c": c, "w": p["w"] * 2}


SMALL = trace(branching, {"w": shaped(8, 8), "o": shaped(24, 3)}, shaped(2, 8))
MOBILENET = trace(
    create_model("mobilenet_v2", 10).apply,
    variable_shapes(create_model("mobilenet_v2", 10), 32),
    shaped(1, 32, 32, 3),
)
NETS = pytest.mark.parametrize("graph", [SMALL, MOBILENET], ids=["small", "mobilenet"])


def all_cuts(graph):
    return [(), *(cut.on_edge for cut in graph.cuts())]


class TestSummary:
    @NETS
    def test_has_a_line_for_each_layer_and_the_totals(self, graph):
        header, _, *rows, _, totals = graph.summary().split("\n")
        assert len(rows) == len(graph.layers)
        for index, (row, layer) in enumerate(zip(rows, graph.layers, strict=True)):
            assert row.split()[0] == str(index)
            assert f" {layer.kind} " in row
            assert f" {layer.macs:,} " in row
        assert f"{sum(layer.macs for layer in graph.layers):,}" in totals
        assert f"{sum(layer.weight_elements for layer in graph.layers):,}" in totals
        assert totals.split()[0] == str(len(graph.layers))
        # Columns are aligned: MACs end below each other.
        end = header.index("MACs") + len("MACs")
        assert all(row[end - 1].isdigit() and row[end] == " " for row in (*rows, totals))

    def test_names_readers_and_what_is_fused(self):
        line = SMALL.summary().split("\n")[2]
        assert line.split()[-1] == "max"
        assert " in " in line

    @pytest.mark.parametrize("length", [5, 12, 13, 40])
    def test_shorten_keeps_both_ends(self, length):
        path = "encoder/layer_11/attention/query"
        short = shorten(path, length)
        assert len(short) <= length
        assert short[-1] == path[-1]
        assert short[0] == path[0]
        assert (short == path) == (len(path) <= length)


class TestArrangement:
    @NETS
    def test_nothing_overlaps_and_wires_lead_on(self, graph):
        for flags in all_cuts(graph):
            plan = arrange(graph, flags, COLUMN_OVER_ROW)
            assert len(set(zip(plan.rows, plan.lanes, strict=True))) == len(plan.rows)
            assert all(plan.rows[w.source] < plan.rows[w.target] for w in plan.wires)
            corners = wire(plan, top=0.0).corners
            for index, (x, y) in enumerate(corners):
                for a, b in corners[index + 1 :]:
                    assert abs(x - a) >= BOX_WIDTH or abs(y - b) >= BOX_HEIGHT

    @NETS
    def test_columns_hold_every_row_once(self, graph):
        plan = arrange(graph, (), COLUMN_OVER_ROW)
        rows = [row for start, stop in plan.columns for row in range(start, stop)]
        assert rows == list(range(1 + max(plan.rows)))

    @NETS
    def test_exactly_the_crossing_tensors_are_labelled(self, graph):
        for cut in graph.cuts():
            plan = arrange(graph, cut.on_edge, COLUMN_OVER_ROW)
            assert set(wire(plan, top=0.0).labels) == set(cut.crossing)

    @NETS
    def test_each_layer_stands_on_the_tint_of_its_part(self, graph):
        for cut in graph.cuts():
            page = wire(arrange(graph, cut.on_edge, COLUMN_OVER_ROW), top=0.0)
            for (x, y), on_edge in zip(page.corners, cut.on_edge, strict=False):
                tints = page.edge if on_edge else page.cloud
                assert any(
                    left <= x and x + BOX_WIDTH <= right and top <= y and y + BOX_HEIGHT <= bottom
                    for left, top, right, bottom in tints
                )

    def test_a_long_net_is_wrapped_to_a_page(self):
        page = wire(arrange(MOBILENET, (), COLUMN_OVER_ROW), top=0.0)
        assert 0.5 < page.right / page.bottom < 2


class TestSvg:
    @NETS
    def test_is_well_formed_and_describes_itself(self, graph):
        for flags in all_cuts(graph)[:: max(1, len(graph.layers) // 8)]:
            root = ElementTree.fromstring(graph.to_svg(flags))
            assert root.tag == f"{SVG}svg"
            assert root.get("role") == "img"
            assert root.find(f"{SVG}title").text
            assert root.find(f"{SVG}desc").text

    def test_shows_every_layer_with_shape_macs_and_bits(self):
        svg = SMALL.to_svg((True, True, False, False, False, False), {0: "w4 a8", 1: "w2 a6"})
        titles = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}title")]
        for layer in SMALL.layers:
            assert any(t.startswith(f"{layer.name}, {layer.kind}, ") for t in titles)
        assert "matmul_0, matmul, 2×8, 128 MACs, w4 a8" in titles
        assert svg.count(">w2 a6<") == 1

    def test_without_a_cut_there_are_no_parts(self):
        svg = SMALL.to_svg()
        assert ">edge<" not in svg
        assert "Cut" not in svg
        assert 'class="cut"' not in svg

    def test_with_a_cut_both_parts_and_what_is_sent_are_shown(self):
        cut = SMALL.cut_after(SMALL.layers[1].name)
        svg = SMALL.to_svg(cut.on_edge)
        assert ">edge<" in svg
        assert ">cloud<" in svg
        assert svg.count("is sent") == len(cut.crossing)
        for tensor in cut.crossing:
            assert f">{SMALL.tensors[tensor].size:,} elements<" in svg

    def test_edge_only_has_no_cloud(self):
        svg = SMALL.to_svg([True] * len(SMALL.layers))
        assert ">edge<" in svg
        assert ">cloud<" not in svg

    def test_text_is_escaped(self):
        svg = SMALL.to_svg((), {0: "<w & a>"})
        assert "<w & a>" not in svg
        assert "&lt;w &amp; a&gt;" in svg
        ElementTree.fromstring(svg)

    def test_is_self_contained(self):
        svg = MOBILENET.to_svg()
        assert not re.search(r"(href|src)=|@import|<script", svg)
        assert set(re.findall(r"https?://[^\"]+", svg)) == {"http://www.w3.org/2000/svg"}

    def test_a_set_that_is_not_closed_raises(self):
        with pytest.raises(CutError, match="not closed"):
            SMALL.to_svg([False] * (len(SMALL.layers) - 1) + [True])
        with pytest.raises(CutError, match="one per layer"):
            SMALL.to_svg([True])
