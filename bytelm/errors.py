"""Errors a user can cause, and the one place that words "unknown NAME, did you mean …?".

All of them are `ValueError`s, so that library users need no import to catch them; the command line
prints them as one paragraph and exits with status 2. Broken invariants of our own are `assert`s.
"""

import difflib
from collections.abc import Iterable


class BytelmError(ValueError):
    """A mistake the user can mend. The message says what was given, what is allowed, what to do."""


class RecipeError(BytelmError):
    """A recipe holds an unknown, invalid or ineffective setting."""


class DataError(BytelmError):
    """A file, corpus or record cannot be read as asked."""


class CheckpointError(BytelmError):
    """A run directory or weight file is missing, truncated or does not fit the model."""


class DiskError(BytelmError):
    """A file cannot be written: the disk is full, read-only, not the user's, or failing."""


class TrainingError(BytelmError):
    """Training cannot continue: the loss is not finite, the gradient overflows, ..."""


class MissingExtraError(BytelmError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'bytelm[{extra}]'"
        )


def printable(text: str, *, keep: str = "\n\t") -> str:
    """The text with everything a terminal could obey, or that is no character, escaped.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not in the allowed set, with the nearest match.

    >>> unknown_name("architecture", "hnett", ["hnet", "transformer"])
    "unknown architecture 'hnett'; did you mean 'hnet'? Allowed: hnet, transformer"
    """
    allowed = sorted(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}? Allowed" if near else "; allowed"
    listed = ", ".join(printable(one, keep="") for one in allowed)
    return f"unknown {kind} {name!r}{hint}: {listed or '(none)'}"
