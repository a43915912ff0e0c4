"""What reading data costs besides time: memory for a huge file, descriptors for many small ones.

Run: `python -m benchmarks.data_memory` (`--gigabytes` and `--files` for less). Each command runs in
a process of its own, as a user would run it. Memory is the largest resident set of that process as
the system reports it; descriptors are counted in it while `Windows` read every file. The file is
sparse, so it costs the disk nothing; the corpus built from it does (3 GB, removed afterwards).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import common

MEMORY_TARGET, DESCRIPTOR_TARGET = 400, 200  # MB, count
_PEAK = """
import sys
from bytelm.cli.app import run
try:
    run(sys.argv[1:])
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(status["VmHWM"].split()[0], file=sys.stderr)
"""
_COUNT = """
import os, sys
from bytelm.data import Corpus, Windows
corpus = Corpus.open(sys.argv[1])
windows = Windows(corpus, length=4096, policy="document")
most = 0
for start in range(0, windows.count, 500):
    windows.batch(range(start, min(start + 500, windows.count)), epoch=0)
    most = max(most, len(os.listdir("/proc/self/fd")))
print(len(corpus), len(corpus.fingerprint), most)
"""


def peak_megabytes(arguments: list[str]) -> float:
    """Largest resident set of `bytelm ARGUMENTS`, in MB. (That of `wait4` would count what this
    process holds when it forks.)"""
    command = [sys.executable, "-c", _PEAK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return int(done.stderr.splitlines()[-1]) * 1024 / 1e6


def memory(folder: Path, *, gigabytes: float) -> list[dict[str, object]]:
    """Peak memory of inspecting and building one sparse file, and of inspecting the corpus."""
    path, out = folder / "sparse.bin", folder / "corpus"
    with path.open("wb") as stream:
        stream.truncate(int(gigabytes * 1e9))
    commands = {
        "data inspect FILE": ["data", "inspect", str(path), "--json"],
        "data build FILE": ["data", "build", str(path), "--out", str(out), "--json"],
        "data inspect CORPUS": ["data", "inspect", str(out), "--json"],
    }
    return [
        {"command": name, "gigabytes": gigabytes, "peak_mb": round(peak_megabytes(command), 1)}
        for name, command in commands.items()
    ]


def descriptors(folder: Path, *, files: int) -> dict[str, object]:
    """The most descriptors of a process that reads so many plain files, under a limit of 1024."""
    for i in range(files):
        place = folder / "many" / str(i % 20)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.txt").write_bytes(b"document %d\n" % i)
    script = f'ulimit -n 1024; exec "{sys.executable}" -c \'{_COUNT}\' "$0"'
    done = subprocess.run(
        ["bash", "-c", script, f"{folder}/many/*/*.txt"], capture_output=True, text=True, check=True
    )
    read, _, most = map(int, done.stdout.split())
    assert read == files, f"{read} of {files} files"
    return {"files": files, "most_descriptors": most}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--files", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = memory(Path(name), gigabytes=options.gigabytes)
        counted = descriptors(Path(name), files=options.files)
    targets = {"peak_mb": MEMORY_TARGET, "descriptors": DESCRIPTOR_TARGET}
    table: list[list[object]] = [["what", "measured", "target"]]
    table += [
        [f"{r['command']}, {r['gigabytes']:g} GB: MB", r["peak_mb"], f"< {MEMORY_TARGET}"]
        for r in rows
    ]
    read = f"{counted['files']:,} plain files read: descriptors"
    table.append([read, counted["most_descriptors"], f"< {DESCRIPTOR_TARGET}"])
    common.store("data_memory", {"memory": rows, "descriptors": counted, "targets": targets}, table)


if __name__ == "__main__":
    main()
