"""Scheduler: requests wait in bounded queues and are computed in batches, spread over devices.

Each device computes one batch at a time on a thread of its own; meanwhile the event loop goes
on receiving, and what arrives makes up the next batch. A device that becomes free takes the
split whose request has waited longest.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent import futures

import jax

from autosplit.serving.refusals import DeadlinePassedError, DrainingError, QueueFullError
from autosplit.serving.served_split import Computed, Payload, ServedSplit

_LEAST_RETRY_S = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one request.

    Attributes:
      computed: of its batch.
      index: its place in the batch.
      batch: requests in it, without padding.
      queue_s: from acceptance to the start of the computation.
    """

    computed: Computed
    index: int
    batch: int
    queue_s: float


@dataclasses.dataclass(kw_only=True, eq=False)
class Job:
    """A request that waits.

    Attributes:
      payload: of its tensors.
      accepted_s: on the clock of ``time.monotonic``.
      deadline_s: returns until when somebody waits for it, on the same clock.
      result: to be done by the scheduler.
    """

    payload: Payload
    accepted_s: float
    deadline_s: Callable[[], float]
    result: asyncio.Future[Result]

    @property
    def num_bytes(self) -> int:
        """Bytes of the payload."""
        return sum(array.nbytes for array in self.payload)


class Scheduler:
    """Computes requests on devices. One event loop owns it.

    Args:
      devices: one thread each.
      queue: most requests that wait, over all splits.
      queue_bytes: most bytes of payload that wait; one request is always let in.
      max_wait_s: longest wait of an idle device for a batch to fill, after a batch of several.
    """

    def __init__(
        self, devices: Sequence[jax.Device], queue: int, queue_bytes: int, max_wait_s: float
    ) -> None:
        self._queue, self._queue_bytes, self._max_wait_s = queue, queue_bytes, max_wait_s
        self._threads = [
            futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"device-{index}")
            for index in range(len(devices))
        ]
        self._lines: dict[ServedSplit, collections.deque[Job]] = {}  # none empty, oldest first
        self._last_batch: weakref.WeakKeyDictionary[ServedSplit, int] = weakref.WeakKeyDictionary()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting_bytes = 0
        self.waiting = 0

    def start(self) -> None:
        """Starts to compute; called on the event loop."""
        self._tasks = [
            asyncio.create_task(self._run(device)) for device in range(len(self._threads))
        ]

    async def stop(self) -> None:
        """Ends the threads after the batches that they compute, and refuses what still waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for jobs in self._lines.values():
            for job in jobs:
                _settle(job, DrainingError("The server stopped. Send it again elsewhere."))
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)

    async def submit(
        self, served: ServedSplit, payload: Payload, deadline_s: Callable[[], float]
    ) -> Result:
        """Computes a request when its turn has come.

        Args:
          served: the split that it is for.
          payload: checked against the manifest.
          deadline_s: returns until when somebody waits, on the clock of ``time.monotonic``;
            asked when the request's turn has come.

        Returns:
          The outputs of its batch, and its place in it.

        Raises:
          QueueFullError: as many requests wait as may; it was not accepted.
          DeadlinePassedError: nobody waits any more when its turn has come.
        """
        job = Job(
            payload=payload, accepted_s=time.monotonic(), deadline_s=deadline_s,
            result=asyncio.get_running_loop().create_future(),
        )  # fmt: skip
        self._admit(job)
        self._lines.setdefault(served, collections.deque()).append(job)
        self._arrived.set()
        return await job.result

    def _admit(self, job: Job) -> None:
        if self.waiting >= self._queue:
            for served in list(self._lines):
                self._drop_late(served)
        waiting_bytes = self._waiting_bytes + job.num_bytes
        if self.waiting >= self._queue or (self.waiting and waiting_bytes > self._queue_bytes):
            raise QueueFullError(
                f"{self.waiting} requests of {self._waiting_bytes} bytes wait; expected at most "
                f"{self._queue} of {self._queue_bytes} bytes. Send it again later.",
                retry_after_s=self._backlog_s(),
            )
        self.waiting += 1
        self._waiting_bytes = waiting_bytes

    def _backlog_s(self) -> float:
        """Returns about how long the devices need for half of what waits."""
        all_s = sum(served.request_s * len(jobs) for served, jobs in self._lines.items())
        return max(_LEAST_RETRY_S, all_s / len(self._threads) / 2)

    async def _run(self, device: int) -> None:
        """Computes batch after batch on one device."""
        while True:
            await self._step(device)  # holds no split while it waits: it may be dropped meanwhile

    async def _step(self, device: int) -> None:
        """Computes the next batch, or waits until there may be one."""
        self._arrived.clear()
        served, left_s = self._ready()
        if served is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()
        elif jobs := self._take(served):
            await self._compute(device, served, jobs)

    def _ready(self) -> tuple[ServedSplit | None, float | None]:
        """Returns the split whose request waits longest, or how long its batch may still fill."""
        if not self._lines:
            return None, None
        served, jobs = min(self._lines.items(), key=lambda line: line[1][0].accepted_s)
        left_s = jobs[0].accepted_s + self._max_wait_s - time.monotonic()
        expected = min(self._last_batch.get(served, 1), max(served.batch_s))
        return (served, None) if len(jobs) >= expected or left_s <= 0 else (None, left_s)

    def _take(self, served: ServedSplit) -> list[Job]:
        """Takes the jobs of the next batch out of the queue."""
        self._drop_late(served)
        jobs = self._lines.get(served, collections.deque())
        count = min(len(jobs), served.batch_size(len(jobs))) if jobs else 0
        taken = [jobs.popleft() for _ in range(count)]
        self._leave(served, taken)
        if taken:
            self._last_batch[served] = count
        return taken

    def _drop_late(self, served: ServedSplit) -> None:
        """Refuses the jobs for which nobody waits any more."""
        jobs, now_s = self._lines.get(served, ()), time.monotonic()
        late = [job for job in jobs if job.deadline_s() <= now_s]
        if late:
            self._lines[served] = collections.deque(job for job in jobs if job not in late)
        self._leave(served, late)
        for job in late:
            _settle(job, DeadlinePassedError(
                "The request's deadline passed while it waited; it was not computed. Allow more "
                "time, or send fewer requests at once."
            ))  # fmt: skip

    def _leave(self, served: ServedSplit, jobs: Sequence[Job]) -> None:
        self.waiting -= len(jobs)
        self._waiting_bytes -= sum(job.num_bytes for job in jobs)
        if not self._lines.get(served, True):
            del self._lines[served]

    async def _compute(self, device: int, served: ServedSplit, jobs: Sequence[Job]) -> None:
        size = min(n for n in served.batch_s if n >= len(jobs))
        started_s = time.monotonic()
        try:
            computed = await asyncio.get_running_loop().run_in_executor(
                self._threads[device], served.compute, device, [job.payload for job in jobs], size
            )
        except Exception as error:
            for job in jobs:
                _settle(job, error)
            return
        for index, job in enumerate(jobs):
            waited_s = started_s - job.accepted_s
            _settle(job, Result(computed=computed, index=index, batch=len(jobs), queue_s=waited_s))


def _settle(job: Job, outcome: Result | Exception) -> None:
    if job.result.done():  # cancelled: the server stops
        return
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
