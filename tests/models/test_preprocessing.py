"""Every model says how its images are prepared; values against plain arithmetic."""

import numpy as np
import pytest

from autosplit import models
from autosplit.errors import InputError


@pytest.fixture
def photographs():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_has_an_input_that_fits(name, photographs):
    prepared = models.image_input(name)
    assert prepared.resize_pixels >= prepared.crop_pixels
    values = prepared.normalize(photographs)
    assert values.shape == photographs.shape
    assert values.dtype == np.float32


def test_torchvisions_networks_take_torchvisions_normalization(torchvision, photographs):
    transforms = torchvision.transforms
    values = models.image_input("resnet18").normalize(photographs)
    usual = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = [usual(transforms.ToTensor()(one)).numpy().transpose(1, 2, 0) for one in photographs]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_caffes_networks_take_blue_first(photographs):
    values = models.image_input("resnet50_v1").normalize(photographs)
    expected = photographs[..., [2, 1, 0]].astype(float) - (103.939, 116.779, 123.68)
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_googlenet_takes_what_torchvision_makes_of_its_usual_input(photographs):
    # torchvision's GoogLeNet.transform_input, from its documentation: (x * std + mean - .5) / .5.
    usual = models.image_input("resnet18").normalize(photographs)
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    values = models.image_input("googlenet").normalize(photographs)
    np.testing.assert_allclose(values, (usual * std + mean - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize("images", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 4), np.uint8)])
def test_other_arrays_are_refused(images):
    with pytest.raises(InputError, match="expected uint8"):
        models.image_input("resnet18").normalize(images)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"resnet18, .*efficientnet_lite2"):
        models.image_input("resnet19")
