"""How pieces of many connections queue for one link: the inside of the shaper."""

from __future__ import annotations

import asyncio

import numpy as np

from autosplit.hardware.bandwidth_trace import BandwidthTrace
from autosplit.serving.link import PACKET_BYTES, LinkConditions

PIECE_S = 0.01
"""A piece is what the link carries in this time, so that a change of the rate is soon seen."""
LARGEST_PIECE_BYTES = 1 << 16
WINDOW = 64
"""Pieces of a connection, in one direction, that were read and not delivered. A receiver that
does not read stops its sender behind these."""


class Line:
    """Whether the link is whole; both directions share it."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.refuses = False

    def cut(self, reset: bool) -> None:
        """Lets nothing arrive; with ``reset``, no connection open either."""
        self.connected.clear()
        self.refuses = reset

    def restore(self) -> None:
        """Ends a cut."""
        self.refuses = False
        self.connected.set()


class Direction:
    """One direction of the link: pieces of all connections leave it one after the other."""

    def __init__(
        self,
        line: Line,
        conditions: LinkConditions,
        trace: BandwidthTrace,
        random: np.random.Generator,
    ) -> None:
        self.line = line
        self.loop = asyncio.get_running_loop()
        self.random = random
        self.queue: asyncio.Queue[tuple[Pipe, bytes, float]] = asyncio.Queue()
        self.delivered_bytes = 0
        self.lost_packets = 0
        self.sleeping: asyncio.Future[bool] | None = None
        self.reshape(conditions, trace)

    def reshape(self, conditions: LinkConditions, trace: BandwidthTrace) -> None:
        """Takes other conditions, whose trace starts now."""
        self.conditions, self.trace = conditions, trace
        self.since_s = self.loop.time()
        wanted_bytes = int(trace.mean_bits_per_s * PIECE_S / 8)
        self.piece_bytes = min(max(wanted_bytes, PACKET_BYTES), LARGEST_PIECE_BYTES)
        self.interrupt()

    def interrupt(self) -> None:
        """Makes the piece under way start again, under the conditions of then."""
        if self.sleeping is not None and not self.sleeping.done():
            self.sleeping.set_result(True)

    async def run(self) -> None:
        """Carries the pieces of all connections until cancelled."""
        free_s = self.loop.time()
        while True:
            pipe, data, ready_s = await self.queue.get()
            start_s = max(ready_s, free_s)
            num_bytes, rounds = self._with_losses(len(data))
            while not pipe.writer.is_closing():
                # Times follow from each other, not from when this task woke: it may be late once,
                # never more with every piece.
                taken_s = float(self.trace.transfer_s(num_bytes, start_s - self.since_s))
                free_s = start_s + taken_s
                if not await self._interrupted_before(free_s):
                    late_s = rounds * self.conditions.retransmit_s
                    late_s += self.random.uniform(0, self.conditions.jitter_s)
                    pipe.arrivals.put_nowait((free_s + self.conditions.delay_s + late_s, data))
                    break
                await self.line.connected.wait()
                start_s = self.loop.time()

    def _with_losses(self, data_bytes: int) -> tuple[int, int]:
        """Returns the bytes to carry, repeated ones and headers included, and the repetitions."""
        packets = -(-data_bytes // PACKET_BYTES)
        num_bytes = data_bytes + packets * self.conditions.packet_header_bytes
        rounds = 0
        while packets := int(self.random.binomial(packets, self.conditions.loss)):
            self.lost_packets += packets
            num_bytes += packets * (PACKET_BYTES + self.conditions.packet_header_bytes)
            rounds += 1
        return num_bytes, rounds

    async def _interrupted_before(self, when_s: float) -> bool:
        if not self.line.connected.is_set():
            return True
        self.sleeping = self.loop.create_future()
        handle = self.loop.call_at(when_s, self._wake, self.sleeping)
        try:
            return await self.sleeping
        finally:
            handle.cancel()

    @staticmethod
    def _wake(sleeping: asyncio.Future[bool]) -> None:
        if not sleeping.done():
            sleeping.set_result(False)


class Pipe:
    """One direction of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        self.reader, self.writer, self.direction = reader, writer, direction
        self.arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self.window = asyncio.Semaphore(WINDOW)

    async def read(self) -> None:
        """Queues what the sender writes, and an empty piece where it ends."""
        data = b"."
        while data:
            await self.window.acquire()
            data = await self.reader.read(self.direction.piece_bytes)
            self.direction.queue.put_nowait((self, data, self.direction.loop.time()))

    async def deliver(self) -> None:
        """Writes what has arrived, in order, each piece at its time."""
        while True:
            arrives_s, data = await self.arrivals.get()
            await asyncio.sleep(arrives_s - self.direction.loop.time())
            await self.direction.line.connected.wait()
            if not data:
                self.writer.write_eof()
                return
            self.direction.delivered_bytes += len(data)
            self.writer.write(data)
            await self.writer.drain()
            self.window.release()
