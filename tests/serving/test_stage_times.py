import dataclasses
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.serving.stage_times import StageTimes, median_times, stage_table

NAMES = [field.name for field in dataclasses.fields(StageTimes)]
TIMES = st.fixed_dictionaries({name: st.floats(0, 10) for name in NAMES})


@given(st.lists(TIMES, min_size=1, max_size=7))
def test_each_stage_has_its_own_median(times):
    median = median_times([StageTimes(**one) for one in times])
    for name in NAMES:
        assert getattr(median, name) == statistics.median(one[name] for one in times)


def test_there_is_no_median_of_nothing():
    with pytest.raises(InputError, match="at least one"):
        median_times([])


def test_the_table_has_a_row_per_stage_with_milliseconds():
    measured = StageTimes(**{name: 0.001 * index for index, name in enumerate(NAMES)})
    table = stage_table(measured, {"edge_s": 0.25, "latency_s": 2.5})
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert list(rows) == [name.removesuffix("_s") for name in NAMES]
    assert rows["edge"] == ["0.000", "250.000"]
    assert rows["pack"] == ["1.000", "-"]
    assert rows["total"] == [f"{len(NAMES) - 1}.000", "2500.000"]
    assert len({len(line) for line in table.splitlines()}) == 1
