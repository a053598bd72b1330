"""The five lines of the README run as they stand there."""

import pathlib
import re

import flax.linen as nn
import jax
import numpy as np

import autosplit
from autosplit import MIB, Constraints, Network
from autosplit.hardware import EYERISS, TPU

README = pathlib.Path(__file__).parents[1] / "README.md"


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=4)(x))
        return nn.Dense(10)(x.mean((1, 2)))


def test_the_five_lines_run():
    (lines,) = re.findall(r"## Five lines\n+```python\n(.*?)```", README.read_text(), re.DOTALL)
    images = jax.random.uniform(jax.random.key(1), (1, 32, 32, 3))
    net = Net()
    names = {
        "autosplit": autosplit,
        "apply_fn": net.apply,
        "params": net.init(jax.random.key(0), images),
        "images": images,
        "calibration": jax.random.uniform(jax.random.key(2), (4, 32, 32, 3)),
        "EYERISS": EYERISS,
        "TPU": TPU,
        "Network": Network,
        "Constraints": Constraints,
        "MIB": MIB,
    }
    exec(compile(lines, README, "exec"), names)
    assert len(lines.strip().splitlines()) == 5
    expected = np.asarray(net.apply(names["params"], images))
    error = np.sum((np.asarray(names["outputs"]) - expected) ** 2) / np.sum(expected**2)
    assert error < 0.05
