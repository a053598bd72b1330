"""The page is complete, needs nothing else, escapes what it shows and hides no loss."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from autosplit.errors import InputError, PlanMismatchError
from autosplit.profiling.plan import SplitPlan
from autosplit.reporting import Accuracy, Photograph, ReportData, render_report, write_report
from autosplit.reporting import summary as report_summary
from autosplit.reporting.formats import format_ms
from autosplit.reporting.glossary import GLOSSARY
from autosplit.solvers.constraints import Constraints, judge

Change = Callable[..., ReportData]
VOID = {"meta", "img", "br", "link", "input", "hr"}
ATTACK = '<script>alert("1")</script>'


class Checker(HTMLParser):
    """Collects the text, and what a page would load; checks that elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    checker.text = " ".join(checker.text.replace("\N{NO-BREAK SPACE}", " ").split())
    return checker


@pytest.fixture
def page(data: ReportData) -> str:
    return render_report(data)


def test_page_needs_nothing_else(page: str) -> None:
    checker = check(page)
    assert checker.loads
    assert all(link.startswith(("data:", "#")) for link in checker.loads)
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not checker.tags & {"script", "link", "iframe", "object", "embed"}


def test_page_shows_every_plan(page: str, data: ReportData) -> None:
    text = check(page).text
    for plan in data.plans:
        assert plan.label in text
        assert plan.cut_name in text
        assert format_ms(plan.latency_s) in text


def test_page_shows_stages_measured_beside_predicted(page: str) -> None:
    text = check(page).text
    assert "77.7" in text
    assert "Do not compare the two columns for speed" in text
    assert "median of 3 requests" in text


def test_every_term_of_the_glossary_is_on_the_page(page: str) -> None:
    text = check(page).text
    assert all(term in text for term in GLOSSARY)


def test_identifiers_are_unique(page: str) -> None:
    found = re.findall(r'\bid="([^"]*)"', page)
    assert len(found) == len(set(found))


def test_photographs_are_marked_right_and_wrong(page: str) -> None:
    text = check(page).text
    assert "✓ float: tench" in text
    assert "✗ split: goldfish" in text
    assert "class not known" in text
    assert "✓ float: crane" not in text


def test_text_from_outside_is_escaped(with_changes: Change, chosen: SplitPlan) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    evil = dataclasses.replace(chosen, cut_name=ATTACK, reason=ATTACK)
    page = render_report(with_changes(
        title=ATTACK, network_name=ATTACK, notes=(ATTACK,), measured_note=ATTACK,
        photographs_note=ATTACK, record={"config": {"a": ATTACK}, ATTACK: ATTACK},
        plans=(evil,), chosen=evil, graph_svg=f"<svg>{ATTACK}</svg>",
        accuracies=(Accuracy(label=ATTACK, images=1, correct=1),),
        photographs=(Photograph(name=f'"{ATTACK}', image=image, label=ATTACK,
                                float_prediction=ATTACK, split_prediction=ATTACK),),
    ))
    assert "script" not in check(page).tags
    assert page.count(html.escape(ATTACK)) >= 10


def test_a_faster_jpeg_is_said_plainly(page: str, data: ReportData) -> None:
    jpeg = next(plan for plan in data.plans if "jpeg" in plan.label)
    assert jpeg.latency_s < data.chosen.latency_s
    text = check(page).text
    assert "cloud-only (jpeg-q90) is faster than the chosen plan" in text
    assert "was not measured" in text


def test_a_faster_jpeg_within_all_limits_is_said_to_be(
    with_changes: Change, data: ReportData
) -> None:
    jpeg = next(plan for plan in data.plans if "jpeg" in plan.label)
    measured = judge(dataclasses.replace(jpeg, output_error=0.001), data.constraints)
    plans = tuple(measured if plan is jpeg else plan for plan in data.plans)
    (warning,) = report_summary.warnings(with_changes(plans=plans))
    assert "jpeg" in warning
    assert "within all constraints" in warning


