"""The allocator settings: taken by glibc, refused quietly elsewhere, and worth having."""

import ctypes
import subprocess
import sys

import pytest

from bytelm.memory import keep_freed_memory, return_freed_memory

_BLOCKS_TAKEN_FROM_THE_SYSTEM = """
import ctypes, sys
from bytelm.memory import keep_freed_memory, return_freed_memory, trim_freed_memory

libc = ctypes.CDLL(None)
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
fields = {"_fields_": [(name, ctypes.c_size_t) for name in names]}
Mallinfo = type("Mallinfo", (ctypes.Structure,), fields)
libc.mallinfo2.restype = Mallinfo
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

if sys.argv[1] == "keep":
    assert keep_freed_memory()
if sys.argv[1] == "trim":
    assert keep_freed_memory()
    libc.free(libc.malloc(ctypes.c_size_t(40 << 20)))
    trim_freed_memory()
    print(libc.mallinfo2().fordblks >> 20)
    sys.exit()
if sys.argv[1] == "return":  # as a process forked from one that keeps it
    assert keep_freed_memory() and return_freed_memory()
libc.free(libc.malloc(ctypes.c_size_t(40 << 20)))
print(libc.mallinfo2().fordblks >> 20)
"""


def _glibc_reports():
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallinfo2")


@pytest.mark.skipif(not _glibc_reports(), reason="glibc 2.33 or newer tells what its heap holds")
@pytest.mark.parametrize(
    ("how", "kept"), [("leave", False), ("keep", True), ("return", False), ("trim", False)]
)
def test_a_freed_large_block_stays_in_the_heap_only_when_asked_to(how, kept):
    command = [sys.executable, "-c", _BLOCKS_TAKEN_FROM_THE_SYSTEM, how]
    free_mib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (free_mib >= 40) == kept


def test_other_platforms_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory() and not return_freed_memory()
