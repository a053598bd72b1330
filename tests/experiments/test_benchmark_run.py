"""The benchmark on a tiny network: what it finds holds together. No time is judged."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from configs import benchmark_resnet50
from experiments import benchmark
from experiments.benchmark_report import aims_of

BITS = (1, 2, 4, 8)

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The document and the work directory of one tiny run."""
    config = benchmark_resnet50.get_config()
    config.title = "tiny"
    config.model.stage_sizes = (1,)
    config.model.features = 4
    config.model.num_classes = 5
    config.image_size = 16
    config.calls = 2
    config.bits = BITS
    config.copy_bytes = 1 << 16
    config.large.layers = 12
    for name in config.repeats:
        config.repeats[name] = 1
    workdir = tmp_path_factory.mktemp("benchmark")
    return benchmark.run(config, workdir), workdir


@pytest.fixture(scope="module")
def document(result):
    return result[0]


def test_files_are_there_and_nothing_else_is(result) -> None:
    _, workdir = result
    names = sorted(path.name for path in workdir.iterdir())
    assert names == ["benchmark.csv", "benchmark.json", "benchmark.md", "benchmark.png"]


def test_json_holds_the_document_and_what_is_needed_to_run_it_again(result) -> None:
    document, workdir = result
    stored = json.loads((workdir / "benchmark.json").read_text())
    assert stored["summary"] == document["summary"]
    assert {"config", "device", "git", "packages", "seed"} <= set(stored["record"])
    assert stored["record"]["config"]["image_size"] == 16


def test_csv_has_every_step(result) -> None:
    document, workdir = result
    with (workdir / "benchmark.csv").open() as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*document["times"], "NumPy loop", "NumPy histogram"}
    assert float(rows["solve"]["median_s"]) == document["times"]["solve"]["median_s"]


def test_markdown_has_every_aim(result) -> None:
    document, workdir = result
    text = (workdir / "benchmark.md").read_text()
    assert all(row["aim"] in text for row in aims_of(document))


def test_ratios_are_ratios_of_the_measured_times(document) -> None:
    found, times = document["summary"], document["times"]
    loop_s = np.median(document["numpy"]["loop"]["pass_s"])
    assert found["loop_over_profile"] == pytest.approx(loop_s / times["profile"]["median_s"])
    product = found["loop_over_histogram"] * found["histogram_over_tables_without_forward"]
    assert found["loop_over_tables_without_forward"] == pytest.approx(product)


def test_both_sides_looked_at_every_tensor_and_width(document) -> None:
    shape = (len(document["tensors"]), len(BITS))
    assert np.shape(document["errors"]) == shape
    assert np.shape(document["numpy"]["loop"]["errors"]) == shape
    assert np.shape(document["numpy"]["histogram"]["errors"]) == shape


def test_all_ways_find_clips_of_the_same_worth(document) -> None:
    for name in ("excess", "excess_of_numpy_histogram"):
        excess = document["summary"][name]
        assert abs(excess["median"]) < 0.02
        assert excess["largest"] < 0.2
    # The loop looks closer around one ratio only; ours moves each end of a clip by itself.
    assert document["summary"]["excess_of_numpy_histogram"]["smallest"] > -0.2
    assert -0.9 < document["summary"]["excess"]["smallest"] < 0


def test_more_bits_never_cost_error_in_the_loop(document) -> None:
    errors = np.array(document["numpy"]["loop"]["errors"])
    assert (np.diff(errors, axis=1) <= 0).all()


# ---- The loop against definitions
