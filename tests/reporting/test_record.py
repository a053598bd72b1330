"""The run record says what is needed to run again."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from autosplit.reporting.record import git_state, run_record


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_record_has_versions_device_seed_and_config() -> None:
    record = run_record({"bits": np.array([2, 4]), "network": {"rate": np.float32(3e6)}}, seed=7)
    assert record["config"] == {"bits": [2, 4], "network": {"rate": 3e6}}
    assert record["seed"] == 7
    assert record["packages"]["jax"] == jax.__version__
    assert record["packages"]["numpy"] == np.__version__
    assert record["packages"]["python"].split(".")[:2] == [str(n) for n in sys.version_info[:2]]
    assert {"autosplit", "jaxlib", "flax"} <= record["packages"].keys()
    assert record["device"]["platform"] == jax.devices()[0].platform
    assert record["device"]["cpu"]
    assert record["device"]["cpu_cores"] >= 1
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_time_is_utc_and_now() -> None:
    started = datetime.datetime.fromisoformat(run_record({}, 0)["started_utc"])
    assert started.utcoffset() == datetime.timedelta(0)
    age = datetime.datetime.now(datetime.UTC) - started
    assert abs(age) < datetime.timedelta(minutes=1)


def test_commit_and_dirty_flag_follow_the_checkout(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_a_folder_within_another_checkout_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "venv").mkdir()
    assert git_state(tmp_path / "venv") == {"commit": None, "dirty": None}
