"""The demonstration's plans: a detector with random weights, priced by its raw heads."""

import io
import json
import threading
import urllib.error
import urllib.request

import jax
import numpy as np
import PIL.Image
import pytest

import autosplit
from autosplit.errors import InputError
from autosplit.execution.grids import decode, from_levels, make_grid
from autosplit.graph.cuts import make_cut
from autosplit.hardware import Network, named_device
from autosplit.models import YOLO, make_detector
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.serving.cloud_server import serving
from configs import face_demo as config_file
from experiments import face_demo_plans
from experiments.face_demo import first_settings, limits_of, touring
from experiments.face_demo_cloud import answer_picture, serving_pictures
from experiments.face_demo_detector import (
    Detector,
    head_error,
    jpeg_error,
    profile_heads,
    scaled,
)
from experiments.face_demo_edge import PicturePane, found_objects, linked, open_split_pane
from experiments.face_demo_plans import PlanSet, RatePlan, choose
from experiments.face_demo_state import STAGES, Board, Settings

HEIGHT, WIDTH = 64, 96
CFG = """
[net]
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=21
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58
classes=2
num=3
"""


@pytest.fixture(scope="module")
def detector():
    model = YOLO(sections=parse_cfg(CFG))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, HEIGHT, WIDTH, 3), np.float32))
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    smooth = [PIL.Image.fromarray(image).resize((6, 4)).resize((WIDTH, HEIGHT)) for image in images]
    return Detector(
        model=model,
        detect=make_detector(model, score_threshold=0.01, max_detections=5),
        variables=variables,
        calibration=np.stack([np.asarray(image) for image in smooth]),
    )


@pytest.fixture(scope="module")
def config():
    made = config_file.get_config()
    made.edge, made.cloud = "eyeriss", "tpu"
    made.bits, made.clipping = (2, 8), "minmax"  # compiles sooner
    made.constraints.memory_bytes = 1 << 30
    made.constraints.output_error = 1.0
    made.jpeg_qualities, made.jpeg_quality = (30, 90), 90
    made.rates_bits_per_s = (1e4, 1e6)
    return made


@pytest.fixture(scope="module")
def profile(detector, config):
    return profile_heads(
        detector, config, edge=named_device("eyeriss"), cloud=named_device("tpu"),
        network=Network(uplink_bits_per_s=1e6),
    )  # fmt: skip


def test_the_errors_are_those_of_the_heads(detector, profile):
    body, whole = detector.graphs
    assert profile.fingerprint == whole.fingerprint != body.fingerprint
    layers, tensors = len(body.layers), len(body.tensors)
    assert (profile.weight_gain[:layers][profile.has_weight[:layers]] > 0).all()
    assert not profile.weight_gain[layers:].any()
    assert not profile.activation_error[tensors:].any()
    heads = body.outputs[0]
    assert (profile.activation_gain[heads] > 0).all()


def test_a_slow_link_gets_no_more_bytes_than_a_fast_one(detector, profile, config):
    plans = [
        choose(detector, face_demo_plans.with_uplink(profile, rate), config)
        for rate in config.rates_bits_per_s
    ]
    for plan in plans:
        assert any(plan.on_edge)
        assert not all(plan.on_edge)
    assert plans[0].uplink_bytes <= plans[1].uplink_bytes
    assert plans[0].output_error >= plans[1].output_error


def test_the_measured_error_is_that_of_the_heads_of_the_split(detector, profile, config):
    slow = face_demo_plans.with_uplink(profile, min(config.rates_bits_per_s))
    plan = choose(detector, slow, config)
    body, whole = detector.graphs
    split = autosplit.split(whole, detector.variables, plan)
    # The cloud of the same cut of the body, on what the edge of the detector's split sends.
    cut = make_cut(body, plan.on_edge[: len(body.layers)])
    errors, powers = [], []
    for image in detector.inputs:
        reference = np.asarray(detector.model.apply(detector.variables, image)[0])
        exact = autosplit.split(body, detector.variables, cut)
        sent = [values_of(plan, code) for code in split.edge_layers(image)]
        heads = np.asarray(exact.cloud_outputs(sent)[0])
        errors.append(((heads - reference) ** 2).sum())
        powers.append((reference**2).sum())
    assert head_error(detector, plan) == pytest.approx(sum(errors) / sum(powers), rel=0.1)


def values_of(plan, code):
    """Returns the values of what is sent, by the plan's own clip."""
    index = plan.crosses.index(True)
    clip = (plan.activation_low[index], plan.activation_high[index])
    grid = make_grid(*clip, plan.a_bits[index])
    return decode(grid, from_levels(grid, code))


def test_a_better_jpeg_errs_less(detector):
    assert 0 < jpeg_error(detector, 90) < jpeg_error(detector, 20)


def test_constraints_that_no_split_keeps_are_told(detector, profile, config):
    small = config.copy_and_resolve_references()
    small.constraints.memory_bytes = 10
    with pytest.raises(InputError, match="No plan with layers on both sides"):
        choose(detector, profile, small)


def rate_plan(rate, folder="splits/0"):
    return RatePlan(
        uplink_bits_per_s=rate, folder=folder, cut_name="after a", on_edge=(True, False),
        w_bits=(8, 32), a_bits=(2, 32), payload_bytes=10.0, output_error=0.1,
        edge_memory_bytes=5, fixed_s=0.1, latency_s=0.2,
    )  # fmt: skip


def plan_set(**changes):
    fields = {
        "rates": (rate_plan(1e6), rate_plan(4e6), rate_plan(1e8)), "layer_names": ("a", "b"),
        "jpeg_errors": {"75": 0.1}, "whole_bytes": 9, "devices": ("x", "y"),
    }  # fmt: skip
    return PlanSet(**{**fields, **changes})


