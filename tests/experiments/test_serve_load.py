"""The measurement of a server under load, with small splits and short times."""

import asyncio
import csv
import io
import json

import ml_collections
import numpy as np
import pytest

from autosplit.errors import CloudUnavailableError
from autosplit.hardware import EYERISS
from autosplit.hardware.network import Network
from autosplit.reporting.canvas import save_figure
from autosplit.serving.cloud_server import serving
from autosplit.serving.load import Load, send_load
from experiments import serve_load, serve_load_case, serve_load_report

NAMES = ("edge_s", "pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s", "round_trip_s")


@pytest.fixture(scope="module")
def small():
    return serve_load_case.small_case(seed=0)


@pytest.fixture
def document():
    """What a run writes, with made-up numbers."""

    def row(split, most, clients, rate):
        return {"split": split, "max_batch": most, "clients": clients, "answers": 9,
                "requests_per_s": rate, "p50_s": 0.01, "p95_s": 0.02, "p99_s": 0.03,
                "queue_s": 0.001, "cloud_s": 0.002, "mean_batch": 1.0,
                "request_bytes": 7}  # fmt: skip

    stages = dict.fromkeys(NAMES, 0.001)
    total = {"p50_s": 0.009, "p95_s": 0.01, "p99_s": 0.011}
    predicted = stages | {"latency_s": 0.007}
    return {
        "title": "A title",
        "load": [row("one", 1, 1, 100.0), row("one", 1, 8, 200.0), row("one", 4, 1, 90.0),
                 row("one", 4, 8, 500.0), row("two", 1, 1, 5.0), row("two", 4, 1, 6.0)],
        "overhead": [{"split": "one", **total, "stages": stages}],
        "link": {"split": "two", "cut": "after c", **total, "stages": stages | {"queue_s": 0.0005},
                 "plan": predicted, "alone": predicted, "over_plan": 9 / 7, "over_alone": 9 / 7,
                 "over_plan_and_round_trip": 1.1, "round_trip_s": 0.002},
        "plans": [{"label": "auto-split", "latency_s": 0.007},
                  {"label": "cloud-only (raw)", "latency_s": 0.123}],
        "record": {"config": {"load": {"seconds": 1.0, "rounds": 2}, "requests": 3},
                   "load_before": (0.5, 0, 0),
                   "load_after": (1.5, 0, 0), "packages": {"jax": "x"}, "started_utc": "now",
                   "git": {"commit": "abc", "dirty": True},
                   "device": {"cpu": "a CPU", "cpu_cores": 2}},
    }  # fmt: skip


def make_payload(split):
    """Returns what the edge half sends for an input of zeros."""
    (spec,) = split.manifest.inputs
    return tuple(np.asarray(one) for one in split.edge(np.zeros(spec.shape, spec.dtype)))


def test_the_small_split_is_one(small):
    assert small.split.manifest.crossing
    x = small.inputs[:1]
    assert small.split.cloud(small.split.edge(x)).shape == (1, serve_load_case.SMALL_OUTPUTS)


def test_every_client_is_answered_and_timed(small):
    with serving(small.split) as address:
        load = Load(address=address, clients=3, warmup_s=0.0, seconds=0.3)
        measured = asyncio.run(send_load(small.split, make_payload(small.split), load))
    assert measured["answers"] >= 3
    fields = ("latency_s", "queue_s", "unpack_s", "cloud_s", "batch")
    assert {len(measured[name]) for name in fields} == {measured["answers"]}
    for latency_s, *server_s in zip(*(measured[name] for name in fields[:-1]), strict=True):
        assert latency_s >= sum(server_s)
    row = serve_load.summary_of([measured])
    assert row["p50_s"] <= row["p95_s"] <= row["p99_s"] <= max(measured["latency_s"])
    assert row["requests_per_s"] * measured["seconds"] == pytest.approx(measured["answers"])


def test_answers_before_the_warm_up_ends_do_not_count(small):
    with serving(small.split) as address:
        load = Load(address=address, clients=1, warmup_s=30.0, seconds=-29.9)
        measured = asyncio.run(send_load(small.split, make_payload(small.split), load))
    assert measured["answers"] == 0
    with pytest.raises(CloudUnavailableError, match="had no answer"):
        serve_load.summary_of([measured])


def test_a_server_that_refuses_ends_the_load(small):
    other = serve_load_case.small_case(seed=1).split
    with serving(small.split) as address:
        load = Load(address=address, clients=2, warmup_s=0.0, seconds=5.0)
        with pytest.raises(CloudUnavailableError, match=f"{address} failed under 2 clients"):
            asyncio.run(send_load(other, make_payload(other), load))


def test_the_prediction_of_the_halves_alone_is_their_sum(small):
    network = Network(uplink_bits_per_s=1e6, round_trip_s=0.5)
    stages = serve_load_case.stages_alone_s(small, network, repeats=3)
    assert stages["latency_s"] == pytest.approx(sum(stages[name] for name in NAMES))
    crossing = sum(spec.payload_bytes for spec in small.split.manifest.crossing)
    assert stages["uplink_s"] == crossing * 8 / 1e6
    assert stages["round_trip_s"] == 0.5


def test_the_gain_compares_the_same_clients(document):
    gains = serve_load_report.batching_gain(document["load"])
    assert gains == {("one", 1): 0.9, ("one", 8): 2.5, ("two", 1): 1.2}


def test_parts_add_up_to_the_total(document):
    parts = serve_load_report.parts_of(document["link"]["stages"], 0.009)
    assert sum(parts.values()) == pytest.approx(0.009)
    assert parts["link"] == pytest.approx(0.003)


def test_the_page_the_table_and_the_plot_show_the_numbers(document, tmp_path):
    page = serve_load_report.markdown_text(document)
    for words in ("| one | 4 | 8 | 500 |", "| one | 8 | 2.50 |", "1.286 of the plan's prediction",
                  "| one | 9.00 ms | 10.00 ms | 11.00 ms |", "abc with changes",
                  "| cloud-only (raw) | 123.00 ms |"):  # fmt: skip
        assert words in page
    table = list(csv.DictReader(io.StringIO(serve_load_report.csv_text(document["load"]))))
    assert [float(row["requests_per_s"]) for row in table] == [100, 200, 90, 500, 5, 6]
    save_figure(serve_load_report.load_figure(document), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.heavy
def test_the_whole_measurement(config, monkeypatch, tmp_path):
    # Measuring the layers takes minutes and is tested with its own program.
    monkeypatch.setattr(serve_load_case, "measure_device", lambda *_: EYERISS)
    config.title, config.device, config.requests = "Small", "", 6
    config.load = ml_collections.ConfigDict(
        {"clients": (1, 3), "batches": (1, 2), "rounds": 2, "warmup_s": 0.2, "seconds": 0.5}
    )
    document = serve_load.run(config, tmp_path)
    assert json.loads((tmp_path / "serve_load.json").read_text())["title"] == "Small"
    for kind in ("csv", "md", "png"):
        assert (tmp_path / f"serve_load.{kind}").exists()
    assert [(r["split"], r["max_batch"], r["clients"]) for r in document["load"]] == [
        (split, most, clients)
        for split in ("small", "mobilenet_v2") for clients in (1, 3) for most in (1, 2)
    ]  # fmt: skip
    # The rate of 1e5 bits/s makes the link most of it, so the prediction holds on a busy machine.
    assert document["link"]["over_plan"] == pytest.approx(1, rel=0.25)
    assert np.isfinite([row["p99_s"] for row in document["load"]]).all()
