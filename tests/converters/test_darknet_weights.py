"""Darknet's weights are read in its order, whole or as a backbone, and written back alike."""

import dataclasses
import pathlib
import struct

import jax
import numpy as np
import pytest

from autosplit import converters, models
from autosplit.converters.darknet_weights import (
    BACKBONE_SECTIONS,
    count_floats,
    read_darknet_weights,
    write_darknet_weights,
)
from autosplit.errors import ConversionError, InputError
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.yolo import YOLO, create_yolo

SECTIONS = parse_cfg(
    (pathlib.Path(__file__).parents[1] / "models" / "yolo_small.cfg").read_text()
)
HEADER = struct.pack("<3iq", 0, 2, 5, 32_013_312)


def floats(count, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype("<f4")


def write_file(path, count, header=HEADER):
    path.write_bytes(header + floats(count).tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [("yolov3", 248_007_048), ("yolov3_tiny", 35_434_956), ("yolov3_spp", 252_209_544)],
)
def test_file_sizes_are_the_published_ones(name, num_bytes):
    assert len(HEADER) + 4 * count_floats(create_yolo(name).sections) == num_bytes


def test_the_backbone_of_darknet53_has_the_published_size():
    sections = create_yolo("yolov3").sections[: BACKBONE_SECTIONS[0]]
    assert len(HEADER) + 4 * count_floats(sections) == 162_482_580


def test_arrays_come_in_darknets_order(tmp_path):
    text = """
    [net]
    channels=2
    [convolutional]
    batch_normalize=1
    filters=3
    size=1
    stride=1
    pad=1
    activation=leaky
    [convolutional]
    filters=6
    size=1
    stride=1
    pad=1
    activation=linear
    [yolo]
    mask=0
    anchors=1,1
    classes=1
    num=1
    """
    path = tmp_path / "w"
    numbers = np.arange(1, 43, dtype="<f4")
    path.write_bytes(HEADER + numbers.tobytes())
    found = read_darknet_weights(path, parse_cfg(text))
    assert (found.version, found.images_seen, found.num_sections) == ((0, 2, 5), 32_013_312, 3)
    assert {key: value.ravel().tolist() for key, value in found.state_dict.items()} == {
        "module_list.0.BatchNorm2d.bias": [1, 2, 3],
        "module_list.0.BatchNorm2d.weight": [4, 5, 6],
        "module_list.0.BatchNorm2d.running_mean": [7, 8, 9],
        "module_list.0.BatchNorm2d.running_var": [10, 11, 12],
        "module_list.0.Conv2d.weight": list(range(13, 19)),
        "module_list.1.Conv2d.bias": list(range(19, 25)),
        "module_list.1.Conv2d.weight": list(range(25, 43)),
    }
    assert found.state_dict["module_list.1.Conv2d.weight"].shape == (6, 3, 1, 1)


def test_a_whole_file_fits_the_model_and_goes_back(tmp_path):
    path = write_file(tmp_path / "a.weights", count_floats(SECTIONS))
    weights = read_darknet_weights(path, SECTIONS)
    template = models.variable_shapes(YOLO(SECTIONS), 32)
    variables = converters.convert(weights.state_dict, template)
    back = dataclasses.replace(weights, state_dict=converters.to_state_dict(variables))
    write_darknet_weights(tmp_path / "b.weights", SECTIONS, back)
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("given", "covered"), [(None, 15), (15, 15), (6, 6), (0, 0)])
def test_a_backbone_is_read_and_written(tmp_path, given, covered):
    path = write_file(tmp_path / "a", count_floats(SECTIONS[:covered]))
    weights = read_darknet_weights(path, SECTIONS, given)
    assert weights.num_sections == covered
    assert not any(key.startswith("module_list.16.") for key in weights.state_dict)
    write_darknet_weights(tmp_path / "b", SECTIONS, weights)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_a_backbone_starts_a_model(tmp_path):
    path = write_file(tmp_path / "a", count_floats(SECTIONS[:15]))
    backbone = read_darknet_weights(path, SECTIONS).state_dict
    template = models.variable_shapes(YOLO(SECTIONS), 32)
    with pytest.raises(ConversionError, match=r"2 missing: module_list\.16"):
        converters.convert(backbone, template)
    initial = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), template)
    whole = {**converters.to_state_dict(initial), **backbone}
    variables = converters.convert(whole, template)
    kernel = variables["params"]["module_list_0"]["Conv2d"]["kernel"]
    np.testing.assert_array_equal(
        kernel, backbone["module_list.0.Conv2d.weight"].transpose(2, 3, 1, 0)
    )
    assert not variables["params"]["module_list_16"]["Conv2d"]["kernel"].any()


