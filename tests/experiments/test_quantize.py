"""The programs of quantization on a small job: every mode, and a table that goes on."""

import csv
import importlib
import json
import pathlib
import re

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.ptq import Recipe
from experiments import quantize
from experiments.quantize_methods import LEARNED, METHODS, ORDER, recipe_of, table_cases
from experiments.quantize_report import all_findings, table_markdown
from experiments.quantize_scores import calibrating, in_chunks, score
from experiments.steps import check_fields

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "quantize"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.fixture
def small(checkpoint, labelled):
    """Returns a configuration on MobileNet-v2 with random weights and three small photographs."""
    config = importlib.import_module("configs.quantize.mobilenet_v2").get_config()
    config.model.weights = str(checkpoint)
    config.images.source = str(labelled)
    config.images.resize_pixels = config.images.crop_pixels = 32
    config.images.calibration = 1
    config.chunk = 2
    config.table.columns = ((8, 8),)
    config.table.methods = ("min-max",)
    config.recipe.weight_clipping = config.recipe.activation_clipping = "minmax"
    return config


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_how_it_is_run_and_makes_recipes(name):
    module = importlib.import_module(f"configs.quantize.{name}")
    assert f"python -m experiments.quantize --config=configs/quantize/{name}.py" in module.__doc__
    assert re.search(r"^Expected", module.__doc__, re.M)
    assert re.search(r"^Duration: [\d.]+ (s|min)\b", module.__doc__, re.M)
    config = module.get_config()
    assert set(quantize.REQUIRED) <= set(config)
    cases = table_cases(config.table.methods, config.table.columns)
    wide = sum(w >= 8 for w, _ in config.table.columns)
    expected = len(config.table.methods) * len(config.table.columns) - wide * len(LEARNED)
    assert len(cases) == 1 + expected
    for case in cases[1:]:
        recipe = recipe_of(case, config.table.settings.to_dict())
        assert (recipe.w_bits, recipe.a_bits) == (case.w_bits, case.a_bits)
    assert len({case.file_name for case in cases}) == len(cases)
    Recipe(**config.recipe.to_dict())
    with pytest.raises(InputError):
        check_fields(config)  # it is no configuration of the main job


def test_every_method_of_the_published_order_is_a_row():
    assert {name for order in ORDER for name in order} <= set(METHODS)


@pytest.mark.parametrize("change", [{"methods": ("best",)}, {"columns": ()}, {"methods": ()}])
def test_a_wrong_table_is_refused(small, change, tmp_path):
    with small.unlocked():
        for name, value in change.items():
            small.table[name] = value
    with pytest.raises(InputError, match=r"config\.table"):
        quantize.run(small, "table", tmp_path)


def test_wrong_settings_are_refused_before_anything_runs(small, tmp_path):
    with pytest.raises(InputError, match="--plan"):
        quantize.run(small, "plan", tmp_path)
    with pytest.raises(InputError, match="mode"):
        quantize.run(small, "best", tmp_path)
    small.images.calibration = 3
    with pytest.raises(InputError, match="left to score"):
        quantize.run(small, "float", tmp_path)
    small.recipe.w_bits = 11
    with pytest.raises(InputError, match="w_bits is 11"):
        quantize.run(small, "ptq", tmp_path)


def test_calibrating_photographs_are_spread_and_disjoint():
    chosen = calibrating(500, 64)
    assert len(set(chosen)) == 64
    assert np.diff(chosen).max() <= 8


def test_chunks_equal_one_run():
    images = np.arange(5 * 3, dtype=np.uint8).reshape(5, 1, 1, 3)
    sizes = []

    def run(calls):
        sizes.append(len(calls[0]))
        return [calls[0].sum(axis=(2, 3))]

    found = in_chunks(run, images, 2)
    assert sizes == [2, 2, 2]
    np.testing.assert_allclose(found, in_chunks(run, images, 5))


