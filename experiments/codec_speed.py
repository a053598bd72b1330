"""Measures the codec beside memory copies, and zstd on tensors that cross real cuts, in one run.

    python -m experiments.codec_speed --config=configs/codec_speed.py --workdir=build/codec_speed

The work directory gets ``codec_speed.json`` (all rows and the run record), a ``.csv`` file for each
part, and ``codec_speed.md``.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import statistics
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.execution.manifest import TensorSpec
from autosplit.files import write_json, write_text
from autosplit.graph.running import prepare
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error_search import ErrorTables, clip_tables
from autosplit.quant import packing
from autosplit.reporting import run_record
from autosplit.reporting.tables import markdown_table
from autosplit.serving import codec, coding
from autosplit.serving import split_inference_pb2 as pb2
from experiments.measuring_program import run_program
from experiments.speed_case import Case, edge_plan, load_case
from experiments.speed_report import csv_text

CLIENT_ID = bytes(codec.CLIENT_ID_BYTES)
STEPS = ("pack", "encode", "decode", "unpack")


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures both parts and writes the results.

    Args:
      config: see ``configs/codec_speed.py``.
      workdir: for the results.

    Returns:
      What ``codec_speed.json`` holds.

    Raises:
      AutosplitError: a setting is not as expected.
    """
    record = run_record(config.to_dict(), config.seed) | {"load_before": os.getloadavg()}
    workdir.mkdir(parents=True, exist_ok=True)
    print("== Speed", flush=True)
    speed = [speed_row(size, bits, config) for size in config.sizes for bits in config.bits]
    print("== Coding", flush=True)
    coded = coding_rows(config)
    document = {
        "title": config.title,
        "speed": speed,
        "coding": coded,
        "record": record | {"load_after": os.getloadavg()},
    }
    write_json(workdir / "codec_speed.json", document)
    for part in ("speed", "coding"):
        write_text(workdir / f"codec_{part}.csv", csv_text(document[part]))
    write_text(workdir / "codec_speed.md", markdown_text(document))
    return document


def speed_row(size: int, bits: int, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Times each step on a tensor of random levels, and the copies that it is compared with.

    Packing and unpacking are compared with a copy of the levels, one byte each; encoding (to the
    bytes that gRPC sends, checksum included) and decoding (all checks included) with a copy of
    the packed bytes.

    Args:
      size: of the tensor.
      bits: of a level.
      config: rounds, calls and seed.

    Returns:
      Of each step GB/s, and the ratio of its speed to the copy's, both of the fastest calls:
      what else the machine did does not count. Fastest and median seconds of steps and copies.
    """
    levels = np.random.default_rng(config.seed).integers(0, 1 << bits, size, np.uint8)
    works = _works(levels, bits)
    times = _in_turn(works, config.rounds, config.calls)
    fastest = {name: min(taken) for name, taken in times.items()}
    row: dict[str, Any] = {"size": size, "bits": bits}
    for name in STEPS:
        of_levels = name in ("pack", "unpack")
        copy_s = fastest["copy_levels" if of_levels else "copy_packed"]
        num_bytes = size if of_levels else packing.packed_bytes(size, bits)
        row[f"{name}_gb_per_s"] = num_bytes / fastest[name] / 1e9
        row[f"{name}_ratio"] = copy_s / fastest[name]
    row |= {f"{name}_fastest_s": taken for name, taken in fastest.items()}
    row |= {f"{name}_median_s": statistics.median(taken) for name, taken in times.items()}
    print("  ", size, bits, {name: round(row[f"{name}_ratio"], 2) for name in STEPS}, flush=True)
    return row


def _works(levels: np.ndarray, bits: int) -> dict[str, Callable[[], Any]]:
    size = levels.size
    pack = jax.jit(lambda x: packing.pack(x, bits))
    unpack = jax.jit(lambda x: packing.unpack(x, bits, (size,)))
    given = jnp.asarray(levels)
    packed = np.asarray(pack(given))
    spec = TensorSpec(
        name="a", shape=(size,), dtype="uint8", bits=bits, payload_bytes=packed.size
    )
    manifest: Any = types.SimpleNamespace(split_id="0" * 64, crossing=(spec,))

    def encode() -> bytes:
        return codec.encode_request(manifest, [packed], CLIENT_ID, 1).SerializeToString()

    sent = encode()
    targets = np.empty_like(levels), np.empty_like(packed)
    return {
        "copy_levels": lambda: np.copyto(targets[0], levels),
        "copy_packed": lambda: np.copyto(targets[1], packed),
        "pack": lambda: pack(given).block_until_ready(),
        "encode": encode,
        "decode": lambda: codec.decode_request(manifest, pb2.InferRequest.FromString(sent)),
        "unpack": lambda: unpack(packed).block_until_ready(),
    }


def _in_turn(
    works: Mapping[str, Callable[[], Any]], rounds: int, calls: int
) -> dict[str, list[float]]:
    """Times all works in turn, so that whatever else the machine does falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            work()
            for _ in range(calls):
                started_s = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - started_s)
    return times


