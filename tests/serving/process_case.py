"""Splits of a small network, saved for two processes, and how these are run."""

import contextlib
import dataclasses
import pathlib
import shutil
import signal
import subprocess
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import autosplit

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = autosplit.Network(uplink_bits_per_s=1e6, round_trip_s=0.01)
REQUESTS = 3
SIDES = {
    "edge": ("manifest.json", "edge.stablehlo", "edge_unpack.stablehlo", "edge_weights.bin"),
    "cloud": ("manifest.json", "cloud.stablehlo", "cloud_batch.stablehlo", "cloud_weights.bin"),
}


class Net(nn.Module):
    """Small, with a residual connection and nested outputs."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        y = nn.relu(nn.Conv(4, (3, 3))(x))
        x = x + nn.Conv(4, (3, 3))(y)
        return {"scores": nn.Dense(5)(x.mean((1, 2))), "largest": x.max()}


def pick(params, ids, x):
    """Makes integers on the way: the positions of the largest rows."""
    rows = params["table"][ids] * x
    order = jnp.argsort(-rows.sum(axis=1))
    return jnp.tanh(rows[order] @ params["mix"]), order


@dataclasses.dataclass(frozen=True)
class Case:
    """A split, the inputs of its requests, and the outputs that it gives in this process."""

    split: autosplit.Split
    inputs: tuple[np.ndarray, ...]

    def outputs(self, request):
        payload = self.split.edge(*(array[request] for array in self.inputs))
        return [np.asarray(out) for out in self.split.cloud_outputs(self.split.unpack(payload))]


def save(case, folder):
    """Writes the split, a copy for each side that lacks the other's files, and the requests."""
    case.split.save(folder / "split")
    for side, names in SIDES.items():
        (folder / side).mkdir()
        for name in names:
            if (folder / "split" / name).exists():
                shutil.copy(folder / "split" / name, folder / side / name)
    np.savez(folder / "in.npz", **{f"arg{i}": array for i, array in enumerate(case.inputs)})
    return case


def python(program, **options):
    """Returns the command of a program; it writes what it imports to its standard error."""
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-X", "importtime", "-m", f"experiments.{program}", *given]


def run_edge(folder, **options):
    settings = {"split": folder / "edge", "inputs": folder / "in.npz",
                "output": folder / "out.json"} | options  # fmt: skip
    return subprocess.run(
        python("run_edge", **settings), cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@contextlib.contextmanager
def running_server(folder, **options):
    with (folder / "server.err").open("w") as errors:
        server = subprocess.Popen(
            python("serve_cloud", split=folder / "cloud", ready_file=folder / "ready", **options),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            yield server
        finally:
            server.kill()
            server.communicate()


def imported(stderr):
    return {line.rpartition("|")[2].strip() for line in stderr.splitlines() if "|" in line}


def assert_model_is_not_imported(stderr):
    modules = imported(stderr)
    assert {"jax", "autosplit.execution.artefact"} <= modules
    foreign = {"flax", "torch", "autosplit.models"}
    assert not {name for name in modules if foreign & {name, name.split(".")[0]}}
    assert not {name for name in modules if pathlib.Path(__file__).stem in name}


def assert_same_outputs(case, folder):
    with np.load(folder / "out.npz") as found:
        for request in range(REQUESTS):
            expected = case.outputs(request)
            assert len(found.files) == len(expected)
            for index, array in enumerate(expected):
                got = found[f"out{index}"][request]
                assert (got.dtype, got.shape) == (array.dtype, array.shape)
                assert got.tobytes() == array.tobytes()


def run_both(case, folder):
    """Runs a saved case in two processes and stops the server as a user does."""
    with running_server(folder) as server:
        run = run_edge(folder, ready_file=folder / "ready", repeat=2, warmup=1)
        assert run.returncode == 0, run.stderr[-2000:]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        assert not (folder / "ready").exists()
    assert_same_outputs(case, folder)
    assert_model_is_not_imported(run.stderr)
    assert_model_is_not_imported((folder / "server.err").read_text())
    return run
