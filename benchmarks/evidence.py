"""Write docs/evidence.md: one row per claim, with our figure read from benchmarks/results/.

    python -m benchmarks.evidence

The claims are in benchmarks/claims.py. A figure is a function of a stored result, so it is never
typed; a verdict is a person's, but one of "holds" comes with a check of the same result, so it
cannot outlive the measurement that it stands on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claim import Claim, count
from benchmarks.claims import CLAIMS
from bytelm.files import write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "evidence.md"

_HEAD = """# Evidence

What papers and our README claim, and what we measured. Made by `python -m benchmarks.evidence` from
the results in [benchmarks/results](../benchmarks/results); the claims are in
[benchmarks/claims.py](../benchmarks/claims.py). Verdicts: **holds**, as claimed; **partly**, the
figure says where not; **not at this scale**, which is minutes on two CPU cores and says nothing
about the scale of the paper; **not tried**, we have no measurement. Lower bits per byte are better.

| claim | source | command | our figure | seeds, machine | verdict |
| --- | --- | --- | --- | --- | --- |
"""


def load(name: str) -> Any:
    """The stored result `name`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row(claim: Claim) -> str:
    """The claim as a row of the table."""
    if not claim.result or claim.figure is None:
        cells = [claim.claim, claim.source, "", "", "", claim.verdict]
    else:
        result = load(claim.result)
        command = claim.command or f"python -m benchmarks.{claim.result}"
        where = f"[{claim.result}.json](../benchmarks/results/{claim.result}.json)"
        cells = [
            claim.claim,
            claim.source,
            f"`{command}`",
            f"{claim.figure(result)} ({where})",
            f"{claim.runs(result)}; {_machine(claim.machine(result))}",
            claim.verdict,
        ]
    return "| " + " | ".join(cells) + " |"


def _machine(machine: Any) -> str:
    if machine is None:
        return "machine not recorded"
    threads = count(machine.get("threads", machine["cores"]), "thread")
    return f"{count(machine['cores'], 'core')} of {machine['cpu']}, {threads}"


def document(claims: Sequence[Claim] = CLAIMS) -> str:
    """The whole of docs/evidence.md."""
    return _HEAD + "".join(f"{row(claim)}\n" for claim in claims)


def main() -> None:
    write_text(DOCUMENT, document())
    print(f"wrote {DOCUMENT.relative_to(ROOT)}: {len(CLAIMS)} claims")


if __name__ == "__main__":
    main()
