"""Plots show what they should, are no blank sheets, and their labels stay apart."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from autosplit.errors import InputError
from autosplit.profiling.plan import FLOAT_BITS, SplitPlan
from autosplit.profiling.table import Profile
from autosplit.reporting.bit_bars import bits_figure, edge_rows
from autosplit.reporting.canvas import INK, figure_bytes, inline_svg, save_figure
from autosplit.reporting.error_scatter import both_errors, error_figure
from autosplit.reporting.families import STAGES, compared, family_of
from autosplit.reporting.label_placement import place_labels
from autosplit.reporting.page import write_report
from autosplit.reporting.pareto import pareto_figure
from autosplit.reporting.report_data import ReportData
from autosplit.reporting.stage_bars import latency_figure

Plans = tuple[SplitPlan, ...]


def texts(figure: Figure) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)", figure_bytes(figure, "svg").decode()))


def test_every_plot_is_written_twice_and_is_not_blank(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path)
    for name in ("pareto", "latency", "bits", "error"):
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"), dtype=np.float64)
        assert min(pixels.shape) > 200
        assert pixels.var() > 50, name
        assert (tmp_path / f"{name}.svg").read_bytes().startswith(b"<?xml")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_kind_of_file_raises(plans: Plans, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="png or svg"):
        save_figure(latency_figure(plans), tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_inline_svg_is_free_of_links_styles_and_fixed_ink(plans: Plans) -> None:
    text = inline_svg(latency_figure(plans), "latency", 'bars <&"')
    assert "http" not in text
    assert "<style" not in text
    assert INK not in text
    assert "currentColor" in text
    assert all(name.startswith("latency-") for name in re.findall(r'\bid="([^"]*)"', text))
    ids = set(re.findall(r'\bid="([^"]*)"', text))
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)
    assert used
    assert {a or b for a, b in used} <= ids


def test_a_plot_is_the_same_each_time(plans: Plans) -> None:
    assert figure_bytes(latency_figure(plans), "svg") == figure_bytes(latency_figure(plans), "svg")


def test_labels_cover_neither_each_other_nor_points() -> None:
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    points = [(float(x), float(y)) for x, y in rng.uniform(0.2, 0.8, (12, 2))]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    boxes = place_labels(axes, points, [f"a plan, number {i}" for i in range(12)])
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for x, y in axes.transData.transform(points):
        assert not any(box.contains(x, y) for box in boxes)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_pareto_names_the_chosen_plan_and_every_baseline(plans: Plans, chosen: SplitPlan) -> None:
    shown = texts(pareto_figure(plans, chosen))
    for plan in plans:
        assert plan.label in shown
    assert "error not known" in shown


def test_pareto_draws_plans_without_any_error(plans: Plans) -> None:
    raw = next(plan for plan in plans if plan.label == "cloud-only (raw)")
    jpeg = next(plan for plan in plans if "jpeg" in plan.label)
    assert "cloud-only" in texts(pareto_figure([raw], raw))
    assert "jpeg" in texts(pareto_figure([jpeg], jpeg))


def test_bars_add_up_to_the_latency(plans: Plans) -> None:
    (axes,) = latency_figure(plans).axes
    assert len(axes.patches) == len(STAGES) * len(plans)
    widths = np.array([bar.get_width() for bar in axes.patches]).reshape(len(STAGES), -1)
    np.testing.assert_allclose(widths.sum(axis=0), [plan.latency_s * 1e3 for plan in plans])


def test_edge_rows_are_the_tensors_on_the_edge(profile: Profile, chosen: SplitPlan) -> None:
    rows = edge_rows(profile, chosen)
    assert [row.layer for row in rows] == [None, 0, 1, 2]
    assert [row.is_sent for row in rows] == [False, False, False, True]
    assert [row.a_bits for row in rows] == list(chosen.a_bits[:4])
    assert [row.w_bits for row in rows] == [None, 8, 4, 8]


def test_a_layer_without_weight_has_no_bits(profile: Profile, plans: Plans) -> None:
    everything = next(plan for plan in plans if plan.label == "edge-only")
    assert everything.w_bits[3] == FLOAT_BITS
    assert [row.layer for row in edge_rows(profile, everything) if row.w_bits is None] == [None, 3]
    assert "no weight" in texts(bits_figure(profile, everything))


def test_bits_of_nothing_on_the_edge_raise(profile: Profile, plans: Plans) -> None:
    raw = next(plan for plan in plans if plan.label == "cloud-only (raw)")
    with pytest.raises(InputError, match="no layer on the edge"):
        bits_figure(profile, raw)


def test_error_plot_takes_plans_with_both_errors(plans: Plans) -> None:
    shown = both_errors(plans)
    assert {plan.label for plan in shown} == {"auto-split", "edge-only"}
    unmeasured = [dataclasses.replace(plan, output_error=None) for plan in plans]
    with pytest.raises(InputError, match="measure"):
        error_figure(unmeasured)


def test_no_plans_raise() -> None:
    with pytest.raises(InputError, match="No plans"):
        latency_figure([])


def test_compared_has_one_plan_per_baseline(plans: Plans, chosen: SplitPlan) -> None:
    slower = dataclasses.replace(plans[-1], cloud_s=9.0)
    shown = compared([slower, *plans], chosen)
    assert shown[0] == chosen
    assert slower not in shown
    assert len({plan.label for plan in shown}) == len(shown)
    assert {plan.label for plan in shown} == {plan.label for plan in plans}
    rest = [plan.latency_s for plan in shown[1:]]
    assert rest == sorted(rest)


def test_family_follows_the_label() -> None:
    assert family_of("cloud-only (jpeg-q90)") == "cloud-only"
    assert family_of("neurosurgeon") == "other"
