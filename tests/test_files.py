"""Files are whole or absent, and JSON takes what an experiment holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.files import to_plain, write_bytes, write_json, write_text


def test_text_and_bytes_come_back(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "3 µs\n")
    write_bytes(tmp_path / "b.bin", b"\0\1")
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "3 µs\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\0\1"


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("long old text", "new"):
        write_text(tmp_path / "a.txt", text)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_value_that_json_lacks_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="type complex"):
        write_json(tmp_path / "a.json", {"z": 1j})
    assert list(tmp_path.iterdir()) == []


def test_numpy_values_become_json_numbers(tmp_path: Path) -> None:
    data = {"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True), 4: np.eye(2)}
    write_json(tmp_path / "a.json", data)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == {"a": 3, "b": 0.5, "c": True, "4": [[1.0, 0.0], [0.0, 1.0]]}


def test_what_is_not_finite_becomes_text_that_strict_json_accepts() -> None:
    plain = to_plain([float("inf"), np.array([np.nan]), Path("a") / "b", (1, None)])
    assert plain == ["inf", ["nan"], os.path.join("a", "b"), [1, None]]
    json.dumps(plain, allow_nan=False)
