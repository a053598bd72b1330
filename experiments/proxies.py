"""Ranks mixed bit-widths by cheap proxies, and holds the ranks against measured errors.

    python -m experiments.proxies --config=configs/proxies.py --workdir=build/proxies

The work directory gets ``proxies.json`` (all figures and the run record), ``proxies.csv`` (a
row for each assignment), ``proxies.md`` and a plot ``proxies_<model>.png`` for each network.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.errors import AutosplitError, InfeasibleError, InputError
from autosplit.files import write_json, write_text
from autosplit.graph.running import GraphWeights, prepare
from autosplit.profiling.assignment import Assignment, assignment_of, profile_assignment
from autosplit.profiling.many_assignments import evaluate_assignments
from autosplit.profiling.measuring import with_measured_gains
from autosplit.profiling.sensitivity import output_gains
from autosplit.profiling.sensitivity_tables import sensitivity_table
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from experiments.flag_parsing import parse_flags
from experiments.proxies_draws import drawn_bits, drawn_bits_of_mean
from experiments.proxies_report import csv_text, markdown_text, proxies_figure, rank_correlations
from experiments.proxies_scores import proxy_values, tensor_powers
from experiments.steps import load_job, profile_settings

VARIED, EQUAL, SOLVED = "varied", "equal mean", "solver"
"""Where an assignment comes from: drawn freely, drawn with one mean of bits, or a plan."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network with its photographs.

    Attributes:
      graph, variables, weights: traced for one photograph, and prepared.
      calibration, evaluation: f32[n, H, W, 3], disjoint.
      labels: i64[n] of those that evaluate; None where not known.
    """

    graph: autosplit.LayerGraph
    variables: Any
    weights: GraphWeights
    calibration: np.ndarray
    evaluation: np.ndarray
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One assignment with its bits and where it comes from."""

    source: str
    label: str
    w_bits: np.ndarray
    a_bits: np.ndarray
    plan: autosplit.SplitPlan | None = None


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", "configs/proxies.py", "What to measure.")
    flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Measures every network and writes the results.

    Args:
      config: see ``configs/proxies.py``.
      workdir: for the results; files of an earlier run are replaced.

    Returns:
      What ``proxies.json`` holds.

    Raises:
      AutosplitError: a setting is not as expected.
    """
    if not config.models:
        raise InputError("config.models is empty; expected at least one network.")
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    rows, correlations, seconds = [], [], {}
    for name, source in config.models.items():
        start_s = time.perf_counter()
        own = measure_network(config, name, source)
        rows += own
        correlations += [{"network": name, **found} for found in rank_correlations(own)]
        save_figure(proxies_figure(name, own), workdir / f"proxies_{name}.png")
        seconds[name] = time.perf_counter() - start_s
    document = {"title": config.title, "rows": rows, "correlations": correlations,
                "seconds": seconds, "record": record}  # fmt: skip
    write_json(workdir / "proxies.json", document)
    write_text(workdir / "proxies.csv", csv_text(rows))
    write_text(workdir / "proxies.md", markdown_text(document))
    return document


def measure_network(
    config: ml_collections.ConfigDict, name: str, source: str
) -> list[dict[str, Any]]:
    """Returns a row for each assignment of one network: its proxies and its measured scores."""
    network = load_network(config, name, source)
    graph, weights = network.graph, network.weights
    say(name, f"{len(network.calibration)} photographs calibrate, {len(network.evaluation)} "
              "evaluate; profiling")  # fmt: skip
    profile = autosplit.profile(graph, network.variables, network.calibration,
                                **profile_settings(config))  # fmt: skip
    calls = [jnp.asarray(network.calibration[:, None])]
    gains = output_gains(graph, weights, calls, jax.random.key(config.seed), "fisher")
    fisher = with_gains(profile, *gains)
    say(name, "measuring every weight and tensor alone")
    table = sensitivity_table(graph, network.variables, network.calibration[: config.images.table],
                              profile)  # fmt: skip
    solvable = (profile, fisher, with_measured_gains(profile, table))
    candidates = [*draws(config, profile), *solved(config, solvable)]
    say(name, f"{len(candidates)} assignments")
    scores = evaluate_assignments(
        graph, weights, (assigned(network, profile, one) for one in candidates),
        [network.evaluation[:, None]], labels=network.labels,
    )  # fmt: skip
    powers = tensor_powers(graph, weights, calls)
    rows = []
    for index, one in enumerate(candidates):
        accuracy = None if scores.accuracy is None else float(scores.accuracy[index])
        rows.append({
            "network": name, "source": one.source, "label": one.label,
            "layers_on_edge": len(graph.layers) if one.plan is None else sum(one.plan.on_edge),
            "output_error": float(scores.output_error[index]),
            "divergence": float(scores.divergence[index]),
            "agreement": float(scores.agreement[index]), "accuracy": accuracy,
            **proxy_values(profile, fisher, table, powers, one.w_bits, one.a_bits),
        })  # fmt: skip
    return rows


def load_network(config: ml_collections.ConfigDict, name: str, source: str) -> Network:
    """Loads a network and cuts its photographs into those that calibrate and the others."""
    job = load_job(ml_collections.ConfigDict(
        {"model": {"name": name, "weights": source}, "images": config.images.to_dict()}
    ))  # fmt: skip
    total, few = len(job.photographs), config.images.calibration
    if few >= total or not 0 < config.images.table <= few:
        raise InputError(
            f"config.images.calibration is {few} and config.images.table {config.images.table}; "
            f"expected fewer than the {total} photographs, and 1 to {few}."
        )
    # Evenly spaced: sorted by class, the first would be all of one kind.
    chosen = np.zeros(total, bool)
    chosen[np.arange(few) * total // few] = True
    inputs, labels = job.inputs, job.photographs.labels
    graph = autosplit.trace(job.apply, job.variables, inputs[:1])
    return Network(
        graph=graph, variables=job.variables, weights=prepare(graph, job.variables),
        calibration=inputs[chosen], evaluation=inputs[~chosen],
        labels=None if labels is None else labels[~chosen],
    )  # fmt: skip


def with_gains(profile: autosplit.Profile, by_layer: Any, by_tensor: Any) -> autosplit.Profile:
    """Returns a profile that predicts by other gains."""
    return dataclasses.replace(
        profile, sensitivity="fisher",
        weight_gain=np.broadcast_to(np.asarray(by_layer, np.float64)[:, None],
                                    profile.weight_gain.shape),
        activation_gain=np.broadcast_to(np.asarray(by_tensor, np.float64)[:, None],
                                        profile.activation_gain.shape),
    )  # fmt: skip


def draws(config: ml_collections.ConfigDict, profile: autosplit.Profile) -> list[Candidate]:
    """Draws assignments with the whole network on the edge."""
    rng = np.random.default_rng(config.seed)
    makers = {
        VARIED: (config.draws, lambda: drawn_bits(profile, rng, config.spread_bits)),
        EQUAL: (config.equal_draws, lambda: drawn_bits_of_mean(
            profile, rng, config.spread_bits, config.equal_bits)),
    }  # fmt: skip
    found = []
    for source, (count, make) in makers.items():
        for number in range(count):
            w_bits, a_bits = make()
            found.append(Candidate(source=source, label=f"{source} {number}",
                                   w_bits=w_bits, a_bits=a_bits))  # fmt: skip
    return found


def solved(
    config: ml_collections.ConfigDict, profiles: Sequence[autosplit.Profile]
) -> list[Candidate]:
    """Solves profiles at their limits: the fastest split and edge-only plan of each."""
    found: dict[str, Candidate] = {}
    for own in profiles:
        gains = own.sensitivity
        for limit in config.limits["fisher" if gains == "fisher" else "output"]:
            try:
                plans = autosplit.solve(own, autosplit.Constraints(output_error=limit))
            except InfeasibleError:
                continue
            for plan in plans:
                if plan.feasible and plan.label in ("auto-split", "edge-only"):
                    label = f"{plan.label}, {gains} {limit:g}"
                    one = Candidate(
                        source=SOLVED, label=label, plan=plan,
                        w_bits=np.array(plan.w_bits), a_bits=np.array(plan.a_bits),
                    )  # fmt: skip
                    found.setdefault(label, one)  # the fastest comes first
    return list(found.values())


def assigned(network: Network, profile: autosplit.Profile, one: Candidate) -> Assignment:
    """Returns the arrays of a candidate."""
    if one.plan is not None:
        return assignment_of(network.graph, network.weights, one.plan)
    return profile_assignment(network.graph, network.weights, profile, one.w_bits, one.a_bits)


def say(name: str, what: str) -> None:
    """Prints how far the run is."""
    print(f"   {name}: {what}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and measures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir).resolve())
    except (AutosplitError, OSError) as error:
        sys.exit(f"proxies: {error}")
    print(f"Results are in {flags.FLAGS.workdir}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)
