"""Serves the cloud halves of saved splits until it is stopped.

    python -m experiments.serve_cloud --split DIR [--address 127.0.0.1:0] [--ready_file FILE]

DIR is a saved split, or a directory of saved splits, which is watched: a split that is copied
into it is served, one that is removed is not any more. Prints one line with the bound address
once the stages are compiled and the port is open, a few seconds after the start; what happens
then goes to the standard error as lines of JSON. SIGTERM or Ctrl-C drains: what was accepted is
answered, nothing more is accepted. The model's Python code is not needed: DIR holds all.

An address that other machines can reach needs --certificate and --key, and --tokens or
--client_ca; or, on a network that is trusted, --allow_insecure.
"""

from __future__ import annotations

import pathlib
import signal
import sys
import threading
from collections.abc import Sequence

from absl import app, flags

from autosplit.errors import AutosplitError
from autosplit.files import write_text
from autosplit.serving.cloud_server import serving
from autosplit.serving.logs import write_logs
from autosplit.serving.quotas import Quotas
from autosplit.serving.security import ServerSecurity
from autosplit.serving.server_options import ServerOptions

_DEFAULTS = ServerOptions()


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("split", None, "Directory of a saved split, or of several.", required=True)
    flags.DEFINE_string("address", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
    flags.DEFINE_string("ready_file", None, "Write the bound address here when ready.")
    flags.DEFINE_string("metrics_address", None, "host:port of Prometheus metrics over HTTP.")
    flags.DEFINE_enum(
        "log_level", "info", ("debug", "info", "warning", "error"),
        "Least level of the log; debug has a line per request.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "max_batch", _DEFAULTS.max_batch, "Most requests computed together.", lower_bound=1
    )
    flags.DEFINE_integer("queue", _DEFAULTS.queue, "Most requests that wait.", lower_bound=1)
    flags.DEFINE_float("drain_s", _DEFAULTS.drain_s, "Longest time to stop.", lower_bound=0.0)
    flags.DEFINE_integer("devices", None, "JAX devices to use; all if not given.", lower_bound=1)
    flags.DEFINE_string("certificate", None, "PEM file with the server's certificate chain.")
    flags.DEFINE_string("key", None, "PEM file with its private key.")
    flags.DEFINE_string("client_ca", None, "PEM file: only clients with its certificates connect.")
    flags.DEFINE_string("tokens", None, "File of tokens: only clients with one are answered.")
    flags.DEFINE_float("requests_per_s", None, "Quota of each client.", lower_bound=0.0)
    flags.DEFINE_float("bytes_per_s", None, "Quota of each client.", lower_bound=0.0)
    flags.DEFINE_bool("allow_insecure", False, "Let other machines in without security.")


def options_of(values: flags.FlagValues) -> ServerOptions:
    """Returns what the flags say."""
    security = {
        name: pathlib.Path(path)
        for name in ("certificate", "key", "client_ca", "tokens")
        if (path := getattr(values, name))
    }
    quotas = Quotas(requests_per_s=values.requests_per_s, bytes_per_s=values.bytes_per_s)
    return ServerOptions(
        security=ServerSecurity(**security) if security else None,
        quotas=None if quotas == Quotas() else quotas,
        max_batch=values.max_batch,
        queue=values.queue,
        drain_s=values.drain_s,
        devices=values.devices,
        allow_insecure=values.allow_insecure,
        metrics_address=values.metrics_address,
    )


def serve(
    directory: str, address: str, ready_file: pathlib.Path | None, options: ServerOptions
) -> None:
    """Serves until SIGTERM or SIGINT arrives.

    Args:
      directory: of the saved split, or of several.
      address: ``host:port``; port 0 takes a free one.
      ready_file: holds the bound address while the server runs, and only then.
      options: of the server.

    Raises:
      AutosplitError: the split cannot be read or served, or the address not bound.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # left by a server that was killed
    with serving(directory, address, options) as bound:
        print(f"Serving {directory} at {bound}", flush=True)
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
    values = flags.FLAGS
    ready_file = pathlib.Path(values.ready_file) if values.ready_file else None
    write_logs(sys.stderr, values.log_level)
    try:
        serve(values.split, values.address, ready_file, options_of(values))
    except (AutosplitError, OSError) as error:
        sys.exit(f"serve_cloud: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
