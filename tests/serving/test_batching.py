"""The scheduler with splits that are made of Python functions and devices that are numbers."""

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest

from autosplit.errors import InputError, ProtocolError
from autosplit.serving.batching import Scheduler
from autosplit.serving.refusals import DeadlinePassedError, DrainingError, QueueFullError
from autosplit.serving.served_split import Computed, ServedSplit, compile_split

FOREVER = float("inf")
LONG_S = 30.0


class Device:
    """Stands in for a served split: notes its batches, and may be held."""

    request_s = 0.001

    def __init__(self, sizes=(1,), rates=None):
        self.batch_s = {size: (rates or {}).get(size, 1.0) for size in sizes}
        self.manifest = type("Manifest", (), {"split_id": "ab"})
        self.batches = []
        self.opened = threading.Event()
        self.opened.set()

    batch_size = ServedSplit.batch_size

    def compute(self, device, payloads, size):
        self.batches.append((device, [int(payload[0][0]) for payload in payloads], size))
        assert self.opened.wait(LONG_S)
        outputs = [(payload[0] * 2,) for payload in payloads]
        return Computed(outputs=outputs, unpack_s=0.0, cloud_s=0.0)


def payload(number, num_bytes=1):
    return (np.full(num_bytes, number, np.uint8),)


def scheduled(scenario, devices=1, queue=100, queue_bytes=10**6, max_wait_s=0.0):
    async def run():
        scheduler = Scheduler([None] * devices, queue, queue_bytes, max_wait_s)
        scheduler.start()
        try:
            async with asyncio.timeout(LONG_S):
                await scenario(scheduler)
        finally:
            await scheduler.stop()

    asyncio.run(run())


def submit(scheduler, split, number, deadline_s=FOREVER, num_bytes=1):
    waits = scheduler.submit(split, payload(number, num_bytes), lambda: deadline_s)
    return asyncio.ensure_future(waits)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def doubled(result):
    return int(result.computed.outputs[result.index][0][0])


def test_what_waits_is_computed_together_and_everybody_gets_their_own():
    async def scenario(scheduler):
        split = Device((1, 2, 4))
        split.opened.clear()
        calls = [submit(scheduler, split, 0)]
        await until(lambda: split.batches)
        calls += [submit(scheduler, split, number) for number in range(1, 8)]
        await until(lambda: scheduler.waiting == 7)
        split.opened.set()
        results = await asyncio.gather(*calls)
        assert [doubled(result) for result in results] == [2 * number for number in range(8)]
        assert [numbers for _, numbers, _ in split.batches] == [[0], [1, 2, 3, 4], [5, 6, 7]]
        assert [size for _, _, size in split.batches] == [1, 4, 4]  # the last one is padded
        assert [result.batch for result in results] == [1, 4, 4, 4, 4, 3, 3, 3]
        assert all(result.queue_s >= 0 for result in results)

    scheduled(scenario)


@pytest.mark.parametrize(
    ("rates", "waiting", "size"),
    [
        ({1: 1.0, 4: 2.0}, 1, 1),  # padding would serve one request in twice the time
        ({1: 1.0, 4: 2.0}, 2, 1),  # as fast one after the other, and the first is sooner
        ({1: 1.0, 4: 2.0}, 3, 4),
        ({1: 1.0, 4: 2.0}, 9, 4),
        ({1: 1.0}, 9, 1),
    ],
)
def test_the_size_that_serves_most_requests_per_second_is_taken(rates, waiting, size):
    assert Device(tuple(rates), rates).batch_size(waiting) == size


def test_splits_are_not_mixed_and_the_oldest_request_goes_first():
    async def scenario(scheduler):
        one, other = Device((1, 4)), Device((1, 4))
        one.opened.clear()
        calls = [submit(scheduler, one, 0)]
        await until(lambda: one.batches)
        for number in range(1, 4):
            calls += [submit(scheduler, other, number), submit(scheduler, one, 10 + number)]
        await until(lambda: scheduler.waiting == 6)
        one.opened.set()
        await asyncio.gather(*calls)
        assert [numbers for _, numbers, _ in other.batches] == [[1, 2, 3]]
        assert [numbers for _, numbers, _ in one.batches] == [[0], [11, 12, 13]]

    scheduled(scenario)


def test_devices_compute_side_by_side():
    async def scenario(scheduler):
        split = Device()
        split.opened.clear()
        calls = [submit(scheduler, split, number) for number in range(3)]
        await until(lambda: len(split.batches) == 3)  # none of which can end before
        assert {device for device, _, _ in split.batches} == {0, 1, 2}
        split.opened.set()
        await asyncio.gather(*calls)

    scheduled(scenario, devices=3)


def test_the_queue_is_bounded_by_requests_and_by_bytes():
    async def scenario(scheduler):
        split = Device()
        split.opened.clear()
        first = submit(scheduler, split, 0, num_bytes=60)
        await until(lambda: split.batches)
        second = submit(scheduler, split, 1, num_bytes=60)
        await until(lambda: scheduler.waiting == 1)
        with pytest.raises(QueueFullError, match="60 bytes") as caught:
            await submit(scheduler, split, 2, num_bytes=60)
        assert caught.value.retry_after_s > 0
        third = submit(scheduler, split, 3, num_bytes=1)
        await until(lambda: scheduler.waiting == 2)
        with pytest.raises(QueueFullError, match="at most 2"):
            await submit(scheduler, split, 4)
        split.opened.set()
        await asyncio.gather(first, second, third)
        assert (scheduler.waiting, scheduler._waiting_bytes) == (0, 0)

    scheduled(scenario, queue=2, queue_bytes=100)


