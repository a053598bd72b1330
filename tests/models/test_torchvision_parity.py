"""The ports compute what torchvision's networks do, and exchange checkpoints with them."""

import functools

import numpy as np
import pytest

from autosplit import converters, models
from autosplit.models.resnet import BasicBlock, Bottleneck

NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mnasnet1_0",
    "googlenet",
    "googlenet_aux",
)


def original(torchvision, name):
    """Builds torchvision's network of that name."""
    if name.startswith("googlenet"):
        aux = name.endswith("aux")
        return torchvision.models.googlenet(aux_logits=aux, init_weights=False)
    return getattr(torchvision.models, name)()


def small_pair(torchvision, name):
    """Returns a small port without dropout, and torchvision's network of the same size."""
    theirs = torchvision.models
    if name == "mobilenet_v2":
        stages = ((1, 8, 1, 1), (4, 16, 2, 2), (4, 16, 1, 1))
        rows = [[t, c, n, s] for t, c, n, s in stages]
        port = models.MobileNetV2(num_classes=7, stages=stages, dropout_rate=0.0)
        return port, theirs.MobileNetV2(7, inverted_residual_setting=rows, dropout=0.0)
    if name == "mnasnet":
        port = models.MNASNet(num_classes=7, alpha=0.2, dropout_rate=0.0)
        return port, theirs.MNASNet(0.2, num_classes=7, dropout=0.0)
    if name == "googlenet":
        port = models.GoogLeNet(
            num_classes=7, aux_heads=True, dropout_rate=0.0, aux_dropout_rate=0.0
        )
        module = theirs.GoogLeNet(7, init_weights=False, dropout=0.0, dropout_aux=0.0)
        return port, module
    blocks = theirs.resnet
    if name == "resnet":
        port = models.ResNet(stage_sizes=(1, 1, 1, 1), block=BasicBlock, num_classes=7)
        return port, theirs.ResNet(blocks.BasicBlock, [1, 1, 1, 1], num_classes=7)
    block = functools.partial(Bottleneck, groups=8, group_features=4)
    port = models.ResNet(stage_sizes=(1, 2, 1, 1), block=block, num_classes=7)
    sizes = {"groups": 8, "width_per_group": 4}
    return port, theirs.ResNet(blocks.Bottleneck, [1, 2, 1, 1], num_classes=7, **sizes)


SMALL = ("resnet", "resnext", "mobilenet_v2", "mnasnet", "googlenet")


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_compute_the_same(torchvision, require_parity, name):
    require_parity(*small_pair(torchvision, name))


@pytest.mark.parametrize(
    "name", [*SMALL[:-1], pytest.param("googlenet", marks=pytest.mark.heavy)]
)
def test_small_networks_train_the_same(torchvision, require_training_parity, name):
    require_training_parity(*small_pair(torchvision, name))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_the_checkpoint_has_its_place(torch, torchvision, name):
    with torch.device("meta"):
        state_dict = original(torchvision, name).state_dict()
    zeros = {k: np.broadcast_to(np.float32(0), tuple(t.shape)) for k, t in state_dict.items()}
    variables = converters.convert(zeros, models.variable_shapes(models.create_model(name)))
    written = converters.to_state_dict(variables)
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in zeros.items()}


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_the_full_network_computes_the_same(torchvision, require_parity, name):
    images = np.random.default_rng(1).normal(size=(2, 224, 224, 3)).astype(np.float32)
    require_parity(models.create_model(name), original(torchvision, name), images)
