"""Plans on disk, and the package without JAX."""

import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

import autosplit.solvers
from autosplit.errors import ArtefactError
from autosplit.solvers import Constraints, Plans, solve


@pytest.fixture
def plans(make_profile):
    return solve(make_profile(4), Constraints(memory_bytes=10**6))


def test_round_trip_is_lossless(plans, tmp_path):
    plans.save(tmp_path / "plans.json")
    assert Plans.load(tmp_path / "plans.json") == plans
    assert [path.name for path in tmp_path.iterdir()] == ["plans.json"]


def test_saving_replaces(plans, tmp_path):
    path = tmp_path / "plans.json"
    plans.save(path)
    fewer = dataclasses.replace(plans, plans=plans.plans[:2])
    fewer.save(path)
    assert Plans.load(path) == fewer


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_file_is_refused(plans, tmp_path, share):
    path = tmp_path / "plans.json"
    plans.save(path)
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(ArtefactError, match="no complete JSON"):
        Plans.load(path)


def test_changed_file_is_refused(plans, tmp_path):
    path = tmp_path / "plans.json"
    plans.save(path)
    document = json.loads(path.read_text())
    document["body"]["plans"][0]["edge_s"] = 0.0
    path.write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match="changed after"):
        Plans.load(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "autosplit.plans", "version": 99}'])
def test_other_formats_are_refused(tmp_path, text):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match="expected"):
        Plans.load(path)


def test_csv_has_a_row_for_each_plan(plans, tmp_path):
    plans.to_csv(tmp_path / "plans.csv")
    with open(tmp_path / "plans.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(plans)
    for row, plan in zip(rows, plans, strict=True):
        assert row["label"] == plan.label
        assert float(row["latency_s"]) == float(row["cost"]) == plan.latency_s
        assert float(row["energy_j"]) == plan.energy_j
        assert float(row["edge_j"]) == plan.edge_j
        assert (row["latency_weight"], row["energy_weight"]) == ("1.0", "0.0")
        assert tuple(int(bits) for bits in row["w_bits"].split()) == plan.w_bits
        assert row["output_error"] == ""


def test_solvers_import_no_jax():
    """Imports the solvers without the root package, which imports everything."""
    code = """
import sys, types
root = types.ModuleType("autosplit")
root.__path__ = [sys.argv[1]]
sys.modules["autosplit"] = root
import autosplit.solvers
print([name for name in ("jax", "flax", "scipy", "torch") if name in sys.modules])
"""
    root = pathlib.Path(autosplit.solvers.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True,
                            text=True, check=True)
    assert result.stdout.strip() == "[]"
