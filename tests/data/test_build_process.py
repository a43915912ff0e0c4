"""An interrupted build as a user meets it: a process of its own, signals, and what it says."""

import signal
import subprocess
import sys
import time
from random import Random

import pytest

from bytelm.data.corpus.journal import JOURNAL
from tests.data.test_build import content


@pytest.mark.slow
def test_a_real_process_interrupted_or_killed_says_how_to_go_on(tmp_path):
    """`bytelm data build` as a user starts it, over enough bytes to take some seconds."""
    block = Random(7).randbytes(1 << 20)
    for i in range(1500):
        path = tmp_path / "in" / f"{i:04}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(i.to_bytes(4, "big") + block)
    command = [sys.executable, "-m", "bytelm", "data", "build", str(tmp_path / "in"), "--out"]
    journal = tmp_path / ".c.building" / JOURNAL
    for number in (signal.SIGKILL, signal.SIGINT):
        size = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen([*command, str(tmp_path / "c")], stderr=subprocess.PIPE)
        while not journal.exists() or journal.stat().st_size < size + 300:
            assert process.poll() is None, "it ended before its first mark"
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode != 0
    assert b"resuming the build" in err and b"the same command resumes" in err
    subprocess.run([*command, str(tmp_path / "c")], check=True)
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    assert content(tmp_path / "c") == content(tmp_path / "whole")
