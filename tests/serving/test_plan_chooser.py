import dataclasses

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.hardware.network import Network
from autosplit.profiling.plan import SplitPlan, plan_to_json
from autosplit.serving.bandwidth import Transfer
from autosplit.serving.coding import AS_IS
from autosplit.serving.plan_chooser import BUSY_SHARE, IDLE_SHARE, PlanChooser
from autosplit.serving.plan_switching import SwitchRule

AT_ONCE = SwitchRule(least_gain=0.0, hold_s=0.0)
NETWORK = dataclasses.asdict(Network(uplink_bits_per_s=3e6))


def plan_of(*, edge_s, sent_bytes):
    return SplitPlan(
        label="auto-split", fingerprint="f", cut_name="c", on_edge=(True, False), crosses=(True,),
        encoding="packed", w_bits=(8, 32), a_bits=(8,), weight_ratio=(1.0, 1.0),
        activation_low=(0.0,), activation_high=(1.0,), edge_s=edge_s, pack_s=0.0, uplink_s=0.0,
        unpack_s=0.0, cloud_s=0.0, downlink_s=0.0, round_trip_s=0.0, uplink_bytes=sent_bytes,
        downlink_bytes=0.0, edge_weight_bytes=1, edge_activation_bytes=1, quant_mse=0.0,
        predicted_output_error=0.0,
    )  # fmt: skip


@pytest.fixture
def splits(split):
    """Sends 100 kB, 1 kB and nothing; takes 0, 0.1 and 1 s."""

    def make(edge_s, sent_bytes, solved=True):
        plan = plan_to_json(plan_of(edge_s=edge_s, sent_bytes=sent_bytes)) if solved else None
        spec = dataclasses.replace(split.manifest.crossing[0], payload_bytes=sent_bytes)
        return type(split)(
            dataclasses.replace(
                split.manifest, plan=plan, network=NETWORK, crossing=(spec,) * (sent_bytes > 0)
            )
        )

    make.all = [make(0.0, 100_000), make(0.1, 1_000), make(1.0, 0)]
    return make


def chooser_at(splits, bits_per_s):
    """A chooser that has measured a rate with a large message."""
    chooser = PlanChooser(splits, AT_ONCE)
    size = 1_000_000
    transfer = Transfer(
        sent_s=0.0, received_s=8 * size / bits_per_s, server_s=0.0, message_bytes=size
    )
    chooser.note(transfer, round_trip_s=0.0)
    return chooser


@pytest.mark.parametrize(("bits_per_s", "plan"), [(1e8, 0), (1e6, 1), (1e3, 2)])
def test_the_plan_is_that_of_the_measured_rate(splits, bits_per_s, plan):
    assert PlanChooser(splits.all, AT_ONCE).choose(None, {0, 1}) == 0  # nothing measured yet
    chooser = chooser_at(splits.all, bits_per_s)
    assert chooser.bits_per_s == pytest.approx(bits_per_s)
    assert chooser.choose(None, {0, 1}) == plan


def test_a_plan_that_the_server_lacks_is_not_used(splits):
    assert chooser_at(splits.all, 1e8).choose(None, {1}) == 1
    assert chooser_at(splits.all, 1e6).choose(None, {0}) == 0
    assert chooser_at(splits.all, 1e3).choose(None, {0}) == 2  # needs no server
    assert chooser_at(splits.all, 1e8).choose(None, None) == 0  # not known while the link is down


def test_probes_go_by_the_next_heavier_plan_and_take_their_share_of_the_link(splits):
    chooser = chooser_at(splits.all, 1e4)
    light_s, heavy_s = 8e3 / 1e4, 8e5 / 1e4
    assert chooser.probe(2, {0, 1}, 1.01 * light_s / IDLE_SHARE) == 1
    assert chooser.probe(2, {0, 1}, 0.99 * light_s / IDLE_SHARE) is None
    assert chooser.probe(2, {0}, 1.01 * heavy_s / IDLE_SHARE) == 0
    assert chooser.probe(1, {0, 1}, 1.01 * heavy_s / BUSY_SHARE) == 0
    assert chooser.probe(1, {0, 1}, 0.99 * heavy_s / BUSY_SHARE) is None
    assert chooser.probe(0, {0, 1}, 1e9) is None  # nothing gains by a faster link
    assert chooser.probe(2, set(), 1e9) is None


def test_one_remote_plan_and_a_fallback_need_no_predictions(splits):
    unsolved = splits(0.0, 1_000, solved=False)
    chooser = chooser_at([unsolved, splits(1.0, 0, solved=False)], 1e1)
    assert chooser.choose(None, {0}) == 0
    assert chooser.probe(0, {0}, 1e9) is None
    with pytest.raises(InputError, match="holds no solved plan"):
        PlanChooser([unsolved, splits.all[0]], AT_ONCE)


def test_coding_is_used_where_it_saves_time(splits):
    zeros = [np.zeros(100_000, np.uint8)]
    assert PlanChooser(splits.all, AT_ONCE).coding(0, zeros, None) is None
    assert chooser_at(splits.all, 1e5).coding(0, zeros, None) != AS_IS
    noise = [np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)]
    assert chooser_at(splits.all, 1e5).coding(0, noise, None) == AS_IS
