"""`Measured`: what was measured comes back, and nothing else does."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import ArtefactError, InputError
from autosplit.files import read_document, write_document
from autosplit.hardware import Device
from autosplit.hardware.measured import KIND, VERSION, LayerTime, Measured, load_device, shape_text
from autosplit.workload import Workload, tabulate

CONV = Workload(
    kind="conv", in_height=8, in_width=8, in_channels=3, out_height=8, out_width=8,
    out_channels=16, kernel_height=3, kernel_width=3, input_elements=192, output_elements=1024,
)  # fmt: skip
GEMM = Workload(kind="gemm", in_channels=1024, out_channels=10, weight_elements=10240)
POOL = Workload(kind="vector", input_elements=1024, output_elements=256, vector_ops=1024)
TIMES = (
    LayerTime(workload=CONV, float_s=4e-4, int8_s=1e-4, int8_form="conv"),
    LayerTime(workload=GEMM, float_s=2e-5, int8_s=7e-5, int8_form="dot"),  # slower in int8
    LayerTime(workload=POOL, float_s=3e-6, int8_s=3e-6, int8_form="float"),
)
LAPTOP = Measured(
    name="laptop",
    times=TIMES,
    memory_bytes_per_s=1e10,
    memory_bytes=4e9,
    fingerprints=("0123456789abcdef",),
    record={"device": {"cpu": "x"}, "started_utc": "2026-01-01T00:00:00+00:00"},
)
ALL_BITS = np.arange(1, 33)

counts = st.integers(1, 10**6)
shapes = st.builds(
    Workload, kind=st.sampled_from(["conv", "gemm", "vector"]), in_channels=counts,
    out_channels=counts, repeat=counts, input_elements=counts, vector_ops=counts,
)  # fmt: skip
seconds = st.floats(0, 10)
devices = st.lists(
    st.builds(LayerTime, workload=shapes, float_s=seconds, int8_s=seconds),
    min_size=1, max_size=6, unique_by=lambda time: time.workload,
).map(lambda times: Measured(name="drawn", times=tuple(times), memory_bytes_per_s=1e9))  # fmt: skip


# ---- Lookup


@given(device=devices, data=st.data())
def test_every_layer_gets_its_own_time_at_every_pair_of_bits(device, data):
    asked = data.draw(st.lists(st.sampled_from(device.times), min_size=1, max_size=9))
    found = device.latency_s(tabulate([time.workload for time in asked]), ALL_BITS, ALL_BITS)
    assert found.shape == (len(asked), 32, 32)
    for time, table in zip(asked, found, strict=True):
        for w_bits in (1, 7, 8, 9, 16, 32):
            for a_bits in (1, 8, 9, 32):
                fits = w_bits <= 8 and a_bits <= 8
                expected = min(time.float_s, time.int8_s) if fits else time.float_s
                assert table[w_bits - 1, a_bits - 1] == expected


@given(device=devices)
def test_latency_never_falls_when_bits_rise(device):
    found = device.latency_s(tabulate([t.workload for t in device.times]), ALL_BITS, ALL_BITS)
    assert (np.diff(found, axis=1) >= 0).all()
    assert (np.diff(found, axis=2) >= 0).all()


def test_a_layer_that_is_slower_in_int8_counts_as_float():
    found = LAPTOP.latency_s(tabulate([GEMM]), np.array([8]), np.array([8]))
    assert found.item() == 2e-5


def test_no_layer_takes_no_time():
    assert LAPTOP.latency_s(tabulate([]), np.array([4, 8]), np.array([8])).shape == (0, 2, 1)


def test_it_is_a_device():
    assert isinstance(LAPTOP, Device)
    assert isinstance(hash(LAPTOP), int)


def test_moving_takes_bytes_over_bytes_per_s():
    assert LAPTOP.move_s(1e10) == 1.0
    np.testing.assert_array_equal(LAPTOP.move_s([[0, 5e9]]), [[0.0, 0.5]])


@pytest.mark.parametrize("bits", [np.array([0]), np.array([33]), np.array([[8]]), np.array([1.5])])
def test_bits_that_cannot_be(bits):
    with pytest.raises(InputError, match="w_bits"):
        LAPTOP.latency_s(tabulate([CONV]), bits, np.array([8]))


# ---- A file from another graph


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Workload)])
def test_a_shape_that_differs_in_any_field_is_another_shape(field):
    value = "conv" if field == "kind" else getattr(GEMM, field) + 1
    other = dataclasses.replace(GEMM, **{field: value})
    with pytest.raises(InputError, match="another graph"):
        LAPTOP.latency_s(tabulate([CONV, other]), np.array([8]), np.array([8]))


def test_the_message_says_what_was_asked_what_is_there_and_what_to_do():
    larger = dataclasses.replace(CONV, in_height=9, out_height=9)
    with pytest.raises(InputError) as caught:
        LAPTOP.latency_s(tabulate([GEMM, larger]), np.array([8]), np.array([8]))
    said = str(caught.value)
    assert "Device file from another graph" in said
    assert "conv 3x3 9x8x3 to 9x8x16" in said
    assert "no time for 1 of 2 layers" in said
    assert "holds 3 layer shapes of the graphs 0123456789ab" in said
    assert shape_text(CONV) in said
    assert "experiments.measure_device" in said


# ---- Fields


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("field", ["memory_bytes_per_s", "memory_bytes"])
def test_a_rate_or_size_is_above_zero(field, value):
    with pytest.raises(InputError, match=field):
        dataclasses.replace(LAPTOP, **{field: value})


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf])
@pytest.mark.parametrize("field", ["float_s", "int8_s"])
def test_a_time_is_zero_or_more(field, value):
    with pytest.raises(InputError, match=field):
        dataclasses.replace(TIMES[0], **{field: value})


def test_no_times_or_two_of_one_shape():
    with pytest.raises(InputError, match="no times"):
        dataclasses.replace(LAPTOP, times=())
    with pytest.raises(InputError, match="one per shape"):
        dataclasses.replace(LAPTOP, times=(TIMES[0], TIMES[0]))


# ---- Files


@given(device=devices)
def test_a_saved_device_is_the_same_device(tmp_path_factory, device):
    path = tmp_path_factory.mktemp("device") / "device.json"
    device.save(path)
    assert load_device(path) == device


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "laptop.json"
    LAPTOP.save(path)
    return path


def test_a_saved_device_keeps_its_record(saved):
    loaded = load_device(saved)
    assert loaded == LAPTOP
    assert loaded.record["started_utc"] == "2026-01-01T00:00:00+00:00"
    assert [file.name for file in saved.parent.iterdir()] == ["laptop.json"]


def test_a_missing_file(tmp_path):
    with pytest.raises(ArtefactError, match="no complete JSON"):
        load_device(tmp_path / "none.json")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(saved, share):
    content = saved.read_text().rstrip()
    saved.write_text(content[: int(share * len(content))])
    with pytest.raises(ArtefactError, match="no complete JSON"):
        load_device(saved)


def test_a_file_with_a_faster_time(saved):
    content = json.loads(saved.read_text())
    content["body"]["times"][0]["int8_s"] /= 10
    saved.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match="was changed"):
        load_device(saved)


@pytest.mark.parametrize(("kind", "version"), [(KIND, VERSION + 1), ("autosplit.plan", VERSION)])
def test_a_file_of_another_version_or_kind(saved, kind, version):
    write_document(saved, kind, version, read_document(saved, KIND, VERSION))
    with pytest.raises(ArtefactError, match="expected"):
        load_device(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("times"),
        lambda body: body.update(colour="red"),
        lambda body: body.update(times=[]),
        lambda body: body.update(times=3),
        lambda body: body.update(memory_bytes_per_s="fast"),
        lambda body: body["times"][0].pop("float_s"),
        lambda body: body["times"][0].update(float_s=-1.0),
        lambda body: body["times"][0].update(float_s="soon"),
        lambda body: body["times"][0]["workload"].update(depth=3),
        lambda body: body["times"][0]["workload"].update(in_channels="many"),
    ],
)
def test_a_file_with_other_fields(saved, change):
    body = read_document(saved, KIND, VERSION)
    change(body)
    write_document(saved, KIND, VERSION, body)
    with pytest.raises(ArtefactError, match="holds no device"):
        load_device(saved)


def test_a_body_that_is_a_list(tmp_path):
    write_document(tmp_path / "list.json", KIND, VERSION, [1, 2])
    with pytest.raises(ArtefactError, match="holds no device"):
        load_device(tmp_path / "list.json")
