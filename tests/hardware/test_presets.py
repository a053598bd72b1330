"""Every preset works, and the ones of the paper give the paper's times."""

import numpy as np
import pytest

from autosplit.errors import ArtefactError, InputError
from autosplit.hardware import (
    DEVICES,
    NETWORKS,
    Device,
    LayerTime,
    Measured,
    Roofline,
    named_device,
    named_network,
)
from autosplit.hardware.network_presets import joules_per_bit
from autosplit.hardware.spec import PoweredDevice
from autosplit.workload import Workload, tabulate

LAYERS = tabulate(
    [
        Workload(
            kind="conv",
            in_height=56,
            in_width=56,
            in_channels=64,
            out_height=28,
            out_width=28,
            out_channels=128,
            kernel_height=3,
            kernel_width=3,
            stride_height=2,
            stride_width=2,
            input_elements=56 * 56 * 64,
            output_elements=28 * 28 * 128,
            weight_elements=9 * 64 * 128,
        ),
        Workload(kind="gemm", in_channels=2048, out_channels=1000, weight_elements=2_049_000),
        Workload(kind="vector", input_elements=100_352, output_elements=2048, vector_ops=100_352),
    ]
)
# Slowest first, by what their makers say of them.
RANKING = ("raspberry_pi_4", "raspberry_pi_5", "jetson_orin_nano", "a100", "h100")
# Devices whose power is published, W; none of them may spend more than it.
BOARD_W = {
    "raspberry_pi_4": 3,
    "raspberry_pi_5": 4,
    "jetson_orin_nano": 15,
    "coral_edge_tpu": 2,
    "hailo_8": 2.5,
    "mediatek_dla": 1.1,
    "a100": 400,
    "h100": 700,
}
# Peak TOPS at 8 bits as their makers print them, dense.
TOPS = {
    "jetson_orin_nano": 20,
    "coral_edge_tpu": 4,
    "hailo_8": 26,
    "mediatek_dla": 3.6,
    "a100": 624,
    "h100": 1979,
    "tpu_v5e": 393,
}


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_keeps_the_contract(name):
    device = named_device(name)
    assert isinstance(device, Device)
    assert isinstance(device, PoweredDevice)
    assert device.name == name
    assert device.memory_bytes is None or device.memory_bytes > 1e6
    latency = device.latency_s(LAYERS, np.arange(1, 33), np.arange(1, 17))
    assert latency.shape == (3, 32, 16)
    assert latency.dtype == np.float64
    assert np.all((latency > 0) & (latency < 1))
    assert np.all(np.diff(latency, axis=1) >= 0)
    assert np.all(np.diff(latency, axis=2) >= 0)
    np.testing.assert_allclose(
        device.move_s(np.array([1e6, 2e6])), device.move_s(1e6) * np.array([1, 2])
    )


@pytest.mark.parametrize("name", DEVICES)
def test_every_energy_is_known_everywhere_or_nowhere(name):
    device = named_device(name)
    energy = device.energy_j(LAYERS, np.arange(1, 33), np.arange(1, 17))
    assert energy.shape == (3, 32, 16)
    if device.energy is None:
        assert np.isnan(energy).all()
        assert np.isnan(device.move_j(1e6))
        return
    assert np.all((energy > 0) & (energy < 1))
    assert np.all(np.diff(energy, axis=1) >= -1e-12 * energy[:, 1:])
    assert np.all(np.diff(energy, axis=2) >= -1e-12 * energy[:, :, 1:])
    assert device.move_j(2e6) == pytest.approx(2 * device.move_j(1e6))
    assert device.move_j(1e6) > 0


def test_two_devices_publish_no_power():
    without = [name for name, device in DEVICES.items() if device.energy is None]
    assert without == ["tpu_v5e", "scale_systolic"]


def test_a_device_file_is_a_name(tmp_path):
    shape = Workload(kind="gemm", in_channels=10, out_channels=10)
    time = LayerTime(workload=shape, float_s=3e-4, int8_s=1e-4)
    measured = Measured(name="laptop", times=(time,), memory_bytes_per_s=1e10)
    measured.save(tmp_path / "laptop.json")
    assert named_device(str(tmp_path / "laptop.json")) == measured
    with pytest.raises(ArtefactError, match="missing"):
        named_device(str(tmp_path / "missing.json"))


@pytest.mark.parametrize("name", BOARD_W)
def test_no_device_draws_more_than_its_board(name):
    device = named_device(name)
    bits = np.array([4, 8, 16])
    watts = device.energy_j(LAYERS, bits, bits) / device.latency_s(LAYERS, bits, bits)
    assert watts.max() <= BOARD_W[name] * (1 + 1e-9)


