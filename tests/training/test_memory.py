"""The allocator settings: taken by glibc, refused quietly elsewhere, and worth having."""

import subprocess
import sys

from bytelm.training.memory import keep_freed_memory

_FAULTS = """
import resource, sys
from bytelm.training.memory import keep_freed_memory
import numpy as np
if sys.argv[1] == "keep" and not keep_freed_memory():
    print(-1)
    sys.exit()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(40 << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_blocks_are_faulted_in_once_instead_of_every_time():
    def faults(how):
        command = [sys.executable, "-c", _FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    kept = faults("keep")
    assert kept == -1 or kept * 4 < faults("leave")


def test_other_platforms_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
