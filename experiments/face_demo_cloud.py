"""The cloud process of the demonstration: the cloud halves, and the whole network for pictures.

    python -m experiments.face_demo_cloud --workdir DIR --ready_file FILE

Started by `experiments.face_demo`. Serves every saved split of the work directory by gRPC, and
answers pictures (JPEG by HTTP) with what the whole network finds in them. The model's Python
code is not needed: the directory holds all. FILE gets the addresses when it is ready.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from absl import app, flags

import autosplit
from autosplit.errors import AutosplitError
from autosplit.execution import artefact
from autosplit.files import write_text
from autosplit.serving.cloud_server import serving
from autosplit.serving.server_options import ServerOptions

CLOUD_ONLY = "cloud_only"
LARGEST_PICTURE_BYTES = 1 << 20
POLL_S = 0.05  # how soon the server notices that it is to stop
DIGITS = 3  # of pixels and scores in an answer


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    flags.DEFINE_string("workdir", None, "Directory with the saved splits.", required=True)
    flags.DEFINE_string("ready_file", None, "Gets the addresses.", required=True)


def serve(folder: pathlib.Path, ready_file: pathlib.Path) -> None:
    """Serves until SIGTERM or SIGINT arrives.

    Args:
      folder: with one saved split in each folder, the cut before the first layer in
        `CLOUD_ONLY`.
      ready_file: holds the addresses as JSON while the process runs.

    Raises:
      AutosplitError: a split cannot be read or served.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with contextlib.ExitStack() as stack:
        splits = [
            artefact.load(path, sides=("cloud",))
            for path in sorted(folder.iterdir()) if path.name != CLOUD_ONLY
        ]  # fmt: skip
        whole = artefact.load(folder / CLOUD_ONLY, sides=("cloud",))
        addresses = {
            # A single client: nothing to put together with its requests.
            "splits": stack.enter_context(serving(splits, options=ServerOptions(max_batch=1))),
            "pictures": stack.enter_context(serving_pictures(whole)),
        }
        write_text(ready_file, json.dumps(addresses))
        stopped.wait()


@contextlib.contextmanager
def serving_pictures(whole: autosplit.Split) -> Iterator[str]:
    """Answers pictures with what the whole network finds.

    ``POST /`` with a JPEG of the network's size gives JSON: ``outputs``, the flat outputs
    of the places that hold an object, and the seconds ``decode_s`` and ``cloud_s``.

    Args:
      whole: cut before the first layer.

    Yields:
      The address on loopback.
    """
    _, height, width, _ = whole.manifest.inputs[0].shape
    jax.block_until_ready(whole.cloud_outputs([jnp.zeros((1, height, width, 3))]))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST_PICTURE_BYTES:
                self.close_connection = True
                self._answer(413, {"error": f"expected up to {LARGEST_PICTURE_BYTES} bytes"})
                return
            picture = self.rfile.read(int(length))
            try:
                self._answer(200, answer_picture(whole, picture))
            except (OSError, ValueError, SyntaxError) as error:
                self._answer(400, {"error": str(error)})

        def _answer(self, status: int, data: Any) -> None:
            body = json.dumps(data, separators=(",", ":")).encode()
            head = f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            self.wfile.write(head + body)  # at once: two small packets would wait for each other

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_picture(whole: autosplit.Split, picture: bytes) -> dict[str, Any]:
    """Returns the outputs for a JPEG, and what they took.

    Raises:
      OSError, ValueError, SyntaxError: it is no JPEG of the network's size.
    """
    received_s = time.perf_counter()
    _, height, width, _ = whole.manifest.inputs[0].shape
    with PIL.Image.open(io.BytesIO(picture), formats=("JPEG",)) as image:
        if image.size != (width, height):  # known from its head, before it is decoded
            raise ValueError(f"the picture has {image.size} pixels; expected {(width, height)}")
        pixels = jnp.asarray(np.asarray(image.convert("RGB"), np.float32)[None] / 255)
    decoded_s = time.perf_counter()
    outputs = jax.block_until_ready(whole.cloud_outputs([pixels]))
    computed_s = time.perf_counter()
    *_, valid = [np.asarray(output) for output in outputs]
    return {
        "outputs": [
            np.round(np.asarray(output)[:, valid[0]].astype(float), DIGITS).tolist()
            for output in outputs
        ],
        "decode_s": decoded_s - received_s,
        "cloud_s": computed_s - decoded_s,
    }


def main(argv: Sequence[str]) -> None:
    """Reads the flags and serves."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    try:
        serve(pathlib.Path(flags.FLAGS.workdir), pathlib.Path(flags.FLAGS.ready_file))
    except (AutosplitError, OSError) as error:
        sys.exit(f"face_demo_cloud: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