@pytest.mark.parametrize("name", TOPS)
def test_a_product_without_traffic_runs_at_the_printed_rate(name):
    device = named_device(name)
    assert isinstance(device, Roofline)
    product = Workload(kind="gemm", in_channels=10**5, out_channels=10**5)
    eight = np.array([8])
    seconds = device.latency_s(tabulate([product]), eight, eight)[0, 0, 0] - device.overhead_s
    assert 2 * product.macs / seconds / 1e12 == pytest.approx(TOPS[name])


def test_hailo_8_runs_mobilenet_v2_as_often_as_published():
    moved = Workload(kind="vector", input_elements=17_647_000)
    eight = np.array([8])
    seconds = named_device("hailo_8").latency_s(tabulate([moved]), eight, eight).sum()
    assert 1 / seconds == pytest.approx(2434, rel=0.01)


def test_the_paper_edge_is_a_milliwatt_device():
    eight = np.array([8])
    edge = named_device("eyeriss")
    watts = edge.energy_j(LAYERS, eight, eight) / edge.latency_s(LAYERS, eight, eight)
    assert np.all((watts > 0.01) & (watts < 1))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_data_sheets_rank_as_their_makers_do(bits):
    one = np.array([bits])
    total = [named_device(name).latency_s(LAYERS, one, one).sum() for name in RANKING]
    assert total[:4] == sorted(total[:4], reverse=True)
    assert total[4] <= total[3]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_paper_cloud_outruns_its_edge(bits):
    one = np.array([bits])
    edge, cloud = (named_device(n).latency_s(LAYERS, one, one) for n in ("eyeriss", "tpu"))
    assert np.all(cloud < edge)


@pytest.mark.parametrize(("pixels", "expected_s"), [(224, 0.383), (416, 1.320), (608, 2.820)])
def test_paper_network_sends_raw_images_in_the_published_time(pixels, expected_s):
    raw_bytes = pixels * pixels * 3
    assert named_network("paper_3mbps").uplink_s(raw_bytes) == pytest.approx(expected_s, abs=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_named_by_its_key(name):
    assert named_network(name).name == name
    assert named_network(name).uplink_bits_per_s <= 20 * 1024**2


def test_generations_get_faster():
    rates = [named_network(name).uplink_bits_per_s for name in ("3g", "4g", "5g")]
    trips = [named_network(name).round_trip_s for name in ("3g", "4g", "5g")]
    assert rates == sorted(rates)
    assert trips == sorted(trips, reverse=True)


def test_wider_networks_send_faster():
    names = ("nb_iot", "ble", "3g", "lte_cat1", "5g", "wifi")
    rates = [named_network(name).uplink_bits_per_s for name in names]
    assert rates == sorted(rates)


@pytest.mark.parametrize("name", NETWORKS)
def test_radio_energy_is_known_both_ways_or_not_at_all(name):
    network = named_network(name)
    known = np.isfinite([network.uplink_j(1000), network.downlink_j(1000)])
    assert known.all() or not known.any()
    assert known.all() == (name in {"ble", "nb_iot", "3g", "4g", "wifi"})


@pytest.mark.parametrize(
    ("name", "uplink_w", "downlink_w"),
    # Products of coefficient and rate, then the base: what the radio draws while it is active.
    [
        ("3g", 0.86898 * 1.1 + 0.81788, 0.12212 * 2.0275 + 0.81788),
        ("4g", 0.43839 * 5.85 + 1.28804, 0.05197 * 13.76 + 1.28804),
        ("wifi", 0.28317 * 18.88 + 0.13286, 0.13701 * 54.97 + 0.13286),
        ("ble", 0.0064 * 3, 0.00626 * 3),
        ("nb_iot", 0.22 * 3.6, 0.046 * 3.6),
    ],
)
def test_radios_draw_their_published_power(name, uplink_w, downlink_w):
    network = named_network(name)
    assert network.uplink_j(1e6) / network.uplink_s(1e6) == pytest.approx(uplink_w)
    assert network.downlink_j(1e6) / network.downlink_s(1e6) == pytest.approx(downlink_w)


def test_faster_rates_cost_less_a_bit_down_to_the_slope():
    cost = [joules_per_bit(rate, mw_per_mbps=100, base_mw=500) for rate in (1e3, 1e6, 1e9, 1e15)]
    assert cost == sorted(cost, reverse=True)
    assert cost[-1] == pytest.approx(100e-9)


@pytest.mark.parametrize(
    ("look_up", "valid"),
    [(named_device, DEVICES), (named_network, NETWORKS)],
    ids=["device", "net"],
)
def test_unknown_names_list_the_valid_ones(look_up, valid):
    with pytest.raises(InputError, match="'abacus'") as caught:
        look_up("abacus")
    listed = str(caught.value).split("one of ")[1].split(". ")[0].split(", ")
    assert listed == list(valid)
    new = {"hailo_8", "mediatek_dla", "tpu_v5e"} if look_up is named_device else {"ble", "nb_iot"}
    assert new < set(listed)
