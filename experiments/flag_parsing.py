"""Parses the flags of a program; where its configuration is at fault, one sentence says so."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from absl import app, flags


def parse_flags(argv: list[str]) -> Any:
    """Parses as absl does, for ``app.run(main, flags_parser=parse_flags)``.

    Args:
      argv: the program first. It has a flag ``config``.

    Returns:
      The arguments that are no flags.

    Raises:
      SystemExit: the configuration cannot be read, or lacks a field that a flag names.
    """
    program = pathlib.Path(argv[0]).stem
    try:
        rest = app.parse_flags_with_usage(argv)
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.items()  # a file that could not be loaded says so when it is used
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        sys.exit(
            f"{program}: --config cannot be read ({reason}); expected a file as configs/demo.py."
        )
    except (AttributeError, KeyError) as error:
        name, *hint = str(error).strip("'\"").replace("\\n", "\n").replace("\\'", "").split("\n")
        advice = " ".join(hint) or "Take one that is in its file."
        sys.exit(f"{program}: the configuration has no field {name!r}. {advice}")
    return rest
