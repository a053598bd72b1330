"""The fastest plan by bandwidth: against a solution at every rate of a fine grid."""

import dataclasses
import json
import math

import numpy as np
import pytest

from autosplit.errors import ArtefactError, InfeasibleError, InputError
from autosplit.solvers import Constraints, solve
from autosplit.solvers.bandwidth import with_uplink
from autosplit.solvers.plan_table import PlanTable, tabulate_plans

LOW, HIGH = 1e4, 1e10


@pytest.fixture
def table(make_profile):
    tables = (tabulate_plans(make_profile(seed), Constraints(), lowest_bits_per_s=LOW,
                             highest_bits_per_s=HIGH) for seed in range(20))
    return next(table for table in tables if len(table) > 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_table_is_as_fast_as_a_solution_at_every_rate(make_profile, seed):
    profile = make_profile(seed)
    limits = Constraints(memory_bytes=8000)
    table = tabulate_plans(profile, limits, lowest_bits_per_s=LOW, highest_bits_per_s=HIGH)
    assert table.gap == 0
    for rate in np.geomspace(LOW, HIGH, 15):
        best = solve(with_uplink(profile, rate), limits).best
        assert table.latency_s(rate) == pytest.approx(best.latency_s)
        assert table.plan_at(rate).feasible


def test_plans_change_at_the_breakpoints(make_profile):
    several = 0
    for seed in range(12):
        table = tabulate_plans(make_profile(seed), Constraints(), lowest_bits_per_s=LOW,
                               highest_bits_per_s=HIGH)
        several += len(table) > 1
        assert len(table.breakpoints_bits_per_s) == len(table) - 1
        assert list(table.sent_bits) == sorted(set(table.sent_bits))  # slow links send less
        for index, rate in enumerate(table.breakpoints_bits_per_s):
            assert LOW < rate < HIGH
            before, after = (table.fixed_s[i] + table.sent_bits[i] / rate
                             for i in (index, index + 1))
            assert before == pytest.approx(after)
            assert table.plan_at(rate * 0.999) is table.plans[index]
            assert table.plan_at(rate * 1.001) is table.plans[index + 1]
    assert several >= 3


def test_beyond_its_ends_the_table_still_answers(table):
    assert table.plan_at(LOW / 10) is table.plans[0]
    assert table.plan_at(HIGH * 10) is table.plans[-1]
    assert table.plan_at(math.inf) is table.plans[-1]


def test_one_rate_makes_one_plan(make_profile):
    table = tabulate_plans(make_profile(0), Constraints(), lowest_bits_per_s=1e6,
                           highest_bits_per_s=1e6)
    assert len(table) == 1
    assert list(table) == [table.plan_at(1e6)]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_that_is_none_is_refused(table, rate):
    with pytest.raises(InputError, match="expected above 0"):
        table.plan_at(rate)


def test_round_trip_is_lossless(table, tmp_path):
    table.save(tmp_path / "table.json")
    assert PlanTable.load(tmp_path / "table.json") == table


def test_a_changed_or_truncated_file_is_refused(table, tmp_path):
    path = tmp_path / "table.json"
    table.save(path)
    text = path.read_text()
    document = json.loads(text)
    document["body"]["breakpoints_bits_per_s"][0] *= 2
    path.write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match="changed after"):
        PlanTable.load(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ArtefactError, match="no complete JSON"):
        PlanTable.load(path)


def test_what_is_no_table_is_refused(table):
    with pytest.raises(InputError, match="ascending"):
        dataclasses.replace(table, lowest_bits_per_s=HIGH, highest_bits_per_s=LOW)
    with pytest.raises(InputError, match="one more than plans"):
        dataclasses.replace(table, plans=table.plans[1:])


def test_bad_arguments_say_what_to_do(make_profile):
    profile = make_profile(0)
    with pytest.raises(InputError, match="lower one first"):
        tabulate_plans(profile, Constraints(), lowest_bits_per_s=2.0, highest_bits_per_s=1.0)
    with pytest.raises(InputError, match="uplink rates"):
        tabulate_plans(profile, Constraints(), lowest_bits_per_s=0.0, highest_bits_per_s=1.0)
    with pytest.raises(InputError, match="latency_s"):
        tabulate_plans(profile, Constraints(latency_s=1.0), lowest_bits_per_s=1e5,
                       highest_bits_per_s=1e6)
    with pytest.raises(InfeasibleError):
        tabulate_plans(profile, Constraints(output_error=-1.0), lowest_bits_per_s=1e5,
                       highest_bits_per_s=1e6)
