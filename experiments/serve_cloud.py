"""Serves the cloud half of a saved split until it is stopped.

    python -m experiments.serve_cloud --split DIR [--address 127.0.0.1:0] [--ready_file FILE]

Prints one line with the bound address once the stages are compiled and the port is open,
a few seconds after the start. SIGTERM or Ctrl-C stops it after the request in progress.
The model's Python code is not needed: the directory holds all.
"""

from __future__ import annotations

import pathlib
import signal
import sys
import threading
from collections.abc import Sequence

from absl import app, flags

from autosplit.errors import AutosplitError
from autosplit.execution import artefact
from autosplit.files import write_text
from autosplit.serving.cloud_server import serving


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("split", None, "Directory of the saved split.", required=True)
    flags.DEFINE_string("address", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
    flags.DEFINE_string("ready_file", None, "Write the bound address here when ready.")


def serve(directory: str, address: str, ready_file: pathlib.Path | None) -> None:
    """Serves until SIGTERM or SIGINT arrives.

    Args:
      directory: of the saved split.
      address: ``host:port``; port 0 takes a free one.
      ready_file: holds the bound address while the server runs, and only then.

    Raises:
      AutosplitError: the split cannot be read or served, or the address not bound.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # left by a server that was killed
    split = artefact.load(directory, sides=("cloud",))
    with serving(split, address) as bound:
        print(f"Serving split {split.manifest.split_id[:12]} at {bound}", flush=True)
        if ready_file is not None:
            write_text(ready_file, f"{bound}\n")
        try:
            stopped.wait()
        finally:
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
    print("Stopped.", flush=True)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and serves."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    ready_file = flags.FLAGS.ready_file
    try:
        serve(
            flags.FLAGS.split,
            flags.FLAGS.address,
            pathlib.Path(ready_file) if ready_file else None,
        )
    except (AutosplitError, OSError) as error:
        sys.exit(f"serve_cloud: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
