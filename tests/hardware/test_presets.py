"""Every preset works, and the ones of the paper give the paper's times."""

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.hardware import DEVICES, NETWORKS, Device, named_device, named_network
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


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_keeps_the_contract(name):
    device = named_device(name)
    assert isinstance(device, Device)
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


@pytest.mark.parametrize(
    ("look_up", "valid"),
    [(named_device, DEVICES), (named_network, NETWORKS)],
    ids=["device", "net"],
)
def test_unknown_names_list_the_valid_ones(look_up, valid):
    with pytest.raises(InputError, match="'abacus'") as caught:
        look_up("abacus")
    assert all(name in str(caught.value) for name in valid)
