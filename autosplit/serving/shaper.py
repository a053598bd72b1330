"""A TCP proxy that makes a fast connection as slow, late and unreliable as a chosen link."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import select
import selectors
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np

from autosplit.errors import InputError
from autosplit.serving.link import LinkConditions
from autosplit.serving.link_queue import LARGEST_PIECE_BYTES, Direction, Line, Pipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """What went through a proxy since it started.

    Attributes:
      connections: that were opened.
      uplink_bytes: delivered to the cloud, without headers of packets.
      downlink_bytes: the same, to the edge.
      lost_packets: in both directions; each was sent again.
    """

    connections: int
    uplink_bytes: int
    downlink_bytes: int
    lost_packets: int


class ShapedProxy:
    """A running proxy; made by `shaping`. Methods may be called by any thread.

    Attributes:
      address: ``host:port`` to connect to instead of the target.
    """

    def __init__(self, target: str, conditions: LinkConditions, seed: int) -> None:
        self.address = ""
        self._target = split_address(target)
        self._loop = asyncio.get_running_loop()
        self._line = Line()
        random = np.random.default_rng(seed)
        self._uplink = Direction(self._line, conditions, conditions.uplink, random)
        self._downlink = Direction(self._line, conditions, conditions.downlink, random)
        self._connections: set[asyncio.Task[None]] = set()
        self._opened = 0
        self._stopped = asyncio.Event()

    def reshape(self, conditions: LinkConditions) -> None:
        """Gives the link other conditions, whose traces start now."""
        self._do(lambda: self._reshape(conditions))

    def cut(self, *, reset: bool = False) -> None:
        """Stops the link until `restore`.

        Args:
          reset: connections break, in the middle of whatever they carry, and new ones are
            refused. Otherwise all stay open and nothing arrives, as with a cable pulled.
        """
        self._do(lambda: self._cut(reset))

    def restore(self) -> None:
        """Lets the link go on; what waited is carried at its rate."""
        self._do(self._line.restore)

    def traffic(self) -> Traffic:
        """Returns what went through so far."""
        return Traffic(
            connections=self._opened,
            uplink_bytes=self._uplink.delivered_bytes,
            downlink_bytes=self._downlink.delivered_bytes,
            lost_packets=self._uplink.lost_packets + self._downlink.lost_packets,
        )

    def _do(self, change: Callable[[], None]) -> None:
        """Runs ``change`` in the proxy's thread and waits for it."""

        async def apply() -> None:
            change()

        asyncio.run_coroutine_threadsafe(apply(), self._loop).result()

    def _reshape(self, conditions: LinkConditions) -> None:
        self._uplink.reshape(conditions, conditions.uplink)
        self._downlink.reshape(conditions, conditions.downlink)

    def _cut(self, reset: bool) -> None:
        self._line.cut(reset)
        for direction in (self._uplink, self._downlink):
            direction.interrupt()
        if reset:
            for connection in self._connections:
                connection.cancel()

    async def run(self, address: str, started: futures.Future[ShapedProxy]) -> None:
        """Listens, says so by ``started``, and carries bytes until `stop`."""
        host, port = split_address(address)
        try:
            server = await asyncio.start_server(
                self._accept, host, port, limit=LARGEST_PIECE_BYTES, backlog=1024
            )
        except OSError as error:
            raise InputError(
                f"The shaper cannot listen at {address} ({error}); expected host:port of this "
                "machine with a free port. Port 0 takes one."
            ) from error
        self.address = f"{host}:{server.sockets[0].getsockname()[1]}"
        carriers = asyncio.gather(self._uplink.run(), self._downlink.run())
        self._loop.create_task(self._stopped.wait()).add_done_callback(lambda _: carriers.cancel())
        started.set_result(self)
        with contextlib.suppress(asyncio.CancelledError):
            await carriers
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stop(self) -> None:
        """Ends `run`; all connections break."""
        self._do(self._stopped.set)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries a connection until both sides have ended it, or one breaks it."""
        writers = [writer]
        try:
            if self._line.refuses:
                return
            self._opened += 1
            # TCP's own round trip, before which a client has nothing to send.
            await asyncio.sleep(2 * self._uplink.conditions.delay_s)
            await self._line.connected.wait()
            far_reader, far_writer = await asyncio.open_connection(
                *self._target, limit=LARGEST_PIECE_BYTES
            )
            writers.append(far_writer)
            up = Pipe(reader, far_writer, self._uplink)
            down = Pipe(far_reader, writer, self._downlink)
            async with asyncio.TaskGroup() as group:
                for part in (up.read(), up.deliver(), down.read(), down.deliver()):
                    group.create_task(part)
        except* (OSError, asyncio.CancelledError):
            pass  # a connection that breaks: `abort` tells the other end
        finally:
            for one in writers:
                one.transport.abort()


class _PreciseSelector(selectors.DefaultSelector):
    """Waits to the microsecond, where epoll rounds up to the next millisecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


@contextlib.contextmanager
def shaping(
    target: str, conditions: LinkConditions, address: str = "127.0.0.1:0", *, seed: int = 0
) -> Iterator[ShapedProxy]:
    """Puts a link of chosen conditions between whoever connects and ``target``.

    It works on TCP's bytes, below gRPC and TLS: what passes is delayed, never changed, and
    the bytes of a connection keep their order. A piece of n bytes that is ready at time t
    leaves when those before it have left and the trace has carried its bits, and arrives
    ``delay + jitter + losses`` later. It runs in a thread of this process.

    Accuracy: never early; late by the wake-up of a thread, some 0.1 ms on an idle machine,
    which does not add up over a message. What it leaves out of TCP: slow start, a shrinking
    window after a loss, and the time until a sender notices that a cut link is back.

    Args:
      target: ``host:port`` of the cloud server.
      conditions: of the link.
      address: ``host:port`` to listen at; port 0 takes a free one.
      seed: of losses and jitter.

    Yields:
      The proxy: its address, and what changes or cuts the link.

    Raises:
      InputError: an address is none, or cannot be listened at.
    """
    started: futures.Future[ShapedProxy] = futures.Future()

    async def run() -> None:
        try:
            proxy = ShapedProxy(target, conditions, seed)
            await proxy.run(address, started)
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    def in_thread() -> None:
        loop = asyncio.SelectorEventLoop(_PreciseSelector())
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=in_thread, name="shaper", daemon=True)
    thread.start()
    proxy = started.result()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of ``host:port``.

    >>> split_address("127.0.0.1:80")
    ('127.0.0.1', 80)

    Raises:
      InputError: another form.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 1 << 16):
        raise InputError(
            f"The address {address!r} is not host:port; expected e.g. 127.0.0.1:50051."
        )
    return host.strip("[]"), int(port)
