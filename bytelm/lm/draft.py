"""`Drafter`: who proposes what may come next, so that one call of the model can check many bytes.

Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192) never changes what is written, only
how many calls of the model that takes: a draft is a guess, and `lm/speculative.py` accepts as much
of it as the model would have written. So a drafter may be anything. It is immutable and may be
shared; a generation that uses one opens a `DraftSession`, which remembers its texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bytelm.errors import BytelmError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bytelm.lm.protocol import Context
    from bytelm.lm.sampling import Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What may come next: outcomes 0-256, of which only the last may be 256, the end.

    q   (n, 257) float64 probabilities from which each was drawn; None = no chance was involved
    """

    outcomes: Sequence[int] = ()
    q: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DraftRequest:
    """One text that wants a draft.

    key       which text of the generation it is
    context   what stands before the text, as in `ByteLM.start`
    text      the prompt and all that is written
    room      at most so many outcomes are of use
    sampling  how the text chooses its outcomes
    random    random numbers for drawing a draft: not those with which the text is chosen
    """

    key: int
    context: Context
    text: bytes
    room: int
    sampling: Sampling
    random: np.random.Generator


class DraftSession(ABC):
    """The drafts of the texts of one generation."""

    @abstractmethod
    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """A draft for each text, in order, perhaps empty. A text not asked for has ended."""


class Drafter(ABC):
    """Proposes what may come next."""

    @abstractmethod
    def session(self) -> DraftSession:
        """For the texts of one generation."""

    def check(self, context: Context) -> None:
        """`BytelmError` if no draft can be given for texts in that context."""
        return None


class PromptLookup(Drafter, DraftSession):
    """Drafts what followed the last occurrence of the text's end: for code, logs, tables, edits,
    and whatever else repeats itself. It needs no model and costs microseconds.

    longest    bytes of the end that are looked for at first; then half as many, and so on
    shortest   fewest bytes that are looked for

    >>> import numpy as np
    >>> from bytelm.lm.sampling import Sampling
    >>> asked = DraftRequest(0, (), b"if a: pass\\nif a", 3, Sampling(), np.random.default_rng(0))
    >>> bytes(PromptLookup().propose([asked])[0].outcomes)
    b': p'
    """

    def __init__(self, *, longest: int = 32, shortest: int = 4):
        if not 1 <= shortest <= longest:
            raise BytelmError(
                f"a lookup needs 1 <= shortest <= longest, not {shortest} and {longest}"
            )
        self.longest, self.shortest = longest, shortest

    def session(self) -> PromptLookup:
        return self

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(self._after(_whole(request), request.room)) for request in requests]

    def _after(self, text: bytes, room: int) -> bytes:
        size = self.longest
        while size >= self.shortest:
            # not at the very end, where nothing follows
            found = text.rfind(text[-size:], 0, len(text) - 1) if len(text) > size else -1
            if found >= 0:
                return _repeated(text[found + size :], room)
            size = max(self.shortest, size // 2) if size > self.shortest else 0
        return b""


def _repeated(piece: bytes, room: int) -> bytes:
    """The first `room` bytes of a piece that follows itself."""
    return (piece * -(-room // len(piece)))[:room]


def _whole(request: DraftRequest) -> bytes:
    """The text with the bytes of its context."""
    before = b"".join(part for part in request.context if isinstance(part, bytes))
    return before + request.text