def test_no_warning_where_the_chosen_plan_is_the_fastest(
    with_changes: Change, data: ReportData
) -> None:
    slower = tuple(p for p in data.plans if p.latency_s >= data.chosen.latency_s)
    report = with_changes(plans=slower)
    assert report_summary.warnings(report) == ()
    assert "Read this first" not in render_report(report)


def test_a_chosen_plan_that_breaks_a_limit_is_said_plainly(with_changes: Change) -> None:
    report = with_changes(constraints=Constraints(memory_bytes=1 << 10))
    assert any("chosen plan breaks" in text for text in report_summary.warnings(report))
    assert report_summary.standing(report, report.chosen) == "no"


def test_comparisons_agree_with_the_latencies(data: ReportData) -> None:
    by_label = {plan.label: plan for plan in data.plans}
    for one in report_summary.comparisons(data):
        label = one.text.partition(" takes ")[0]
        faster = by_label[label].latency_s < data.chosen.latency_s
        assert one.verdict == ("faster" if faster else "slower")


def test_certificate_tells_the_gap(with_changes: Change, chosen: SplitPlan) -> None:
    def certificate(bound_s: float) -> str:
        plan = dataclasses.replace(chosen, lower_bound=bound_s)
        return report_summary.certificate(with_changes(plans=(plan,), chosen=plan))

    assert "optimal" in certificate(chosen.latency_s)
    assert "25.0 % more" in certificate(chosen.latency_s / 1.25)
    assert "No lower bound" in certificate(0.0)


def test_page_without_anything_optional(with_changes: Change) -> None:
    report = with_changes(measured=None, measured_note="", accuracies=(), photographs=(),
                          photographs_note="", graph_svg="", constraints=Constraints())
    text = check(render_report(report)).text
    assert "not measured" in text
    assert "The photographs" not in text
    assert "was not run" in text
    assert "No constraint was set" in text


@pytest.mark.parametrize("label", ["cloud-only (raw)", "cloud-only (jpeg-q90)", "edge-only"])
def test_page_for_a_plan_that_does_not_split(with_changes: Change, label: str) -> None:
    plan = next(plan for plan in with_changes().plans if plan.label == label)
    text = check(render_report(with_changes(chosen=plan))).text
    assert "is not split" in text
    assert ("No layer runs on the edge" in text) == (label != "edge-only")


def test_a_chosen_plan_that_is_not_listed_raises(with_changes: Change, chosen: SplitPlan) -> None:
    with pytest.raises(InputError, match="none of the"):
        with_changes(chosen=dataclasses.replace(chosen, output_error=0.5))


def test_a_plan_of_another_graph_raises(with_changes: Change, chosen: SplitPlan) -> None:
    other = dataclasses.replace(chosen, fingerprint="beef")
    with pytest.raises(PlanMismatchError, match="beef"):
        with_changes(plans=(chosen, other))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_a_picture_of_another_kind_raises(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8"):
        Photograph(name="a", image=image, label=None, float_prediction="", split_prediction="")


def test_counts_beyond_the_images_raise() -> None:
    with pytest.raises(InputError, match="expected 0 to images=3"):
        Accuracy(label="float", images=3, correct=4)


def test_interval_holds_the_share_and_narrows() -> None:
    few = Accuracy(label="float", images=20, correct=18).interval()
    many = Accuracy(label="float", images=2000, correct=1800).interval()
    for low, high in (few, many):
        assert 0 <= low < 0.9 < high <= 1
    assert many[1] - many[0] < few[1] - few[0]


def test_files_beside_the_page(data: ReportData, tmp_path: Path) -> None:
    path = write_report(data, tmp_path / "new")
    assert path.name == "report.html"
    assert path.read_text(encoding="utf-8") == render_report(data)
    assert (path.parent / "graph.svg").read_text() == data.graph_svg
    assert (path.parent / "run.json").is_file()
