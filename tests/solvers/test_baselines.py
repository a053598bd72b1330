"""All baselines by name, and the exact solver against every one of them."""

import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.profiling.table import InputEncoding
from autosplit.solvers import Constraints, fastest_by_enumeration, solve
from autosplit.solvers.baselines import BASELINES, applicable, compare_baselines
from autosplit.solvers.charging import PLAIN


def with_every_need(profile):
    """Gives a profile the bits and encodings that all baselines ask for."""
    encodings = tuple(InputEncoding(name=name, payload_bytes=100.0, lossless=False)
                      for name in ("jpeg-q80", "jpeg-q60"))
    return dataclasses.replace(profile, input_encodings=(*profile.input_encodings, *encodings))


def random_limits(profile, seed):
    """Draws limits on memory and errors around what the unconstrained optimum spends."""
    rng = np.random.default_rng(seed)
    free = fastest_by_enumeration(profile, Constraints())
    share = rng.uniform(0.3, 1.5, 3)
    return Constraints(memory_bytes=float(share[0] * free.edge_memory_bytes),
                       output_error=float(share[1] * free.predicted_output_error),
                       quant_mse=float(share[2] * free.quant_mse))


def test_every_baseline_is_labelled_with_its_name(make_resnet50):
    profile = with_every_need(make_resnet50())
    plans = compare_baselines(profile, Constraints(memory_bytes=4 << 20))
    assert [plan.label for plan in plans] == list(BASELINES)
    for plan in plans:
        assert plan.reason
        assert plan.fingerprint == profile.fingerprint
    assert len({plan.latency_s for plan in plans}) > 8


def test_by_default_only_what_the_profile_has(make_profile):
    profile = make_profile(1)
    names = applicable(profile)
    assert "cloud-only (jpeg-q80)" not in names
    for bits in (2, 4, 6, 8):
        assert (f"uniform {bits}-bit" in names) == (bits in profile.bits)
    assert [plan.label for plan in compare_baselines(profile, Constraints())] == list(names)


def test_what_cannot_be_priced_says_why(make_profile):
    profile = next(p for p in map(make_profile, range(50)) if 8 not in p.bits)
    with pytest.raises(InputError, match=r"expected some of .*neurosurgeon.*lagrange heuristic"):
        compare_baselines(profile, Constraints(), ["Neurosurgeon"])
    for name in ("uniform 8-bit", "QDMP, then 8-bit edge", "edge-only (8-bit)"):
        with pytest.raises(InputError, match="candidates"):
            compare_baselines(profile, Constraints(), [name])
    with pytest.raises(InputError, match="jpeg-q90"):
        compare_baselines(profile, Constraints(), ["cloud-only (jpeg-q60)"])


@pytest.mark.parametrize("block", range(4))
def test_the_exact_solver_beats_every_baseline(make_profile, block):
    """Two hundred graphs, every other one with limits.

    An unquantized edge has no error, which no bits can match, so it counts without limits.
    """
    compared = 0
    for seed in range(50 * block, 50 * (block + 1)):
        profile = make_profile(seed)
        limits = random_limits(profile, seed) if seed % 2 else Constraints()
        best = solve(profile, limits).best.latency_s
        for plan in compare_baselines(profile, limits):
            if plan.feasible and not (plan.encoding == PLAIN and limits.limits()):
                assert best <= plan.latency_s * (1 + 1e-9), (seed, plan.label)
                compared += 1
    assert compared > 200
