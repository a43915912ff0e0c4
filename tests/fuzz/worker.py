"""Damages files and loads them, in a process of its own: `python -m tests.fuzz.worker`.

One line of JSON per case on stdout, written before and after it, so that whoever started the
process knows which case ended it: by a crash of native code, or by the limits of CPU time and
memory that each case has.
"""

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

CPU_SECONDS = 10.0  # of one case
MEMORY = 2 << 30  # bytes of address space beyond what is there at the start


def damaged(form: Any, sound: bytes, seed: int, case: int) -> bytes:
    """The damaged file of a case; a function of seed and number alone."""
    from tests.fuzz.damages import damaged_bytes, damaged_json, damaged_text

    rng = random.Random(f"{seed} {case}")
    kinds = {"json": damaged_json, "text": damaged_text, "bytes": damaged_bytes}
    return (kinds[form.written] if rng.random() < 0.7 else damaged_bytes)(sound, rng)


def outcome(form: Any, folder: Path) -> tuple[str, str]:
    """("works" or "refused", ""), or what is wrong and where."""
    from bytelm.errors import BytelmError

    try:
        form.load(folder)
    except BytelmError as error:
        told = str(error)
        lines = told.splitlines()  # a recipe tells all its mistakes, one per line
        if len(told) > 2000 or len(lines) > 9 or (len(lines) > 1 and form.file != "recipe.toml"):
            return "no sentence", repr(told[:300])
        return "refused", ""
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "bytelm/" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return "raised", f"{type(error).__name__} at {place}: {str(error)[:200]!r}"
    return "works", ""


def main(name: str, seed: int, first: int, count: int) -> None:
    from tests.fuzz.formats import FORMATS

    form = FORMATS[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        form.make(folder)
        form.load(folder)  # sound, and everything that is imported late is there
        file = folder / form.file
        sound = file.read_bytes()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        faulthandler.register(signal.SIGPROF, file=sys.stderr, chain=True)
        for case in range(first, first + count):
            file.write_bytes(damaged(form, sound, seed, case))
            print(json.dumps({"begin": case}), flush=True)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            what, told = outcome(form, folder)
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(json.dumps({"case": case, "what": what, "told": told}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
