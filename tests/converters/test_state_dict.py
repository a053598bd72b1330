"""Conversion uses every key and loses nothing; tests/models compares what networks compute."""

import jax
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.errors import ConversionError

LARGE = ("resnet50", "resnet101", "resnext50_32x4d", "mnasnet1_0", "googlenet_aux")
NAMES = (
    "resnet18",
    "mobilenet_v2",
    *(pytest.param(name, marks=pytest.mark.heavy) for name in LARGE),
)


def original(torchvision, name):
    if name == "googlenet_aux":
        return torchvision.models.googlenet(aux_logits=True, init_weights=False)
    return getattr(torchvision.models, name)()


def randomize(torch, module, seed):
    """Makes weights and batch-norm statistics random, with outputs of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in module.state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.copy_(0.5 + noise)
        elif tensor.ndim > 1:
            fan_in = tensor[0].numel()
            tensor.copy_((noise - 0.5) * (12 / fan_in) ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(noise - 0.5)
    return module.eval()


def arrays(module):
    return {key: tensor.numpy().copy() for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_loads_what_we_write_and_gets_its_own_back(torch, torchvision, tmp_path, name):
    module = randomize(torch, original(torchvision, name), seed=2)
    template = models.variable_shapes(models.create_model(name))
    written = converters.to_state_dict(converters.convert(arrays(module), template))
    converters.write_state_dict(tmp_path / "net.pth", written)
    copy = original(torchvision, name)
    copy.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True), strict=True)
    assert list(copy.state_dict()) == list(module.state_dict())
    for key, tensor in module.state_dict().items():
        assert torch.equal(copy.state_dict()[key], tensor), key


@pytest.fixture(scope="module")
def template():
    return models.variable_shapes(models.create_model("resnet18", num_classes=3))


@pytest.fixture
def state_dict(template):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    return converters.to_state_dict(zeros)


def test_there_and_back_is_the_identity_without_torch(template):
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), template)
    back = converters.convert(converters.to_state_dict(variables), template)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_every_misfit_is_named(template, state_dict):
    state_dict.pop("bn1.bias")
    state_dict["head.weight"] = np.zeros(3, np.float32)
    state_dict["fc.weight"] = np.zeros((1000, 512), np.float32)
    state_dict["fc.bias"] = np.zeros(3, np.int64)
    with pytest.raises(ConversionError) as caught:
        converters.convert(state_dict, template)
    message = str(caught.value)
    assert "1 missing: bn1.bias" in message
    assert "1 left over: head.weight" in message
    assert "fc.weight (1000, 512), expected (3, 512)" in message
    assert "fc.bias int64" in message


def test_step_counters_are_ignored_and_no_other_integer(template, state_dict):
    for key in [k for k in state_dict if k.endswith("num_batches_tracked")]:
        del state_dict[key]
    converters.convert(state_dict, template)
    state_dict["steps"] = np.zeros((), np.int64)
    with pytest.raises(ConversionError, match="left over: steps"):
        converters.convert(state_dict, template)


def test_half_precision_becomes_the_templates_type(template, state_dict):
    halves = {k: v.astype(jax.numpy.bfloat16) for k, v in state_dict.items()}
    variables = converters.convert(halves, template)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_a_variable_without_counterpart_is_named():
    with pytest.raises(ConversionError, match="params/dense/gamma"):
        converters.to_state_dict({"params": {"dense": {"gamma": np.ones(2)}}})