@pytest.mark.parametrize(
    ("header", "version", "seen"),
    [
        (struct.pack("<4i", 0, 1, 0, 77), (0, 1, 0), 77),
        (struct.pack("<3iq", 0, 2, 0, 2**33), (0, 2, 0), 2**33),
        (struct.pack("<3iq", 1, 0, 3, 5), (1, 0, 3), 5),
    ],
)
def test_the_count_of_images_is_longer_since_version_0_2(tmp_path, header, version, seen):
    path = write_file(tmp_path / "a", count_floats(SECTIONS), header)
    weights = read_darknet_weights(path, SECTIONS)
    assert (weights.version, weights.images_seen) == (version, seen)
    write_darknet_weights(tmp_path / "b", SECTIONS, weights)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_other_lengths_are_refused_with_the_numbers(tmp_path):
    whole, part = count_floats(SECTIONS), count_floats(SECTIONS[:15])
    for count in (0, part - 1, whole - 1):
        path = write_file(tmp_path / "short", count)
        with pytest.raises(ConversionError, match=f"{count} floats.*{whole} .*truncated"):
            read_darknet_weights(path, SECTIONS)
    path = write_file(tmp_path / "long", whole + 1)
    with pytest.raises(ConversionError, match=rf"{part} \(the first 15 sections\).*another cfg"):
        read_darknet_weights(path, SECTIONS)
    # Not a whole number of floats.
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ConversionError, match=rf"{whole - 1}\.5 floats"):
        read_darknet_weights(path, SECTIONS)
    path = write_file(tmp_path / "backbone", part)
    with pytest.raises(ConversionError, match=f"expected {whole}"):
        read_darknet_weights(path, SECTIONS, len(SECTIONS))


@pytest.mark.parametrize("length", [0, 11, 19])
def test_a_file_without_a_header_is_refused(tmp_path, length):
    path = tmp_path / "a"
    path.write_bytes(HEADER[:length])
    with pytest.raises(ConversionError, match=f"{length} bytes, less than a header"):
        read_darknet_weights(path, SECTIONS)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_darknet_weights(tmp_path / "absent", SECTIONS)
    with pytest.raises(InputError, match="expected 0 to 18"):
        read_darknet_weights(tmp_path / "absent", SECTIONS, 19)


def test_a_state_dict_that_does_not_fit_is_not_written(tmp_path):
    path = write_file(tmp_path / "a", count_floats(SECTIONS))
    weights = read_darknet_weights(path, SECTIONS)
    changed = dict(weights.state_dict)
    del changed["module_list.0.BatchNorm2d.bias"]
    changed["module_list.99.Conv2d.bias"] = np.zeros(3, np.float32)
    changed["module_list.10.Conv2d.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ConversionError) as caught:
        write_darknet_weights(
            tmp_path / "b", SECTIONS, dataclasses.replace(weights, state_dict=changed)
        )
    for part in ("0.BatchNorm2d.bias missing", "99.Conv2d.bias left over", "(3,), expected (21,)"):
        assert part in str(caught.value)
    assert not (tmp_path / "b").exists()
