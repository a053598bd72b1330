"""Networks against their PyTorch originals, on random weights."""

import functools

import jax
import numpy as np
import pytest

from autosplit import converters, models
from tests.models.torch_modules import arrays, randomize

# One side is odd, so that padding on the wrong side would show.
SHAPE = (4, 65, 64, 3)
LARGEST_ERROR = 1e-4


def called(torch, module, images):
    """Calls a module on one thread: its others wait for each other where a machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return module(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    finally:
        torch.set_num_threads(threads)


def require_close(outputs, expected):
    for ours, theirs in zip(jax.tree.leaves(outputs), expected, strict=True):
        theirs = theirs.numpy()
        assert np.std(theirs) > 1e-3
        error = np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)
        assert error <= LARGEST_ERROR


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="session")
def require_parity(torch, images):
    """Checks outputs, and that the module gets its own state back from our variables."""

    def check(model, module, images=images):
        original = arrays(randomize(torch, module).eval())
        variables = converters.convert(original, models.variable_shapes(model))
        with torch.inference_mode():
            expected = called(torch, module, images)
        require_close(jax.jit(model.apply)(variables, images), [expected])

        written = {k: torch.from_numpy(v) for k, v in converters.to_state_dict(variables).items()}
        randomize(torch, module).load_state_dict(with_versions(module, written), strict=True)
        for key, array in arrays(module).items():
            np.testing.assert_array_equal(array, original[key], key)

    return check


def with_versions(module, tensors):
    """Adds what torch stores beside the tensors; torchvision's MNASNet asks for it."""
    state_dict = module.state_dict()
    state_dict.update(tensors)
    for key in state_dict.keys() - tensors.keys():
        del state_dict[key]
    return state_dict


@pytest.fixture(scope="session")
def require_training_parity(torch, images):
    """Checks outputs and running means after one call in training, dropout rates being 0."""

    def check(model, module):
        original = arrays(randomize(torch, module).train())
        variables = converters.convert(original, models.variable_shapes(model))
        with torch.no_grad():
            expected = called(torch, module, images)
        step = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        outputs, state = jax.jit(step)(variables, images)
        require_close(outputs, [expected] if torch.is_tensor(expected) else expected)

        means = {k: v for k, v in module.state_dict().items() if k.endswith("running_mean")}
        updated = converters.to_state_dict({"batch_stats": state["batch_stats"]})
        assert any(np.any(original[key] != mean.numpy()) for key, mean in means.items())
        require_close([updated[key] for key in means], means.values())

    return check
