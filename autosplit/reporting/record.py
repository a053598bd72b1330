"""The run record: what is needed to run an experiment again and get the same."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from autosplit.files import to_plain

PACKAGES = ("autosplit", "jax", "jaxlib", "flax", "numpy")
"""Packages whose version can change a result."""

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
"""The folder that is the root of the repository when this is a checkout."""


def run_record(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Records what a run was made of.

    >>> record = run_record({"bits": (2, 4, 8)}, seed=3)
    >>> sorted(record)
    ['config', 'device', 'git', 'packages', 'seed', 'started_utc']
    >>> record["config"], record["seed"]
    ({'bits': [2, 4, 8]}, 3)

    Args:
      config: every setting of the experiment.
      seed: of its random numbers.

    Returns:
      Plain values, ready for JSON. ``git`` has ``commit`` and ``dirty``, both None
      outside a checkout; a package that is not installed has version None.
    """
    now = datetime.datetime.now(datetime.UTC)
    return {
        "started_utc": now.isoformat(timespec="seconds"),
        "seed": int(seed),
        "git": git_state(CHECKOUT),
        "packages": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "device": device_state(),
        "config": to_plain(config),
    }


def git_state(checkout: pathlib.Path) -> dict[str, Any]:
    """Returns commit and dirty flag of a checkout, both None where it is none.

    A folder inside somebody else's checkout (an installed package in a virtual
    environment) does not count.
    """
    root = _git(checkout, "rev-parse", "--show-toplevel")
    if root is None or pathlib.Path(root).resolve() != checkout.resolve():
        return {"commit": None, "dirty": None}
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
    # Without locks: a second git in the same checkout is not disturbed.
    command = ["git", "--no-optional-locks", "-C", os.fspath(folder), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def device_state() -> dict[str, Any]:
    """Returns JAX's default device and the processor of this machine."""
    import jax

    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
        "cpu": _cpu_model(),
        "cpu_cores": _cpu_cores(),
    }


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_cores() -> int:
    """Returns the cores that this process may use, which a container can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
