"""Serves the demonstration's page on this machine: files, state, a stream of results, settings."""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from autosplit.errors import InputError
from experiments.face_demo_state import Board

FOLDER = pathlib.Path(__file__).with_name("face_demo_web")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
LARGEST_BODY_BYTES = 1024
HOST = "127.0.0.1"
KEEP_ALIVE_S = 5.0
POLL_S = 0.05  # how soon the server notices that it is to stop
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page(http.server.ThreadingHTTPServer):
    """The sidecar; listens on loopback alone.

    Attributes:
      board: shown and set.
      facts: what does not change, as JSON values.
    """

    daemon_threads = True
    block_on_close = False  # a stream would hold it up

    def __init__(self, port: int, board: Board, facts: Mapping[str, Any]) -> None:
        self.board, self.facts = board, facts
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of connections that the page broke, as it does when it is closed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving_page(board: Board, facts: Mapping[str, Any], port: int = 0) -> Iterator[str]:
    """Serves the page while the block runs.

    Args:
      board: shown and set.
      facts: plans, limits and texts, for ``/facts``.
      port: 0 takes a free one.

    Yields:
      The address of the page.

    Raises:
      InputError: the port is taken.
    """
    try:
        server = Page(port, board, facts)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"The page cannot be served at port {port} ({error}); expected a free one. Pass "
            "another --port; 0 takes a free one."
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="page", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        board.close()  # ends the streams
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Page
    protocol_version = "HTTP/1.1"
    server_version = "autosplit"
    sys_version = ""
    timeout = 30.0  # a connection that says nothing

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._is_local():
            self._refuse(403, "This page is for this machine alone.")
        elif path in FILES:
            name, kind = FILES[path]
            self._answer(200, kind, (FOLDER / name).read_bytes())
        elif path == "/facts":
            self._answer_json(200, self.server.facts)
        elif path == "/events":
            self._stream()
        else:
            self._refuse(404, "There is no such page; expected / .")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._is_local():
            self._refuse(403, "Settings are changed by the page itself alone.")
        elif self.path != "/settings":
            self._refuse(404, "There is nothing to set here; expected /settings.")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "Expected a body of the type application/json.")
        elif not length.isdecimal():
            self._refuse(411, "Expected a Content-Length.")
        elif len(length) > 9 or int(length) > LARGEST_BODY_BYTES:
            self._refuse(413, f"Expected a body of at most {LARGEST_BODY_BYTES} bytes.")
        else:
            self._set(self.rfile.read(int(length)))

    def _set(self, body: bytes) -> None:
        try:
            settings = self.server.board.change(body)
        except InputError as error:
            self._answer_json(400, {"error": str(error)})
        else:
            self._answer_json(200, settings.__dict__)

    def _is_local(self) -> bool:
        """Returns whether the request is for this address, and not from another site's page."""
        port = self.server.server_address[1]
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        )

    def _stream(self) -> None:
        """Sends server-sent events until the page or the demonstration ends."""
        self._head(200, "text/event-stream", None)
        board, count = self.server.board, 0
        with contextlib.suppress(OSError):  # the page was closed
            while not board.closed:
                count, newer = board.after(count, KEEP_ALIVE_S)
                events = [f"event: {name}\ndata: {json.dumps(data)}\n\n"
                          for name, data in newer.items()]  # fmt: skip
                if not board.closed:
                    self.wfile.write("".join(events or [": still here\n\n"]).encode())

    def _answer_json(self, status: int, data: Any) -> None:
        self._answer(status, "application/json", json.dumps(data).encode())

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # a body may be left unread
        self._answer_json(status, {"error": message})

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is None:
            self.close_connection = True  # a stream ends with its connection
        else:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in SECURITY.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing: the page asks all the time."""
