"""`Notes`: what a reading left out, or took otherwise than its name says, so that nothing is lost
without a word.

Sources get it with their `Reading` and call `Reading.note`; `bytelm data build` and `data inspect`
report it. Counts are exact; of the places only the first few of each kind are kept, because a
folder may hold millions. What only describes a container (directories, symbol tables, tables of
names) is part of its format and no entry here.
"""

from collections import Counter
from typing import Any, Literal, get_args

Kind = Literal[
    "link",
    "device",
    "unreadable folder",
    "unreadable file",
    "nested corpus",
    "unfinished build",
    "encrypted member",
    "unsupported member",
    "damaged member",
    "damaged file",
    "damaged record",
    "null record",
    "misnamed file",
    "unopened pipe",
    "unsplit executable",
    "executable without code",
]
# documents as they stand
TAKEN_WHOLE = (
    "misnamed file",
    "unopened pipe",
    "unsplit executable",
)
PLACES = 20  # kept of each kind


class Notes:
    """How often each `Kind` of thing was met, and the first places of each.

    >>> notes = Notes()
    >>> notes.add("link", "a.tar, member b")
    >>> notes.report()
    {'skipped': {'link': {'count': 1, 'places': ['a.tar, member b']}}, 'taken_whole': {}}
    >>> notes.lines()
    ['skipped 1 link: a.tar, member b']
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}

    def add(self, kind: Kind, place: str) -> None:
        """Count one thing of a kind at `place`: a path, or "path, member name", "path, line 3"."""
        assert kind in get_args(Kind), kind
        self.counts[kind] += 1
        first = self.places.setdefault(kind, [])
        if len(first) < PLACES:
            first.append(place)

    def report(self) -> dict[str, Any]:
        """{"skipped": {kind: {"count", "places"}}, "taken_whole": the same} for `--json`."""
        found: dict[str, Any] = {"skipped": {}, "taken_whole": {}}
        for kind, count in sorted(self.counts.items()):
            where = "taken_whole" if kind in TAKEN_WHOLE else "skipped"
            found[where][kind] = {"count": count, "places": list(self.places[kind])}
        return found

    def lines(self, *, places: int = 3) -> list[str]:
        """One sentence per kind, with the first places, for a person."""
        found = []
        for kind, count in sorted(self.counts.items()):
            done = "took as it stands" if kind in TAKEN_WHOLE else "skipped"
            some = self.places[kind][:places]
            more = f" and {count - len(some):,} more" if count > len(some) else ""
            plural = "" if count == 1 else "s"
            found.append(f"{done} {count:,} {kind}{plural}: {'; '.join(some)}{more}")
        return found

    def since(self, earlier: dict[str, int]) -> list[list[Any]]:
        """[kind, count, places] of what was added after `earlier`, a copy of `counts`."""
        return [
            [kind, count - earlier.get(kind, 0), self.places[kind][earlier.get(kind, 0) :]]
            for kind, count in sorted(self.counts.items())
            if count > earlier.get(kind, 0)
        ]

    def restore(self, added: list[list[Any]]) -> None:
        """Add what `since` gave."""
        for kind, count, places in added:
            self.counts[kind] += count
            first = self.places.setdefault(kind, [])
            first += places[: PLACES - len(first)]
