"""Times, memory and the machine's own speed, measured the same way on both sides.

NumPy alone: the process of the plain loop imports this and must not pay for JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MIB = 1 << 20
_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5): the peak becomes what is resident now


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """What one piece of work took.

    Attributes:
      first_s: the first call, which compiles where there is something to compile;
        None where it was not told apart.
      warm_s: the calls after it.
      warm_cpu_s: processor seconds of the same calls, all threads.
      added_bytes: resident memory at the peak of all calls less that before them;
        None where the system does not tell.
    """

    first_s: float | None
    warm_s: tuple[float, ...]
    warm_cpu_s: tuple[float, ...]
    added_bytes: int | None

    @property
    def median_s(self) -> float:
        """Median of the warm calls."""
        return statistics.median(self.warm_s)

    @property
    def median_cpu_s(self) -> float:
        """Median of their processor seconds."""
        return statistics.median(self.warm_cpu_s)


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, Timing]:
    """Calls once, then ``repeats`` times, and measures.

    Args:
      work: returns when its result is there (JAX: block until it is ready).
      repeats: at least 1.

    Returns:
      The last result, and the times.

    >>> timed(lambda: 7, repeats=2)[0]
    7
    """
    gc.collect()
    before = reset_peak_memory()
    start = time.perf_counter()
    result = work()
    first_s = time.perf_counter() - start
    warm_s, warm_cpu_s = [], []
    for _ in range(repeats):
        result = None  # two results at once would count as memory of one call
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        warm_s.append(time.perf_counter() - start)
        warm_cpu_s.append(time.process_time() - start_cpu)
    return result, Timing(
        first_s=first_s,
        warm_s=tuple(warm_s),
        warm_cpu_s=tuple(warm_cpu_s),
        added_bytes=added_memory(before),
    )


def reset_peak_memory() -> int | None:
    """Makes the peak what is resident now, and returns that in bytes (None: not known)."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status_bytes("VmRSS")


def added_memory(before: int | None) -> int | None:
    """Returns the peak since `reset_peak_memory` less what that returned, in bytes."""
    peak = None if before is None else _status_bytes("VmHWM")
    return None if before is None or peak is None else max(peak - before, 0)


def _status_bytes(field: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s*(\d+) kB$", _STATUS.read_text(), re.M)
        return int(found[1]) * 1024 if found else None
    return None


def copy_bytes_per_s(size_bytes: int, repeats: int = 7) -> float:
    """Measures a copy between two arrays; each byte counts once read and once written."""
    source = np.ones(size_bytes, np.uint8)
    target = np.empty_like(source)
    _, timing = timed(lambda: np.copyto(target, source), repeats)
    return 2 * size_bytes / timing.median_s