@pytest.fixture(scope="module")
def rows():
    """Returns a table as published would have it, and one photograph in a hundred."""
    def row(method, bits, top1, error):
        return {"method": method, "bits": bits, "images": 100, "top1": top1, "top5": top1,
                "agreement": top1, "output_error": error, "quantize_s": 1.0}  # fmt: skip

    found = [row("float", "", 0.7, 0.0), row("mse", "W8A8", 0.7, 0.001),
             row("min-max", "W8A8", 0.69, 0.002)]  # fmt: skip
    for index, name in enumerate(ORDER[0]):
        found.append(row(name, "W4A4", 0.1 + 0.1 * index, 0.5 - 0.1 * index))
    return found


def test_findings_say_what_holds_and_what_does_not(rows):
    within, order = all_findings(rows)
    assert "W8A8 is within 0.5 point of float (70.0 % top-1) by 1 of 2 methods: mse" in within
    assert "W4A4: the published order by top-1 holds" in order
    worse = [dict(one, top1=0.05) if one["method"] == "lapq" else one for one in rows]
    within, order = all_findings([r for r in worse if r["method"] != "mse"])
    assert "W8A8 is not within" in within
    assert "does not hold (lapq is not above aciq)" in order
    unlabelled = [dict(one, top1=None, top5=None) for one in rows]
    assert "agreement with float" in all_findings(unlabelled)[0]
    record = {"git": {"commit": "c", "dirty": False}, "seed": 0, "started_utc": "now",
              "device": {"cpu": "x", "cpu_cores": 2}, "packages": {"jax": "1"},
              "config": {"images": {"calibration": 64}}}  # fmt: skip
    assert "| mse | 70.0 % |" in table_markdown("T", rows, record)


@pytest.mark.heavy
def test_a_table_goes_on_where_it_ended(small, tmp_path, capsys, monkeypatch):
    path = quantize.run(small, "table", tmp_path)
    assert path.read_text().startswith("# MobileNet-v2")
    first = capsys.readouterr().out
    assert "2 of 2: W8A8 min-max" in first
    with monkeypatch.context() as patch:
        patch.setattr(quantize, "load_bench", lambda config: pytest.fail("all rows were there"))
        quantize.run(small, "table", tmp_path)
    with small.unlocked():
        small.table.methods = ("min-max", "bias corrected")
    quantize.run(small, "table", tmp_path)
    document = json.loads((tmp_path / "table.json").read_text())
    assert [row["method"] for row in document["rows"]] == ["float", "min-max", "bias corrected"]
    with open(tmp_path / "table.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 3
    assert (tmp_path / "table.png").stat().st_size > 1000
    assert all(row["images"] == 2 for row in document["rows"])
    small.seed = 1  # other results: nothing is kept
    settings = quantize.case_settings(small, table_cases(("min-max",), ((8, 8),))[1])
    assert quantize.kept_row(tmp_path / "cases" / "W8A8-min-max.json", settings) is None


@pytest.mark.heavy
def test_every_mode_writes_its_result(small, tmp_path):
    for mode in ("float", "ptq", "weights"):
        found = json.loads(quantize.run(small, mode, tmp_path).read_text())
        assert found["mode"] == mode
        assert found["images"] == 2
        assert (found["output_error"] == 0) == (mode == "float")
    small.recipe.w_bits = 8
    quantize.run(small, "statistics", tmp_path)
    with open(tmp_path / "statistics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["kind"] for row in rows} == {"weight", "tensor"}
    assert all(float(row["low"]) <= float(row["high"]) for row in rows)
    assert (tmp_path / "statistics.png").stat().st_size > 1000


def test_scores_count_broken_outputs_as_wrong():
    class Bench:
        labels = np.array([0, 1])
        reference = np.eye(6)[:2]

    assert score(Bench, Bench.reference)["top1"] == 1.0
    broken = score(Bench, np.full((2, 6), np.nan))
    assert broken["output_error"] == float("inf")
    assert broken["top1"] == 0.5


