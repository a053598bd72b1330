"""What the comparisons with other libraries run: a network, its images, and our own runners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import autosplit
from autosplit.data.imagenet import RESIZE_PIXELS
from autosplit.graph.running import GraphWeights, flat_outputs, prepare, run_layers
from autosplit.models import create_model, image_input
from autosplit.profiling.calibration import calibration_calls
from autosplit.profiling.error_search import ErrorTables, clip_tables
from autosplit.profiling.plan import FLOAT_BITS
from experiments.benchmark_case import photograph_like, random_variables
from experiments.peers import Runner
from experiments.steps import load_job

PHOTOGRAPHS = "imagenet_photographs"  # 20 of them, in a package


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network with its images.

    Attributes:
      name: of the network.
      apply: ``apply(variables, images)``.
      variables: parameters and batch statistics.
      images: f32[N, H, W, 3], normalized.
    """

    name: str
    apply: Callable[..., Any]
    variables: Mapping[str, Any]
    images: np.ndarray


def load_case(name: str, network: ml_collections.ConfigDict, images: int, seed: int) -> Case:
    """Loads a network and as many images as asked for.

    Args:
      name: of the network.
      network: weights and image_size; see ``configs/speed.py``.
      images: how many; photographs are repeated, mirrored, where there are fewer.
      seed: of random weights and images.

    Raises:
      AutosplitError: there is no such network, or no such weights.
    """
    if network.weights == "random":
        random_model: Any = create_model(name)
        inputs = image_input(name).normalize(photograph_like(images, network.image_size, seed))
        variables = random_variables(random_model, inputs, seed)
        return Case(name=name, apply=random_model.apply, variables=variables, images=inputs)
    source = {
        "source": PHOTOGRAPHS, "limit": min(images, 20), "calibration": 1,
        "resize_pixels": round(network.image_size * RESIZE_PIXELS / 224),
        "crop_pixels": network.image_size,
    }  # fmt: skip
    model = {"name": name, "weights": network.weights}
    job = load_job(ml_collections.ConfigDict({"model": model, "images": source}))
    return Case(name=name, apply=job.apply, variables=job.variables,
                images=repeated(job.inputs, images))  # fmt: skip


def repeated(images: np.ndarray, count: int) -> np.ndarray:
    """Returns ``count`` images: the given ones, mirrored, shifted by an eighth, both, and so on.

    >>> repeated(np.zeros((2, 16, 16, 3)), 5).shape
    (5, 16, 16, 3)
    """
    rounds = -(-count // len(images))
    step = images.shape[2] // 8
    turned = [np.roll(images[:, :, :: (-1) ** r], step * (r // 2), axis=2) for r in range(rounds)]
    return np.concatenate(turned)[:count]


def float_runner(graph: autosplit.LayerGraph, weights: GraphWeights) -> Runner:
    """Runs the folded network in float as one compiled program."""

    @jax.jit
    def forward(weights: GraphWeights, images: jax.Array) -> list[jax.Array]:
        known = {graph.inputs[0]: images}
        return flat_outputs(graph, weights, run_layers(graph, weights, known,
                                                       range(len(graph.layers))))  # fmt: skip

    return Runner(
        name="autosplit float", bits=32, take=jnp.asarray,
        run=lambda x: jax.block_until_ready(forward(weights, x)),
        give=lambda outputs: np.asarray(outputs[0]),
    )  # fmt: skip


def int8_runner(case: Case, graph: autosplit.LayerGraph, clipping: str) -> Runner:
    """Runs the whole network as an edge half of 8 bits."""
    calls = calibration_calls(graph, case.images)
    weights = prepare(graph, case.variables)
    tables = clip_tables(graph, weights, [calls], jnp.array([8]), [clipping])[clipping]
    split = autosplit.split(graph, case.variables, edge_plan(graph, tables, 8))
    return Runner(
        name="autosplit int8", bits=8, take=jnp.asarray,
        run=lambda x: jax.block_until_ready(split.edge_layers(x)),
        give=lambda outputs: np.asarray(outputs[0]),
    )  # fmt: skip


def edge_plan(graph: autosplit.LayerGraph, tables: ErrorTables, bits: int) -> autosplit.SplitPlan:
    """Puts every layer on the edge at the one bit-width of the tables; nothing is priced."""
    floats = [tensor.is_float for tensor in graph.tensors]
    nothing: dict[str, Any] = dict.fromkeys(
        "edge_s pack_s uplink_s unpack_s cloud_s downlink_s round_trip_s uplink_bytes "
        "downlink_bytes quant_mse predicted_output_error".split(), 0.0
    )  # fmt: skip
    return autosplit.SplitPlan(
        label=f"edge-only ({bits}-bit)",
        fingerprint=graph.fingerprint,
        cut_name="edge-only",
        on_edge=(True,) * len(graph.layers),
        crosses=(False,) * len(graph.tensors),
        encoding="packed",
        w_bits=tuple(FLOAT_BITS if layer.weight is None else bits for layer in graph.layers),
        a_bits=tuple(bits if is_float else FLOAT_BITS for is_float in floats),
        weight_ratio=_column(tables.weight_ratio),
        activation_low=_column(tables.activation_low),
        activation_high=_column(tables.activation_high),
        edge_weight_bytes=0,
        edge_activation_bytes=0,
        **nothing,
    )


def _column(table: jax.Array) -> tuple[float, ...]:
    return tuple(np.asarray(table)[:, 0].astype(float).tolist())
