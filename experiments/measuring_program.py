"""The entry that the programs share which measure something and print a table of it."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from autosplit.errors import AutosplitError
from experiments.flag_parsing import parse_flags

Run = Callable[[ml_collections.ConfigDict, pathlib.Path], Mapping[str, Any]]


def run_program(name: str, run: Run, markdown_text: Callable[[Mapping[str, Any]], str]) -> None:
    """Reads ``--config`` and ``--workdir``, measures, and prints what was found.

    Args:
      name: of the program, and of its configuration in ``configs``.
      run: from configuration and work directory to the document that it wrote.
      markdown_text: of the document.

    Raises:
      SystemExit: a flag, the configuration or an input is not as expected; one sentence says so.
    """
    default = f"configs/{name}.py"
    config_flags.DEFINE_config_file("config", None, f"What to measure; by default {default}.")
    flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
    # Given as an argument: a default is read here already, where nobody tells of a wrong field.
    given = any(word.partition("=")[0] in ("--config", "-config") for word in sys.argv[1:])
    argv = [sys.argv[0], *([] if given else [f"--config={default}"]), *sys.argv[1:]]
    app.run(functools.partial(_main, name, run, markdown_text), argv, flags_parser=parse_flags)


def _main(
    name: str, run: Run, markdown_text: Callable[[Mapping[str, Any]], str], argv: Sequence[str]
) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    workdir = pathlib.Path(flags.FLAGS.workdir).resolve()
    try:
        document = run(flags.FLAGS.config, workdir)
    except (AutosplitError, OSError) as error:
        sys.exit(f"{name}: {error}")
    print(f"\n{markdown_text(document)}\nThe results are in {workdir}")
