"""What glibc does with freed memory: keep it for the next step, or give it back to the system.

glibc returns every block above a threshold, and the top of its heap, at once; the threshold follows
the largest block freed, up to 32 MiB. A training step then takes a tenth of its time for page
faults on tensors it had a moment ago, so training keeps them. The processes that load data hold on
to hundreds of MiB in the gaps of their heaps, so they give them back. Other allocators are left
alone.
"""

import ctypes
import sys
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Have glibc keep blocks of up to `limit` bytes; -> whether it took the settings (False where
    the C library is not glibc)."""
    return _set(mmap=limit, trim=2 * limit - 1)


def return_freed_memory(limit: int = 1 << 18) -> bool:
    """Have glibc give back blocks above `limit` bytes; -> whether it took the settings."""
    return _set(mmap=limit, trim=2 * limit)


def trim_freed_memory() -> None:
    """Give the pages of all freed blocks back now, gaps inside the heap included. Work on tensors
    of ever new sizes leaves gaps that add up to a multiple of what is in use."""
    if trim := _c_function("malloc_trim"):
        trim(0)


def _set(*, mmap: int, trim: int) -> bool:
    mallopt = _c_function("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, mmap) and mallopt(_M_TRIM_THRESHOLD, trim))


def _c_function(name: str) -> Callable[..., int] | None:
    """A function of glibc; None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
