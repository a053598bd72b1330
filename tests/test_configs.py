"""Every configuration describes something that exists, and flags override its fields."""

import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from autosplit.data import PACKAGES
from autosplit.hardware import named_device
from autosplit.models import create_model
from autosplit.models.resnet import Bottleneck, ResNet
from autosplit.quant.clipping import METHODS
from experiments.steps import check_fields, constraints_of, profile_settings

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# These work on several networks or on none; they are tested with their programs.
OTHERS = {
    "codec_speed", "face_demo", "proxies", "search_speed", "solver_cost", "speed", "zoo",
}  # fmt: skip
NAMES = sorted({path.stem for path in REPOSITORY.glob("configs/[!_]*.py")} - OTHERS)
OF_MAIN = [name for name in NAMES if not name.startswith("benchmark")]


# ml_collections loads a file as Python did before 3.4.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


def model_of(config):
    """Returns a configuration's model: one of the zoo by name, or a ResNet by its sizes."""
    if "name" in config.model:
        return create_model(config.model.name)
    return ResNet(block=Bottleneck, **config.model.to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_model_takes_the_images(name):
    config = config_of(name)
    size = config.images.crop_pixels if "images" in config else config.image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    model = model_of(config)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.eval_shape(model.apply, variables, images).shape[0] == 2


@pytest.mark.parametrize("name", NAMES)
def test_devices_bits_and_clipping_exist(name):
    config = config_of(name)
    assert named_device(config.edge) != named_device(config.cloud)
    assert list(config.bits) == sorted(set(config.bits))
    assert set(config.bits) <= set(range(1, 9))
    assert config.get("clipping", "mse") in METHODS
    assert isinstance(config.seed, int)


@pytest.mark.parametrize("name", OF_MAIN)
def test_a_config_of_the_main_job_has_all_that_it_reads(name):
    config = config_of(name)
    check_fields(config)
    settings = profile_settings(config)
    assert settings["network"].uplink_bits_per_s == config.network.uplink_bits_per_s
    assert constraints_of(config).limits()
    assert 0 < config.images.calibration < config.images.limit
    assert config.images.crop_pixels <= config.images.resize_pixels
    for place in (config.model.weights, config.images.source):
        assert place in PACKAGES or pathlib.Path(place).exists()


@pytest.fixture
def parse(monkeypatch):
    """Returns a function from a name and flags to the configuration that a program sees."""

    def run(name, *arguments):
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        command = ["program", f"--config={REPOSITORY / 'configs' / name}.py", *arguments]
        monkeypatch.setattr(sys, "argv", command)  # where ml_collections looks for overrides
        values(command)
        return values["config"].value

    return run


@pytest.mark.parametrize("name", NAMES)
def test_flags_override_fields(parse, name):
    before, after = config_of(name), parse(
        name, "--config.network.uplink_bits_per_s=1e6", "--config.bits=(2,8)", "--config.edge=tpu"
    )
    assert after.network.uplink_bits_per_s == 1e6 != before.network.uplink_bits_per_s
    assert after.bits == (2, 8)
    assert after.edge == "tpu"
    assert after.seed == before.seed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["netwrk", "network.speed", "model.depth"])
def test_an_unknown_field_is_refused(parse, name, field):
    with pytest.raises((AttributeError, KeyError), match=field.rpartition(".")[2]):
        parse(name, f"--config.{field}=3")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_type_is_refused(parse, name):
    with pytest.raises(flags.IllegalFlagValueError):
        parse(name, "--config.network.uplink_bits_per_s=fast")
