"""Times the layers of a network on this machine and writes a device file.

    python -m experiments.measure_device --config=configs/demo.py --output=build/device.json
    python -m experiments.measure_device --model=resnet18 --output=build/device.json

The device file (`autosplit.hardware.measured.load_device`) is used like any preset, for
this network at this input size. Beside it come ``device.csv`` and ``device.md``, the times of every
distinct layer, and ``device.png``. Each file is whole or absent; the device file comes last.

A minute for MobileNet-v2 on 2 cores, most of it compilation. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.data.imagenet import CROP_PIXELS
from autosplit.errors import AutosplitError, InputError
from autosplit.files import write_text
from autosplit.graph.running import prepare
from autosplit.hardware.measured import LayerTime, Measured
from autosplit.models import MODELS, create_model
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from experiments.benchmark_case import make_case
from experiments.device_report import csv_text, layer_figure, markdown_text, summary_of, verdict
from experiments.flag_parsing import parse_flags
from experiments.layer_timing import SAMPLE_S, GraphTimes, time_graph
from experiments.steps import check_fields, load_job
from experiments.timing import copy_bytes_per_s

COPY_BYTES = 256 << 20  # far more than caches hold
ROUNDS = 11


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The network whose layers are timed.

    Attributes:
      title: of the network.
      apply: ``apply(variables, images)``.
      variables: parameters and batch statistics.
      images: f32[1, H, W, 3], one input as the network takes it.
      settings: what it was made of, for the record.
      seed: of random numbers.
    """

    title: str
    apply: Callable[..., Any]
    variables: Any
    images: np.ndarray
    settings: Mapping[str, Any]
    seed: int


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/demo.py.")
    flags.DEFINE_string("model", None, "In place of --config: a network with random weights.")
    flags.DEFINE_integer("image_size", CROP_PIXELS, "With --model: height and width.", 1)
    flags.DEFINE_string("output", None, "Device file to write, .json.", required=True)
    flags.DEFINE_string("name", None, "Of the device; by default that of the processor.")
    flags.DEFINE_integer("rounds", ROUNDS, "Samples of each layer.", 1)


def config_subject(config: ml_collections.ConfigDict) -> Subject:
    """Loads the network of a configuration of the main job or of the benchmark.

    Raises:
      AutosplitError: no such model, weights or images, or they do not fit.
    """
    settings = config.to_dict()
    if "stage_sizes" in settings.get("model", {}):
        case = make_case(config)
        apply, variables, images = case.apply, case.variables, case.inputs[:1]
    else:
        check_fields(config)
        job = load_job(config)
        apply, variables, images = job.apply, job.variables, job.inputs[:1]
    return Subject(
        title=settings["model"].get("name") or config.title,
        apply=apply,
        variables=variables,
        images=images,
        settings=settings,
        seed=config.seed,
    )


def model_subject(name: str, image_size: int) -> Subject:
    """Makes a network with random weights: times do not depend on what it has learned.

    Raises:
      InputError: there is no such model.
    """
    model = create_model(name)
    # Parameters do not depend on the image size; a small image compiles faster.
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    images = np.random.default_rng(0).normal(size=(1, image_size, image_size, 3))
    return Subject(
        title=name,
        apply=model.apply,
        variables=variables,
        images=images.astype(np.float32),
        settings={"model": name, "image_size": image_size},
        seed=0,
    )


def run(
    subject: Subject,
    output: pathlib.Path,
    *,
    name: str | None = None,
    rounds: int = ROUNDS,
    sample_s: float = SAMPLE_S,
    copy_bytes: int = COPY_BYTES,
) -> Measured:
    """Times all layers and writes the device file and what goes with it.

    Args:
      subject: the network.
      output: device file to write, of suffix ``.json``.
      name: of the device; by default the processor's.
      rounds: samples of each layer, whose median counts.
      sample_s: least duration of a sample.
      copy_bytes: size of the copy that measures the memory.

    Returns:
      The device.

    Raises:
      AutosplitError: the file cannot be written, or the network cannot be traced.
    """
    record = run_record(subject.settings, subject.seed)
    check_output(output)
    print(f"== Trace {subject.title}", flush=True)
    graph = autosplit.trace(subject.apply, subject.variables, subject.images)
    weights = prepare(graph, subject.variables)
    print(f"== Time {len(graph.layers)} layers, compiling the distinct ones", flush=True)
    inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves(subject.images)]
    times = time_graph(graph, weights, inputs, rounds, sample_s=sample_s,
                       tell=lambda line: print(line, flush=True))  # fmt: skip
    record |= {"title": subject.title, "xla_flags": os.environ.get("XLA_FLAGS", ""),
               "rounds": rounds, "summary": summary_of(times)}  # fmt: skip
    device = Measured(
        name=name or f"{record['device']['cpu']}, {record['device']['cpu_cores']} cores",
        times=layer_times(times),
        memory_bytes_per_s=copy_bytes_per_s(copy_bytes),
        memory_bytes=machine_memory_bytes(),
        fingerprints=(graph.fingerprint,),
        record=record,
    )
    write_text(output.with_suffix(".csv"), csv_text(times))
    write_text(output.with_suffix(".md"), markdown_text(device, times))
    save_figure(layer_figure(device, times), output.with_suffix(".png"))
    device.save(output)
    print(verdict(summary_of(times)), flush=True)
    return device


def layer_times(times: GraphTimes) -> tuple[LayerTime, ...]:
    """Returns the medians by distinct workload."""
    return tuple(
        LayerTime(workload=workload, float_s=float_s, int8_s=int8_s, int8_form=form)
        for workload, (float_s, int8_s, form) in times.workload_seconds().items()
    )


def check_output(output: pathlib.Path) -> None:
    """Raises `InputError` unless a device file can be written there; makes missing folders."""
    if output.suffix != ".json" or output.is_dir():
        raise InputError(
            f"The device file would be {output}; expected a file name that ends in .json. "
            "Pass for example --output=build/device.json."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise InputError(
            f"{output.parent} takes no files ({error}); expected a folder that can be written to. "
            "Pass another --output."
        ) from error


def machine_memory_bytes() -> float | None:
    """Returns the memory of this machine; None where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def chosen_subject(values: Any) -> Subject:
    """Returns the network that the flags name.

    Raises:
      AutosplitError: they name none, or two, or one that cannot be loaded.
    """
    if (values.config is None) == (values.model is None):
        raise InputError(
            "Both --config and --model are given, or neither; expected one of them. Pass for "
            f"example --config=configs/demo.py, or --model= one of {', '.join(MODELS)}."
        )
    if values.model is not None:
        return model_subject(values.model, values.image_size)
    return config_subject(values.config)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and measures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    values = flags.FLAGS
    output = pathlib.Path(values.output).resolve()
    try:
        check_output(output)  # before anything is loaded
        subject = chosen_subject(values)
        run(subject, output, name=values.name, rounds=values.rounds)
    except (AutosplitError, OSError) as error:
        sys.exit(f"measure_device: {' '.join(str(error).split())}")
    print(f"The device is {output}; use it as edge or cloud of a configuration of this network.")


if __name__ == "__main__":
    define_flags()
    jax.config.config_with_absl()
    app.run(main, flags_parser=parse_flags)
