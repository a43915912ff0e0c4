"""What the benchmarks share: CPU time of one thread, medians of interleaved runs, stored results.

Figures are process CPU seconds at one thread, since wall time is noisy on shared machines, and
claims are ratios of two things measured in turn in the same run. Results are written as JSON and a
Markdown table beside each other under benchmarks/results/.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from bytelm.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, object]:
    """Processor, threads and versions, as far as they can be read."""
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def cpu_seconds(
    cases: Mapping[str, Callable[[], object]], *, repeats: int = 5
) -> dict[str, list[float]]:
    """Process CPU seconds of each case, all cases in turn, after one warm-up of each."""
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            began = time.process_time()
            run()
            times[name].append(time.process_time() - began)
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the pairwise ratios of two interleaved series."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def store(name: str, result: Mapping[str, object], table: Sequence[Sequence[object]]) -> None:
    """Write results/NAME.json and results/NAME.md (first row of the table = header)."""
    text = json.dumps({"machine": machine(), **result}, indent=1) + "\n"
    write_text(RESULTS / f"{name}.json", text)
    header, *rows = [[str(cell) for cell in row] for row in table]
    lines = ["| " + " | ".join(r) + " |" for r in (header, ["---"] * len(header), *rows)]
    write_text(RESULTS / f"{name}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
