"""Reads labels out of a CSV file that names an image in each row."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from autosplit.data.decoding import Skipped, check_on_error, raise_or_list
from autosplit.data.folder import LabelledFiles
from autosplit.errors import InputError

HEADER = ["file", "label"]


def read_label_csv(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    on_error: str = "raise",
) -> LabelledFiles:
    """Reads a CSV file with the header ``file,label``.

    Args:
      path: of the CSV file, UTF-8.
      folder: that the files are relative to; None means the CSV file's own.
      class_names: by class index. A label is then one of them or an index; without
        them it is an index.
      on_error: ``"raise"``, or ``"skip"`` to leave out rows that are wrong and files
        that are missing and list them in ``skipped``.

    Returns:
      The files in the order of the rows. Nothing is decoded yet.

    Raises:
      InputError: the file is missing or is no such CSV, a row is wrong, a file is
        missing or named twice, a label is unknown, or no row is left.
    """
    check_on_error(on_error)
    path = pathlib.Path(path)
    root = path.parent if folder is None else pathlib.Path(folder)
    indices = {name: index for index, name in enumerate(class_names or ())}
    skipped: list[Skipped] = []
    labels: dict[pathlib.Path, int] = {}
    for number, row in enumerate(_rows(path), start=2):
        if not row:
            continue  # an empty line names nothing
        fault = _fault(row, root, indices, labels)
        if fault:
            raise_or_list(skipped, on_error, f"row {number} of {path}", fault)
        else:
            labels[root / row[0]] = indices[row[1]] if row[1] in indices else int(row[1])
    if not labels:
        raise InputError(f"{path} has no usable rows; expected at least one below its header.")
    return LabelledFiles(
        paths=tuple(labels),
        labels=np.array(list(labels.values()), np.int64),
        class_names=None if class_names is None else tuple(class_names),
        skipped=tuple(skipped),
    )


def _rows(path: pathlib.Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a BOM
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as CSV ({error}); expected UTF-8 text with the header "
            f"{','.join(HEADER)}."
        ) from error
    if not rows or rows[0] != HEADER:
        found = ",".join(rows[0]) if rows else "nothing"
        raise InputError(
            f"{path} starts with {found!r}; expected the header {','.join(HEADER)!r}. Add it."
        )
    return rows[1:]


def _fault(
    row: list[str],
    root: pathlib.Path,
    indices: dict[str, int],
    labels: dict[pathlib.Path, int],
) -> str | None:
    """Returns what is wrong with a row, or None."""
    if len(row) != len(HEADER) or not row[0]:
        return f"is {','.join(row)!r}; expected a file and a label."
    if not (root / row[0]).is_file():
        return f"names {row[0]}, which is not in {root}; expected a file there."
    if root / row[0] in labels:
        return f"names {row[0]} a second time; expected each file once."
    if row[1] in indices:
        return None
    if not row[1].isdecimal():
        known = f"one of {len(indices)} class names or " if indices else ""
        return f"has the label {row[1]!r}; expected {known}a class index from 0 on."
    if indices and int(row[1]) >= len(indices):
        return f"has the label {row[1]}; expected 0 to {len(indices) - 1}."
    return None