def test_late_requests_are_not_computed_and_make_room():
    async def scenario(scheduler):
        split = Device()
        split.opened.clear()
        first = submit(scheduler, split, 0)
        await until(lambda: split.batches)
        soon_s = time.monotonic() + 0.02
        late = [submit(scheduler, split, number, soon_s) for number in (1, 2)]
        await until(lambda: time.monotonic() > soon_s)
        in_time = submit(scheduler, split, 3)  # finds the queue full of late ones
        for call in late:
            with pytest.raises(DeadlinePassedError):
                await call
        split.opened.set()
        await asyncio.gather(first, in_time)
        assert [numbers for _, numbers, _ in split.batches] == [[0], [3]]

    scheduled(scenario, queue=2)


def test_an_idle_device_waits_only_while_requests_come_together():
    async def scenario(scheduler):
        split = Device((1, 2))
        await submit(scheduler, split, 0)  # comes alone: no wait
        await asyncio.gather(*(submit(scheduler, split, number) for number in (1, 2)))
        assert [numbers for _, numbers, _ in split.batches][-1] == [1, 2]
        first = submit(scheduler, split, 3)
        await asyncio.sleep(0.02)
        assert scheduler.waiting == 1  # the other one of before may come again
        await asyncio.gather(first, submit(scheduler, split, 4))
        assert [numbers for _, numbers, _ in split.batches][-1] == [3, 4]

    scheduled(scenario, max_wait_s=LONG_S)


def test_the_wait_for_others_is_bounded():
    async def scenario(scheduler):
        split = Device((1, 2))
        await asyncio.gather(*(submit(scheduler, split, number) for number in (1, 2)))
        await submit(scheduler, split, 3)
        assert [numbers for _, numbers, _ in split.batches][-1] == [3]

    scheduled(scenario, max_wait_s=0.01)


def test_a_failed_batch_fails_its_requests_and_no_others():
    async def scenario(scheduler):
        good, bad = Device(), Device()
        bad.compute = lambda *_: 1 / 0
        calls = [submit(scheduler, split, 1) for split in (bad, good, bad, good)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) is ZeroDivisionError for result in results] == [True, False] * 2

    scheduled(scenario)


def test_what_waits_when_the_scheduler_stops_is_refused():
    calls = []

    async def scenario(scheduler):
        split = Device()
        split.opened.clear()
        calls.extend(submit(scheduler, split, number) for number in range(3))
        await until(lambda: scheduler.waiting == 2)
        await scheduler.stop()
        for call in calls[1:]:
            with pytest.raises(DrainingError):
                await call
        split.opened.set()
        calls[0].cancel()

    scheduled(scenario)


def test_an_emptied_queue_holds_no_split():
    async def scenario(scheduler):
        await submit(scheduler, Device(), 1)
        await until(lambda: not scheduler._last_batch)  # freed with the split
        assert not scheduler._lines

    scheduled(scenario)


# ---- Which batches pay


def stack(batch):
    """Stacks the tensors of several requests."""
    return tuple(np.stack(tensor) for tensor in zip(*batch, strict=True))


@pytest.fixture
def batching(split):
    """The fake split, able to compute batches."""
    split.batches = True
    split.unpack_batch = lambda payloads: stack(
        [split.unpack(one) for one in zip(*payloads, strict=True)]
    )
    split.cloud_outputs_batch = lambda codes: stack(
        [split.cloud_outputs(one) for one in zip(*codes, strict=True)]
    )
    return split


def test_sizes_that_do_not_pay_are_not_used(batching):
    alone, together = batching.cloud_outputs, batching.cloud_outputs_batch
    seconds = {1: 0.02, 2: 0.02, 4: 0.2}  # two cost as much as one, four as much as ten

    def slow(size, compute, codes):
        time.sleep(seconds[size])
        batching.cloud_outputs = alone
        try:
            return compute(codes)
        finally:
            batching.cloud_outputs = lambda codes: slow(1, alone, codes)

    batching.cloud_outputs = lambda codes: slow(1, alone, codes)
    batching.cloud_outputs_batch = lambda codes: slow(len(codes[0]), together, codes)
    assert list(compile_split(batching, [None], (1, 2, 4)).batch_s) == [1, 2]


def test_a_padded_batch_gives_each_request_its_outputs(batching, images):
    served = compile_split(batching, [None], (1, 2, 4))
    inputs = [images, images[::-1], images * 0.5]
    payloads = [batching.pack(batching.edge_layers(x)) for x in inputs]
    computed = served.compute(0, payloads, 4)
    assert len(computed.outputs) == 3
    for x, outputs in zip(inputs, computed.outputs, strict=True):
        expected = batching.cloud_outputs(batching.unpack(batching.pack(batching.edge_layers(x))))
        for got, want in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_batches_with_wrong_outputs_are_noticed_before_anything_is_served(batching):
    batching.cloud_outputs_batch = lambda codes: (codes[0],)
    with pytest.raises(ProtocolError, match="Found 1 values"):
        compile_split(batching, [None], (1, 2))


def test_a_split_that_sends_nothing_is_not_served(split):
    split.manifest = dataclasses.replace(split.manifest, crossing=())
    with pytest.raises(InputError, match="sends nothing"):
        compile_split(split, [None], (1,))
