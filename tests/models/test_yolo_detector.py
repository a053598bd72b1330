"""A detector is traced and cut: anywhere in its body, and not within what follows."""

import pathlib

import jax
import numpy as np
import pytest

import autosplit
from autosplit import models
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.detection_decode import decode
from autosplit.models.detector import make_detector
from autosplit.models.nms import non_max_suppression
from autosplit.models.yolo import YOLO, create_yolo

SMALL = pathlib.Path(__file__).with_name("yolo_small.cfg").read_text()
SETTINGS = {"score_threshold": 0.3, "iou_threshold": 0.5, "max_detections": 6, "pre_nms": 20}


def random_variables(model):
    """Random variables with moderate outputs: positive variances and scales, small kernels."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return (rng.normal(size=leaf.shape) * (2 / fan_in) ** 0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, models.variable_shapes(model, 32))


@pytest.fixture(scope="module")
def small():
    model = YOLO(parse_cfg(SMALL))
    images = np.random.default_rng(1).random((2, 16, 24, 3), np.float32)
    return model, random_variables(model), images


def test_detections_are_decoded_and_suppressed_heads(small):
    model, variables, images = small
    found = jax.jit(make_detector(model, **SETTINGS))(variables, images)
    heads = jax.jit(model.apply)(variables, images)
    boxes, scores = decode(heads, model.anchors, model.strides)
    expected = non_max_suppression(boxes, scores, **SETTINGS)
    assert found.valid.any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_every_cut_is_the_function(small):
    model, variables, images = small
    detect = make_detector(model, **SETTINGS)
    graph = autosplit.trace(detect, variables, images)
    assert graph.layers[-1].kind == "loop"
    assert [layer.kind for layer in graph.layers].count("loop") == 1
    assert len(graph.layers[-1].inputs) == 2
    assert len(graph.layers[-1].outputs) == 4
    expected = jax.jit(detect)(variables, images)
    cuts = graph.cuts()
    assert len(cuts) > 15
    with jax.disable_jit():
        for cut in cuts:
            split = autosplit.split(graph, variables, cut)
            found = split.cloud(split.edge(images))
            assert jax.tree.structure(found) == jax.tree.structure(expected)
            np.testing.assert_array_equal(found.valid, expected.valid)
            np.testing.assert_array_equal(found.classes, expected.classes)
            np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


def test_tiny_has_a_layer_for_each_section():
    model = create_yolo("yolov3_tiny")
    shapes = models.variable_shapes(model, 64)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    graph = autosplit.trace(make_detector(model), shapes, images)
    kinds = [layer.kind for layer in graph.layers]
    # Of two routes one joins maps; activation and batch norm belong to their convolution.
    expected = {"conv": 13, "pool": 6, "resize": 1, "concat": 1, "loop": 1}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected
    assert graph.layers[-1].kind == "loop"
    assert sum(1 for cut in graph.cuts() if 0 < sum(cut.on_edge) < len(graph.layers)) >= 20
