"""`python -m tests.fuzz.run [--count N] [--seed S] [--out FILE] [NAME ...]`: damage files, count
what happens.

What must happen: the loader refuses in one sentence, or what it loads works. Anything else is
printed with the number of its case, and ends with status 1. What FILE has already is not done
again: an interrupted run resumes at most `_SAVED_EVERY` cases before where it stopped.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bytelm.files import write_text
from tests.fuzz.formats import FORMATS

ROOT = Path(__file__).parents[2]
GOOD = ("works", "refused")
_SAVED_EVERY = 100  # cases


@dataclass
class Found:
    """How often what happened in the cases of a format so far, {fault: numbers of its cases}."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = Counter(self.counts)  # JSON has dictionaries

    def add(self, what: str, told: str, case: int) -> None:
        self.counts[what] += 1
        if what not in GOOD:
            self.faults.setdefault(f"{what}: {told}", []).append(case)


def fuzz(
    name: str,
    *,
    count: int,
    seed: int = 0,
    found: Found | None = None,
    save: Callable[[Found], None] = lambda _: None,
) -> Found:
    """What `count` damages of a format do. found: what its first cases did; save: called every
    `_SAVED_EVERY` cases."""
    found = found or Found()
    while (done := found.counts.total()) < count:
        for what, told, case in _work(name, seed, done, count - done):
            found.add(what, told, case)
            if (case + 1) % _SAVED_EVERY == 0:
                save(found)
        if found.counts.total() == done:
            raise RuntimeError(f"the worker for {name!r} does not begin")
    return found


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
    parser.add_argument("names", nargs="*", default=list(FORMATS), metavar="NAME")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON of what was found, to resume from")
    given = parser.parse_args()
    report = {"seed": given.seed, "formats": {}}
    if given.out and given.out.exists():
        report = json.loads(given.out.read_text())
        if report["seed"] != given.seed:
            parser.error(f"{given.out} has cases of seed {report['seed']}, not of {given.seed}")
    failed = 0
    for name in given.names:

        def save(found: Found, name: str = name) -> None:
            report["formats"][name] = vars(found)
            if given.out:
                write_text(given.out, json.dumps(report, indent=1) + "\n")

        known = report["formats"].get(name)
        found = fuzz(
            name,
            count=given.count,
            seed=given.seed,
            found=Found(**known) if known else None,
            save=save,
        )
        save(found)
        print(f"{name}: {dict(found.counts)}", flush=True)
        for fault, cases in sorted(found.faults.items(), key=lambda item: -len(item[1])):
            print(f"    {len(cases)} x {fault} (cases {cases[:3]})", flush=True)
        failed += bool(found.faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
