"""Measures a cloud server under load, what serving adds, and a split on a shaped link.

    python -m experiments.serve_load --config=configs/serve_load.py --workdir=build/serve_load

Server, clients, edge and link are processes of this machine, or threads of them. The work
directory gets ``serve_load.json`` (all numbers and the run record), ``serve_load.csv``,
``serve_load.md`` and ``serve_load.png``, beside the splits and the device file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from autosplit.errors import CloudUnavailableError
from autosplit.files import write_json, write_text
from autosplit.hardware.network import Network
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.edge_client import connect
from autosplit.serving.link import steady_conditions
from autosplit.serving.load import Load, send_load
from autosplit.serving.protocol import PROTOCOL_VERSION
from autosplit.serving.shaper import shaping
from experiments.measuring_program import run_program
from experiments.processes import ROOT, cloud_process
from experiments.serve_load_case import Case, planned_case, small_case, stages_alone_s
from experiments.serve_load_report import csv_text, load_figure, markdown_text

PERCENTILES = (50, 95, 99)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures everything and writes the results.

    Args:
      config: see ``configs/serve_load.py``.
      workdir: for the results, the splits and the device file.

    Returns:
      What ``serve_load.json`` holds.

    Raises:
      AutosplitError: an input is not as expected, or a process failed.
    """
    record = run_record(config.to_dict(), config.seed) | {"load_before": os.getloadavg()}
    workdir.mkdir(parents=True, exist_ok=True)
    print("== Plan for this machine", flush=True)
    cases = [small_case(config.seed), planned_case(config, workdir)]
    for case in cases:
        case.split.save(workdir / "splits" / case.name)
    document = {
        "title": config.title,
        "load": list(load_rows(cases, config.load, workdir / "splits")),
        "overhead": overhead_rows(cases, config.requests, workdir / "splits"),
        "link": link_row(cases[-1], config.requests, workdir / "splits"),
        "plans": cases[-1].plans,
        "record": record | {"load_after": os.getloadavg()},
    }
    write_json(workdir / "serve_load.json", document)
    write_text(workdir / "serve_load.csv", csv_text(document["load"]))
    write_text(workdir / "serve_load.md", markdown_text(document))
    save_figure(load_figure(document), workdir / "serve_load.png")
    return document


def load_rows(
    cases: Sequence[Case], load: ml_collections.ConfigDict, splits: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Yields a row for every split, number of clients and largest batch.

    Each largest batch has a server of its own, which holds all splits. They are put under load
    in turn, so that whatever else the machine does falls on all of them.
    """
    print("== Load", flush=True)
    with contextlib.ExitStack() as stack:
        servers = {}
        for most in load.batches:
            scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = cloud_process(splits, scratch, f"--max_batch={most}")
            servers[most] = stack.enter_context(server)
        for case in cases:
            payload = tuple(np.asarray(one) for one in case.split.edge(case.inputs[:1]))
            for clients in load.clients:
                measured: dict[int, list[dict[str, Any]]] = {most: [] for most in servers}
                for _ in range(load.rounds):
                    for most, address in servers.items():
                        one = Load(address=address, clients=clients, warmup_s=load.warmup_s,
                                   seconds=load.seconds)  # fmt: skip
                        sent = asyncio.run(send_load(case.split, payload, one))
                        measured[most].append(sent)
                for most, rounds in measured.items():
                    row = {"split": case.name, "max_batch": most, **summary_of(rounds)}
                    print(
                        f"   {case.name}, batches up to {most}, {clients} clients: "
                        f"{row['requests_per_s']:.0f} a second, p50 {row['p50_s'] * 1e3:.1f} ms",
                        flush=True,
                    )
                    yield row


def summary_of(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what a table shows of the times of many answers.

    >>> times = {"latency_s": [0.1, 0.3], "queue_s": [0, 0], "cloud_s": [0.1, 0.1], "batch": [1, 2]}
    >>> one = {"clients": 1, "answers": 2, "seconds": 0.5, "request_bytes": 9, **times}
    >>> row = summary_of([one, one | {"seconds": 1.0}])
    >>> row["requests_per_s"], row["p50_s"], row["mean_batch"]
    (3.0, 0.2, 1.5)

    Args:
      rounds: what `autosplit.serving.load.send_load` measured, each of at least one answer.

    Returns:
      Percentiles over all answers; the rate is the median of the rounds.
    """
    for one in rounds:
        if not one["answers"]:
            raise CloudUnavailableError(
                f"{one['clients']} clients had no answer in {one['seconds']:.1f} s; expected "
                "some. Give them longer with config.load.seconds."
            )
    columns = ("latency_s", "queue_s", "cloud_s", "batch")
    latency_s, queue_s, cloud_s, batch = (
        np.concatenate([one[name] for one in rounds]) for name in columns
    )
    rates = [one["answers"] / one["seconds"] for one in rounds]
    return {
        "clients": rounds[0]["clients"],
        "answers": sum(one["answers"] for one in rounds),
        "requests_per_s": float(np.median(rates)),
        "requests_per_s_of_rounds": rates,
        **percentiles_of(latency_s),
        "queue_s": float(np.median(queue_s)),
        "cloud_s": float(np.median(cloud_s)),
        "mean_batch": float(np.mean(batch)),
        "request_bytes": rounds[0]["request_bytes"],
    }


def overhead_rows(
    cases: Sequence[Case], requests: int, splits: pathlib.Path
) -> list[dict[str, Any]]:
    """Returns what one client waits beside the layers, over loopback, for every split.

    ``overhead = total - edge - cloud``: packing, checks, coding, gRPC, loopback and the queue.
    """
    print("== Overhead", flush=True)
    rows = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        cloud_process(splits, pathlib.Path(scratch)) as address,
    ):
        for case in cases:
            times = edge_times(case, requests, splits, address, pathlib.Path(scratch))
            added_s = [one["total_s"] - one["edge_s"] - one["cloud_s"] for one in times]
            found = percentiles_of(added_s)
            rows.append({"split": case.name, **found, "stages": medians_of(times)})
            print(f"   {case.name}: p50 {found['p50_s'] * 1e3:.2f} ms", flush=True)
    return rows


