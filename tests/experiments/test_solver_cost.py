"""What the solver's cost is measured on, and that a small measurement is whole."""

import csv
import json

import ml_collections
import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.hardware import EYERISS, TPU, Network
from configs import solver_cost as settings
from experiments import solver_cost
from experiments.solver_case import (
    FAMILIES,
    binding_constraints,
    branched_graph,
    drawn_profile,
)

NETWORK = Network(uplink_bits_per_s=3e6)


def small_config():
    config = settings.get_config()
    with config.unlocked():
        config.layers, config.bits, config.cuts = (12, 24), (2, 3), (4,)
        config.fixed = ml_collections.ConfigDict({"layers": 24, "bits": 3})
    return config


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [12, 40, 100])
def test_a_graph_has_about_as_many_layers_as_asked(family, layers):
    graph = branched_graph(layers, family, image_size=32)
    assert layers - 6 <= len(graph.layers) <= layers + 12
    assert len(graph.outputs) == 1


def test_long_branches_have_more_closed_sets_than_a_chain_of_short_cuts():
    chain, branches = (len(branched_graph(40, f, 32).cuts()) for f in ("residual", "parallel"))
    assert branches > 1.5 * chain


def test_drawn_errors_fall_with_bits_and_prices_are_real():
    graph = branched_graph(24, "inception", image_size=32)
    profile = drawn_profile(graph, (8, 2, 4), edge=EYERISS, cloud=TPU, network=NETWORK)
    assert profile.bits.tolist() == [2, 4, 8]
    assert (np.diff(profile.weight_error[profile.has_weight], axis=1) < 0).all()
    assert (np.diff(profile.edge_latency_s, axis=2) >= 0).all()
    other = drawn_profile(graph, (2, 4, 8), edge=EYERISS, cloud=TPU, network=NETWORK, seed=1)
    assert (other.weight_gain != profile.weight_gain).all()
    np.testing.assert_array_equal(other.edge_latency_s, profile.edge_latency_s)


def test_the_limits_bind():
    graph = branched_graph(24, "residual", image_size=32)
    profile = drawn_profile(graph, (2, 5, 8), edge=EYERISS, cloud=TPU, network=NETWORK)
    limits = binding_constraints(profile)
    whole = profile.weight_bytes.sum(axis=0) + profile.tensor_bytes.max(axis=0)
    assert whole[0] < limits.memory_bytes < whole[-1]
    gains = (profile.weight_gain * profile.weight_error).sum(axis=0)
    assert gains[-1] < limits.output_error < gains[0] + profile.activation_gain.sum()


@pytest.mark.heavy
def test_a_small_measurement_is_whole(tmp_path, capsys):
    document = solver_cost.run(small_config(), tmp_path)
    rows = document["rows"]
    assert {row["family"] for row in rows} == set(FAMILIES)
    assert all(row["gap"] == 0 and row["solve_s"] > 0 for row in rows)
    fewer = [row for row in rows if row["cuts_fewer"]]
    assert [row["cuts"] for row in fewer] == [4]
    assert json.loads((tmp_path / "solver_cost.json").read_text())["rows"] == rows
    with open(tmp_path / "solver_cost.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(rows)
    table = (tmp_path / "solver_cost.md").read_text()
    assert table.count("\n| residual") + table.count("\n|residual") >= 3
    assert (tmp_path / "solver_cost.png").stat().st_size > 1000
    assert f"{len(rows)} of {len(rows)}" in capsys.readouterr().out


def test_no_case_is_measured_twice():
    cases = solver_cost.cases_of(settings.get_config())
    assert len(cases) == len({str(sorted(case.items(), key=str)) for case in cases})


class TestWrongInputs:
    def test_a_family_that_does_not_exist_lists_those_that_do(self):
        with pytest.raises(InputError, match="residual"):
            branched_graph(20, "dense")

    def test_too_few_layers(self):
        with pytest.raises(InputError, match="at least 12"):
            branched_graph(3, "residual")

    def test_an_empty_axis_is_named(self, tmp_path):
        config = small_config()
        config.layers = ()
        with pytest.raises(InputError, match=r"config\.layers is empty"):
            solver_cost.run(config, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("count", [1, 9])
    def test_a_number_of_candidates_out_of_range(self, count):
        with pytest.raises(InputError, match="expected 2 to 8"):
            solver_cost.candidates(count)