def coding_rows(config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """Codes what crosses each cut at each bit-width, and says at which rates that pays.

    Args:
      config: network, settings, images, cuts, bits, edge_bits, clipping and bits_per_s.

    Returns:
      A row for each cut, bit-width and zstd level: bytes, times, and the rate below which it
      pays, all per image; ``entropy_bytes`` is what an ideal coder of single levels would send.
    """
    case = load_case(config.network, config.settings, config.images, config.seed)
    graph = autosplit.trace(case.apply, case.variables, case.images[:1])
    weights = prepare(graph, case.variables)
    calls = calibration_calls(graph, case.images)
    tables = {
        bits: clip_tables(graph, weights, [calls], jnp.array([bits]), [config.clipping])
        for bits in {*config.bits, config.edge_bits}
    }
    clips = {bits: table[config.clipping] for bits, table in tables.items()}
    rows: list[dict[str, Any]] = []
    for name in config.cuts:
        for bits in config.bits:
            plan = cut_plan(graph, clips, name, bits, config.edge_bits)
            rows += _cut_rows(case, autosplit.split(graph, case.variables, plan), bits, config)
    return rows


def cut_plan(
    graph: autosplit.LayerGraph,
    clips: Mapping[int, ErrorTables],
    layer: str,
    bits: int,
    edge_bits: int,
) -> autosplit.SplitPlan:
    """Cuts after a layer; what crosses has ``bits``, all else on the edge ``edge_bits``."""
    cut = graph.cut_after(layer)
    plan = edge_plan(graph, clips[edge_bits], edge_bits)
    columns = {
        "a_bits": (plan.a_bits, [bits] * len(graph.tensors)),
        "activation_low": (plan.activation_low, np.asarray(clips[bits].activation_low)[:, 0]),
        "activation_high": (plan.activation_high, np.asarray(clips[bits].activation_high)[:, 0]),
    }
    crosses = tuple(index in cut.crossing for index in range(len(graph.tensors)))
    changed: dict[str, Any] = {
        name: tuple(
            new if crosses[index] else old
            for index, (old, new) in enumerate(zip(own, np.asarray(other).tolist(), strict=True))
        )
        for name, (own, other) in columns.items()
    }
    return dataclasses.replace(
        plan,
        label=f"after {layer}, {bits}-bit",
        cut_name=cut.name,
        on_edge=cut.on_edge,
        crosses=crosses,
        **changed,
    )


def _cut_rows(
    case: Case, split: autosplit.Split, bits: int, config: ml_collections.ConfigDict
) -> list[dict[str, Any]]:
    codes = [split.edge_layers(image[None]) for image in case.images]
    samples = [split.pack(code) for code in codes]
    entropy_bytes = statistics.mean(
        sum(entropy_bits(np.asarray(one)) / 8 for one in code) for code in codes
    )
    plain, *costs = coding.measure_codings(samples)
    bytes_per_s = config.bits_per_s / 8
    rows: list[dict[str, Any]] = []
    for cost in costs:
        saved_bytes, took_s = plain.sent_bytes - cost.sent_bytes, cost.encode_s + cost.decode_s
        rows.append(
            {
                "cut": split.manifest.cut_name,
                "bits": bits,
                "level": cost.coding.zstd_level,
                "packed_bytes": plain.sent_bytes,
                "sent_bytes": cost.sent_bytes,
                "entropy_bytes": entropy_bytes,
                "encode_s": cost.encode_s,
                "decode_s": cost.decode_s,
                "pays_below_bits_per_s": 8 * saved_bytes / took_s,
                "gain_s": plain.time_s(bytes_per_s) - cost.time_s(bytes_per_s),
            }
        )
    best = max(rows, key=lambda row: row["gain_s"])
    print(f"   {best['cut']}, {bits}-bit: level {best['level']} sends "
          f"{best['sent_bytes'] / best['packed_bytes']:.2f} of {best['packed_bytes']:.0f} bytes, "
          f"gains {best['gain_s'] * 1e3:.1f} ms", flush=True)  # fmt: skip
    return rows


def entropy_bits(levels: np.ndarray) -> float:
    """Returns the bits that an ideal coder of independent levels needs for all of them.

    >>> entropy_bits(np.array([0, 0, 1, 1], np.uint8))
    4.0
    """
    counts = np.bincount(levels.reshape(-1))
    shares = counts[counts > 0] / levels.size
    return float(-(shares * np.log2(shares)).sum() * levels.size)


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes both tables, and how they were measured."""
    record = document["record"]
    speed = [
        {"levels": f"{row['size']:,}", "bits": row["bits"]}
        | {
            name: f"{row[f'{name}_gb_per_s']:.1f} GB/s, {row[f'{name}_ratio']:.2f} of a copy, "
            f"{row[f'{name}_median_s'] * 1e6:.0f} us"
            for name in STEPS
        }
        for row in document["speed"]
    ]
    return "\n".join([
        f"# {document['title']}", "", markdown_table(speed), "",
        "GB/s of the fastest call: of levels (one byte each) for packing and unpacking, of packed "
        "bytes for encoding and decoding. Microseconds are the median of a whole call.", "",
        f"The best level of zstd at {record['config']['bits_per_s'] / 2**20:.1f} Mbps:", "",
        markdown_table(_best_levels(document["coding"])), "",
        f"Load of the machine before and after: {record['load_before'][0]:.1f} and "
        f"{record['load_after'][0]:.1f}. {record['device']['cpu']} with "
        f"{record['device']['cpu_cores']} cores, {record['started_utc']}.", "",
    ])  # fmt: skip


def _best_levels(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    best: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in rows:
        key = row["cut"], row["bits"]
        if row["gain_s"] > best.get(key, {"gain_s": -math.inf})["gain_s"]:
            best[key] = row
    return [
        {
            "cut": cut, "bits": bits, "packed": f"{row['packed_bytes']:,.0f} bytes",
            "zstd": f"{row['sent_bytes'] / row['packed_bytes']:.0%}",
            "ideal coder of levels": f"{row['entropy_bytes'] / row['packed_bytes']:.0%}",
            "level": row["level"],
            "coding": f"{(row['encode_s'] + row['decode_s']) * 1e3:.2f} ms",
            "gain": f"{row['gain_s'] * 1e3:.1f} ms",
            "pays below": f"{row['pays_below_bits_per_s'] / 1e6:,.0f} Mbit/s",
        }
        for (cut, bits), row in best.items()
    ]  # fmt: skip


if __name__ == "__main__":
    run_program("codec_speed", run, markdown_text)