@pytest.mark.parametrize(
    ("rate", "index"), [(1, 0), (1e6, 0), (1.9e6, 0), (2.1e6, 1), (19e6, 1), (21e6, 2), (1e9, 2)]
)
def test_the_plan_of_the_nearest_rate_is_taken(rate, index):
    assert plan_set().index_at(rate) == index


def test_saved_plans_are_read_until_the_configuration_changes(tmp_path, monkeypatch, config):
    made = []

    def make(detector, config, workdir):
        made.append(config)
        return plan_set()

    monkeypatch.setattr(face_demo_plans, "load_detector", lambda config: None)
    monkeypatch.setattr(face_demo_plans, "make_plans", make)
    first = face_demo_plans.prepare(config, tmp_path)
    assert face_demo_plans.prepare(config, tmp_path) == first == plan_set()
    assert len(made) == 1
    other = config.copy_and_resolve_references()
    other.jpeg_quality = 30  # only shown, not planned with
    face_demo_plans.prepare(other, tmp_path)
    assert len(made) == 1
    other.error_weight_s = 7.0
    face_demo_plans.prepare(other, tmp_path)
    assert len(made) == 2
    (tmp_path / face_demo_plans.PLANS).write_text("{}")
    face_demo_plans.prepare(other, tmp_path)
    assert len(made) == 3


@pytest.fixture(scope="module")
def whole(detector):
    _, graph = detector.graphs
    return autosplit.split(graph, detector.variables, make_cut(graph, (False,) * len(graph.layers)))


def jpeg(image):
    target = io.BytesIO()
    PIL.Image.fromarray(image).save(target, "JPEG", quality=95)
    return target.getvalue()


def test_the_cloud_finds_in_a_picture_what_the_detector_does(detector, whole):
    picture = jpeg(detector.calibration[0])
    decoded = np.asarray(PIL.Image.open(io.BytesIO(picture)), np.float32)[None] / 255
    expected = detector.detect(detector.variables, decoded)
    boxes, scores, classes, valid = answer_picture(whole, picture)["outputs"]
    count = int(expected.valid.sum())
    assert count > 0
    assert np.shape(valid) == (1, count)
    np.testing.assert_allclose(boxes[0], expected.boxes[0, :count], atol=0.01)
    np.testing.assert_allclose(scores[0], expected.scores[0, :count], atol=0.01)
    assert np.array_equal(classes[0], expected.classes[0, :count])


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg(np.zeros((8, 8, 3), np.uint8))])
def test_the_cloud_refuses_what_is_no_picture_of_its_size(whole, data):
    with serving_pictures(whole) as address:
        request = urllib.request.Request(f"http://{address}/", data, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        with refused.value as answer:
            assert answer.status == 400
            assert "error" in json.loads(answer.read())


def test_a_frame_goes_through_cloud_only_over_a_link(detector, whole):
    network = Network(uplink_bits_per_s=1e7, round_trip_s=0.002)
    settings = Settings(uplink_bits_per_s=2e7, jpeg_quality=90)
    with serving_pictures(whole) as address, linked(address, network) as (shaped, link):
        pane = PicturePane(shaped, link)
        first, second = (pane.detect(detector.calibration[0], settings) for _ in range(2))
        pane.close()
    assert link.network.uplink_bits_per_s == 2e7
    assert first.found == second.found != []
    assert set(second.stages_s) == set(STAGES)
    assert second.sent_bytes > second.payload_bytes > 100
    assert second.stages_s["uplink"] == pytest.approx(second.sent_bytes * 8 / 2e7)


def test_a_frame_goes_through_the_split_over_a_link(detector, profile, config):
    _, graph = detector.graphs
    split = autosplit.split(graph, detector.variables, choose(detector, profile, config))
    plans = plan_set(rates=(rate_plan(1e6), rate_plan(1e7)))
    image, network = detector.calibration[0], Network(uplink_bits_per_s=1e6, round_trip_s=0.002)
    settings = Settings(uplink_bits_per_s=1e7, jpeg_quality=90)
    with serving(split) as address, open_split_pane(
        plans, {"splits/0": split}, address, network, detector.calibration
    ) as pane:
        found = [pane.detect(image, settings) for _ in range(2)][-1]
    expected = found_objects(split.cloud_outputs(split.edge_layers(scaled(image)[None])), (64, 96))
    assert [one.name for one in found.found] == [one.name for one in expected] != []
    np.testing.assert_allclose([x.box for x in found.found], [x.box for x in expected], atol=1e-5)
    assert (found.plan, set(found.stages_s)) == (1, set(STAGES))
    assert found.sent_bytes > found.payload_bytes > 0
    assert found.total_s >= network.round_trip_s


def test_boxes_are_relative_to_the_frame():
    outputs = [np.array([[[-4, 0, 48, 32], [0, 0, 0, 0]]]), np.array([[0.5, 0]]),
               np.array([[0, 0]]), np.array([[True, False]])]  # fmt: skip
    found, = found_objects(outputs, (64, 96, 3))
    assert (found.name, found.score) == ("person", 0.5)
    assert found.box == (0.0, 0.0, 0.5, 0.5)


def test_a_tour_visits_all_settings_and_stops(config):
    board, stopped = Board(first_settings(config), limits_of(config)), threading.Event()
    with touring(board, config, 0.01, stopped):
        assert stopped.wait(10.0)
    assert board.settings.uplink_bits_per_s == config.rates_bits_per_s[-1]
    assert board.settings.jpeg_quality == config.jpeg_quality
