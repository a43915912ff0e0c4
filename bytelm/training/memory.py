"""Keep freed memory for the next step instead of giving it back to the system.

glibc returns every block above 32 MiB, and the top of its heap, at once; a training step then
takes a tenth of its time for page faults on tensors it had a moment ago. Other allocators are left
alone.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Have glibc keep blocks of up to `limit` bytes; -> whether it took the settings (False where
    the C library is not glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, limit) and mallopt(_M_TRIM_THRESHOLD, 2 * limit - 1))
