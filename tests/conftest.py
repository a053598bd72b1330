"""Settings of every test run: the CPU, and property tests that give the same answer each time."""

import os

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compilation makes the first example slow, so there is no deadline; CI is derandomized, so that
# a failure there has to do with the change.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


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
