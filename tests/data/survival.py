"""Running parsers on hostile input: in a forked process, with limits on memory and on CPU time.

Some parsers are C++: a crash there would take pytest with it, and a hang hears no Python signal.
"""

import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bytelm.errors import DataError

SECONDS = 5.0  # of CPU an input may take
MEMORY = 4 << 30  # bytes of address space beyond what the test process has


def survives(parse: Callable[[bytes], object], inputs: Iterator[bytes]) -> None:
    """Parse all of `inputs` in a child; fails with the number of the input that ended it."""
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            try:
                parse_all(parse, inputs, tell=lambda text: os.pwrite(told.fileno(), text, 0))
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"exit status {status}: {os.pread(told.fileno(), 600, 0).decode()}"


def parse_all(
    parse: Callable[[bytes], object], inputs: Iterator[bytes], *, tell: Callable[[bytes], object]
) -> None:
    """Exit with 0 if each input gives something or a `DataError`, within the limits."""
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for number, data in enumerate(inputs):
        tell(b"input %9d " % number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            parse(data)
        except DataError:
            pass
        except BaseException as error:
            tell(b"input %9d %.500s" % (number, repr(error).encode()))
            return
    os._exit(0)
