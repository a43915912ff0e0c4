"""`python -m tests.fuzz.run [--count N] [--seed S] [NAME ...]`: damage files, count what happens.

What must happen: the loader refuses in one sentence, or what it loads works. Anything else is
printed with the number of its case, and ends with status 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.formats import FORMATS

ROOT = Path(__file__).parents[2]
GOOD = ("works", "refused")


def fuzz(name: str, *, count: int, seed: int = 0) -> tuple[Counter[str], dict[str, list[int]]]:
    """(how often what happened, {fault: numbers of its cases}) over `count` damages of a format."""
    counts: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    done = 0
    while done < count:
        started = done
        for what, told, case in _work(name, seed, done, count - done):
            counts[what] += 1
            done = case + 1
            if what not in GOOD:
                faults.setdefault(f"{what}: {told}", []).append(case)
        if done == started:
            raise RuntimeError(f"the worker for {name!r} does not begin")
    return counts, faults


def _work(name: str, seed: int, first: int, count: int):
    """(what happened, what was told, case) of one worker, which may die in its last case."""
    command = [sys.executable, "-m", "tests.fuzz.worker", name, *map(str, (seed, first, count))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryFile("w+") as told:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, text=True, env=environment, cwd=ROOT
        ) as worker:
            assert worker.stdout is not None
            begun = None
            for line in worker.stdout:
                if not line.startswith("{"):
                    continue
                found = json.loads(line)
                if "begin" in found:
                    begun = found["begin"]
                else:
                    begun = None
                    yield found["what"], found["told"], found["case"]
        told.seek(0)
        if begun is not None:
            yield _death(worker.returncode), _last_frame(told.read()), begun
        elif worker.returncode:
            told.seek(0)
            raise RuntimeError(f"the worker for {name!r} failed: {told.read()[-2000:]}")


def _death(code: int) -> str:
    if code == -signal.SIGPROF:
        return "hangs"
    return f"dies of {signal.Signals(-code).name}" if code < 0 else f"ends with {code}"


def _last_frame(text: str) -> str:
    frames = [line.strip() for line in text.splitlines() if line.strip().startswith('File "')]
    ours = [frame for frame in frames if "bytelm/" in frame]
    return " < ".join([*frames[:1], *ours[:1]]) or text[-300:]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(FORMATS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = 0
    for name in given.names:
        counts, faults = fuzz(name, count=given.count, seed=given.seed)
        print(f"{name}: {dict(counts)}", flush=True)
        for fault, cases in sorted(faults.items(), key=lambda item: -len(item[1])):
            print(f"    {len(cases)} x {fault} (cases {cases[:3]})", flush=True)
        failed += bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
