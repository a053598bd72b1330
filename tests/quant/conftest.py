"""Tensors of every shape of distribution that a network may hold."""

import numpy as np
import pytest


def draw(name, size=8000):
    """Returns f32[size] of the distribution with this name, always the same."""
    rng = np.random.default_rng(sum(map(ord, name)))
    values = {
        "gauss": lambda: rng.normal(size=size),
        "laplace": lambda: rng.laplace(size=size),
        "half laplace": lambda: np.abs(rng.laplace(size=size)),
        "half gauss": lambda: np.abs(rng.normal(size=size)),
        "uniform": lambda: rng.uniform(-1, 3, size),
        "heavy tails": lambda: rng.standard_t(2.5, size),
        "relu spike": lambda: np.maximum(rng.normal(size=size), 0),
        "silu": lambda: (lambda x: x / (1 + np.exp(-x)))(2 * rng.normal(size=size)),
        "negative": lambda: -np.abs(rng.normal(size=size)) - 0.1,
        "two values": lambda: np.where(rng.random(size) < 0.5, 0.3, 10.0),
        "far from zero": lambda: 5 + 1e-4 * rng.random(size),
        "tiny": lambda: 1e-14 * rng.normal(size=size),
        "huge": lambda: 1e14 * rng.normal(size=size),
    }[name]()
    return values.astype(np.float32)


@pytest.fixture(scope="session")
def sample():
    """The function ``sample(name, size)``."""
    return draw
