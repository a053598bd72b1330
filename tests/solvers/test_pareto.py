import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autosplit.solvers.pareto import BLOCK, non_dominated


def by_comparison(points):
    """Compares all pairs; of equal points the first stays."""
    kept = []
    for i, point in enumerate(points):
        beaten = any((other <= point).all() and ((other < point).any() or j < i)
                     for j, other in enumerate(points) if j != i)
        if not beaten:
            kept.append(i)
    return kept


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 30), st.integers(1, 4)),
                  elements=st.integers(0, 5).map(float)))
def test_equals_comparison_of_all_pairs(points):
    assert non_dominated(points).tolist() == by_comparison(points)


def test_more_points_than_a_block():
    points = np.random.default_rng(0).integers(0, 30, (2 * BLOCK + 40, 3)).astype(float)
    assert non_dominated(points).tolist() == by_comparison(points)


def test_infinite_coordinates():
    points = np.array([[1.0, np.inf, 0.0], [2.0, np.inf, 0.0], [3.0, 0.0, 0.0]])
    assert non_dominated(points).tolist() == [0, 2]
