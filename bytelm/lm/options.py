"""`GenerateOptions`: how one text is written. Each row of a batch has its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral
from typing import TypedDict

from bytelm.errors import BytelmError
from bytelm.lm.constraint import Constraint
from bytelm.lm.draft import Drafter
from bytelm.lm.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How to write one text. `BytelmError` for a value that cannot be.

    max_bytes    write at most this many bytes, the stop string included
    temperature, top_k, top_p, min_p   see `Sampling`
    stop         byte strings that end the text and are left out of it; with utf8, regex or a
                 constraint only where what stands before them may be the whole text
    seed         same seed, same text: the random numbers are the row's own
    utf8         only well-formed UTF-8 (counted from an unfinished character of the prompt on)
    regex        the text as a whole must match; `str`: over characters (\\d is any decimal digit,
                 (?a)\\d or [0-9] an ASCII one), `bytes`: over bytes
    constraint   any object with the methods of `Constraint`
    beams        above 0, the best text that a beam search of that width finds (`lm.beam`) instead
                 of a sample; of the other options it takes max_bytes and length_penalty only
    length_penalty   of a beam search: above 0, longer texts are ranked higher
    draft        who proposes bytes, so that one call of the model can check several
                 (`lm.speculative`): the same distribution of texts in fewer calls, and the very
                 same text at temperature 0 or with a drafter that draws nothing (`PromptLookup`)
    draft_bytes  at most so many are proposed at once
    """

    max_bytes: int = 200
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: Sequence[bytes] = ()
    seed: int = 0
    utf8: bool = False
    regex: str | bytes | None = None
    constraint: Constraint | None = None
    beams: int = 0
    length_penalty: float = 0.0
    draft: Drafter | None = None
    draft_bytes: int = 32

    def __post_init__(self) -> None:
        stops = (self.stop,) if isinstance(self.stop, bytes) else tuple(self.stop)
        if not all(isinstance(stop, bytes) and stop for stop in stops):
            raise BytelmError(f"a stop string is bytes, at least one, not {self.stop!r}")
        object.__setattr__(self, "stop", stops)
        for name in ("max_bytes", "seed", "beams", "draft_bytes"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 0:
                raise BytelmError(f"{name} must be a whole number and at least 0, not {value!r}")
        if not isinstance(self.regex, str | bytes | None):
            raise BytelmError(f"a regular expression is str or bytes, not {self.regex!r}")
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise BytelmError(
                f"a constraint has the methods start, allowed and advance; "
                f"{type(self.constraint).__name__} lacks some of them"
            )
        if not isinstance(self.draft, Drafter | None):
            raise BytelmError(
                f"draft is a Drafter (PromptLookup(), ModelDrafter(lm)), not {self.draft!r}"
            )
        if self.draft_bytes < 1 or (self.draft is None and self.draft_bytes != 32):
            raise BytelmError(
                f"draft_bytes = {self.draft_bytes}: it must be at least 1, and needs a draft"
            )
        _ = self.sampling  # its own checks
        self._check_beams()

    def _check_beams(self) -> None:
        """`BytelmError` for options that would have no effect on a beam search, or without one."""
        if self.length_penalty and not self.beams:
            raise BytelmError("length_penalty ranks the texts of a beam search: give beams, too")
        if not 0 <= self.length_penalty < math.inf:
            raise BytelmError(f"length_penalty must be at least 0, not {self.length_penalty}")
        taken = ("max_bytes", "beams", "length_penalty")
        idle = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if self.beams and (idle := [name for name in idle if name not in taken]):
            raise BytelmError(
                f"beams search for the most probable text: {', '.join(idle)} cannot be combined "
                "with them"
            )

    @cached_property
    def sampling(self) -> Sampling:
        """How each outcome is chosen."""
        return Sampling(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p
        )


class GenerateKeywords(TypedDict, total=False):
    """The fields of `GenerateOptions` as keyword arguments, for type checkers."""

    max_bytes: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: Sequence[bytes]
    seed: int
    utf8: bool
    regex: str | bytes | None
    constraint: Constraint | None
    beams: int
    length_penalty: float
    draft: Drafter | None
    draft_bytes: int