def link_row(case: Case, requests: int, splits: pathlib.Path) -> dict[str, Any]:
    """Returns the latency of a split on the link that it was planned for, beside predictions.

    The link is a proxy between the processes; the edge knows nothing of it. ``plan`` is the
    prediction of the plan, from the layer times of the device file; ``alone`` that from the
    times of the halves as a whole, without a server. ``over_...`` are the measured median over
    each; for ``over_plan_and_round_trip`` the plan's round trip, which is that of the link
    alone, is replaced by that of an empty request, server and gRPC included.
    """
    print("== On the link", flush=True)
    assert case.network is not None
    alone = stages_alone_s(case, case.network, requests)
    with (
        tempfile.TemporaryDirectory() as scratch,
        cloud_process(splits, pathlib.Path(scratch)) as address,
        shaping(address, steady_conditions(case.network)) as proxy,
    ):
        times = edge_times(case, requests, splits, proxy.address, pathlib.Path(scratch))
        round_trip_s = empty_round_trip_s(case, case.network, requests, proxy.address)
    total = percentiles_of([one["total_s"] for one in times])
    plan = dict(case.split.manifest.predicted)
    print(
        f"   {total['p50_s'] * 1e3:.1f} ms; predicted {plan['latency_s'] * 1e3:.1f} ms", flush=True
    )
    measured_link_s = plan["latency_s"] - plan["round_trip_s"] + round_trip_s
    return {
        "split": case.name, "cut": case.split.manifest.cut_name, **total,
        "stages": medians_of(times), "plan": plan, "alone": alone,
        "round_trip_s": round_trip_s,
        "over_plan": total["p50_s"] / plan["latency_s"],
        "over_plan_and_round_trip": total["p50_s"] / measured_link_s,
        "over_alone": total["p50_s"] / alone["latency_s"],
    }  # fmt: skip


def empty_round_trip_s(case: Case, network: Network, requests: int, address: str) -> float:
    """Returns the median time of a request without work, less that of its bytes on the link."""
    asked = pb2.DescribeRequest(
        protocol_version=PROTOCOL_VERSION, split_id=case.split.manifest.split_id
    )
    taken_s = []
    with connect(case.split, address) as client:
        for _ in range(requests):
            start_s = time.perf_counter()
            told = client.stub.Describe(asked)
            taken_s.append(time.perf_counter() - start_s)
    bytes_s = network.uplink_s(asked.ByteSize()) + network.downlink_s(told.ByteSize())
    return float(np.median(taken_s)) - bytes_s


def edge_times(
    case: Case, requests: int, splits: pathlib.Path, address: str, scratch: pathlib.Path
) -> list[dict[str, float]]:
    """Runs the edge in a process of its own and returns the times of each request."""
    repeat = -(-requests // len(case.inputs))
    np.savez(scratch / "in.npz", arg0=case.inputs[:, None])
    options = {
        "split": splits / case.name, "inputs": scratch / "in.npz", "address": address,
        "output": scratch / "edge.json", "repeat": repeat, "shape_link": False,
    }  # fmt: skip
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "experiments.run_edge", *given]
    finished = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    if finished.returncode:
        raise CloudUnavailableError(
            f"experiments.run_edge ended with the exit status {finished.returncode}; expected 0. "
            "Its own message is above."
        )
    report = json.loads((scratch / "edge.json").read_text())
    return [one for repeats in report["times"] for one in repeats]


def percentiles_of(taken_s: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Returns the percentiles of a table by name."""
    found = np.percentile(taken_s, PERCENTILES).tolist()
    return {f"p{at}_s": one for at, one in zip(PERCENTILES, found, strict=True)}


def medians_of(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns each stage's own median."""
    return {name: float(np.median([one[name] for one in times])) for name in times[0]}


if __name__ == "__main__":
    run_program("serve_load", run, markdown_text)
