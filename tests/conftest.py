"""Settings of every test run: the CPU, property tests that repeat, a budget for heavy tests."""

import itertools
import os
import random
import time

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compilation makes the first example slow, so there is no deadline; CI is derandomized, so that
# a failure there has to do with the change.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# Seconds after which no further heavy test starts, and what decides on the order of their files, so
# that over several runs each has its turn; set by .ci/run.
HEAVY_BUDGET_S = float(os.environ.get("HEAVY_BUDGET_S", "inf"))
HEAVY_SEED = os.environ.get("HEAVY_SEED")
STARTED_S = time.monotonic()


def pytest_collection_modifyitems(items):
    if HEAVY_SEED is not None:
        files = [list(tests) for _, tests in itertools.groupby(items, lambda item: item.path)]
        random.Random(HEAVY_SEED).shuffle(files)
        items[:] = itertools.chain.from_iterable(files)


def pytest_runtest_setup(item):
    if item.get_closest_marker("heavy") and time.monotonic() - STARTED_S > HEAVY_BUDGET_S:
        pytest.skip(f"no heavy test starts after {HEAVY_BUDGET_S:.0f} s")


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="parity with PyTorch needs torch")


@pytest.fixture(scope="session")
def torchvision(torch):
    """Imports torchvision on a torch without CUDA.

    Its extension links CUDA and does not load there, so the operators that its import
    describes are declared here; they are never called.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("torchvision", reason="parity with torchvision needs it")
    del library  # the operators live as long as it does
