"""How many threads compiled loops use, and work handed to them in order and in bounded memory.

The loops run outside the interpreter's lock, so plain threads are enough. `None` stands for every
core this process may run on, or OMP_NUM_THREADS of them, as for the numerical libraries.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from bytelm.errors import BytelmError

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Cores this process may run on, at most OMP_NUM_THREADS of them where that is set."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores


def thread_count(threads: int | None) -> int:
    """`threads`, or all cores for None; `BytelmError` below 1."""
    if threads is None:
        return available_cores()
    if threads < 1:
        raise BytelmError(f"threads must be 1 or more, not {threads}; leave it out for all cores")
    return threads


def in_order(work: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """`map(work, items)` on that many threads; items are taken as results are, two ahead a thread.

    >>> list(in_order(abs, [-2, 3], threads=2))
    [2, 3]
    """
    if threads == 1:
        yield from map(work, items)
        return
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque(
            pool.submit(work, item) for item in islice(remaining, 2 * threads)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
