"""Words: white space and the run of letters, digits or marks behind it are one chunk.

The rule is a regular expression over bytes, W* (L+ | D+ | P+ | I) and what is left of W+, with

    W  white space         tab to carriage return, blank
    L  letters             ASCII, `_`, the first bytes of characters up to U+1FFF and U+A000 to
                           U+FFFF; an apostrophe between letters belongs to them ("don't")
    D  digits              0-9
    P  marks               all other bytes, so ASCII punctuation, controls, NUL, what is never
                           UTF-8, and U+2000 to U+2FFF (typographic quotes, dashes, arrows)
    I  one character       the first bytes of U+3000 to U+9FFF and beyond U+FFFF: scripts without
                           blanks are cut at every character

A continuation byte belongs to whatever stands before it, and specials are chunks of their own. The
blank in front belongs to the word, so that the chunks put side by side are the text. Whether a
chunk starts at a byte depends on that byte and what came before, never on what follows: the
expression is read by an automaton of seven states, one step per byte in decoding and, in the
parallel form, by composing its transitions in log2(L) rounds. Words longer than `limit` bytes are
cut into pieces of that size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bytelm.nn.boundary_rule import BoundaryRule, Cuts, RuleOptions, Stretch
from bytelm.nn.segments import last_valid
from bytelm.nn.state import State
from bytelm.vocab import BYTES

# Classes of bytes. What stood before is a state: a class, or a letter and the apostrophe behind it.
SPECIAL, WHITE, LETTER, DIGIT, MARK, SINGLE, CONTINUATION, APOSTROPHE = range(8)
_QUOTED_LETTER = 6  # the state behind LETTER and APOSTROPHE
_STATES = 7


@dataclass(frozen=True)
class WordState(State):
    """before (B,) state of the automaton, size (B,) bytes of the open chunk."""

    before: Tensor
    size: Tensor


class WordsRule(BoundaryRule):
    """A chunk starts at the first byte of a word, or of the white space in front of it."""

    reads_bytes = True

    def __init__(self, options: RuleOptions):
        super().__init__(options)
        following, starts = zip(*(_transitions(b) for b in range(_STATES)), strict=True)
        self.classes = byte_classes()
        self.following, self.starts = list(following), list(starts)  # [state][class]

    def init_state(self, batch_size: int, like: Tensor) -> WordState:
        zeros = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        return WordState(zeros, zeros)

    def decide(self, stretch: Stretch, state: WordState) -> tuple[Cuts, WordState]:
        ids = stretch.ids
        assert ids is not None, "words exist at the outermost level only"
        classes = torch.tensor(self.classes, device=ids.device)[ids.clamp(max=BYTES)]
        first = (stretch.positions == 0).expand(ids.shape)
        after = self._scan(classes, first, state.before)
        before = torch.cat((state.before[:, None], after[:, :-1]), dim=1)
        starts = torch.tensor(self.starts, device=ids.device)[before, classes] | first
        size = _size_so_far(starts, state.size)
        if self.options.limit:
            starts = starts | ((size - 1) % self.options.limit == 0)
        last = WordState(last_valid(after, stretch.counts), last_valid(size, stretch.counts))
        return Cuts(starts), last

    def _scan(self, classes_BL: Tensor, first_BL: Tensor, before_B: Tensor) -> Tensor:
        """(B, L) states after each byte: transitions composed over ever longer stretches."""
        following = torch.tensor(self.following, device=classes_BL.device)
        step = following.T[classes_BL]  # (B, L, states): where each state goes
        reset = following[SPECIAL][classes_BL][..., None]
        step = torch.where(first_BL[..., None], reset, step)
        reach, L = 1, classes_BL.shape[1]
        while reach < L:
            joined = step[:, reach:].gather(2, step[:, :-reach])
            step = torch.cat((step[:, :reach], joined), dim=1)
            reach *= 2
        return step.gather(2, before_B[:, None, None].expand(-1, L, 1)).squeeze(2)


def _size_so_far(starts_BL: Tensor, size_B: Tensor) -> Tensor:
    """(B, L) bytes of each position's chunk up to and with it; `size` of it stood before."""
    index = torch.arange(1, starts_BL.shape[1] + 1, device=starts_BL.device)
    begun = torch.where(starts_BL, index, 0).cummax(dim=1).values
    return torch.where(begun > 0, index - begun + 1, size_B[:, None] + index)


def _transitions(before: int) -> tuple[list[int], list[bool]]:
    """For each class of byte: the state after it, and whether it starts a chunk."""
    following, starts = list(range(6)), [before not in (WHITE, kind) for kind in range(6)]
    starts[SPECIAL] = starts[WHITE] = starts[SINGLE] = True
    starts[WHITE] = before != WHITE
    starts[SINGLE] = before != WHITE
    if before == _QUOTED_LETTER:
        starts[LETTER] = False
    # a continuation byte changes nothing, an apostrophe is a mark unless it stands behind a letter
    following += [before or MARK, _QUOTED_LETTER if before == LETTER else MARK]
    starts += [before == SPECIAL, before != LETTER and starts[MARK]]
    return following, starts


def byte_classes() -> list[int]:
    """The class of each byte value, and at 256 that of every special."""
    classes = [MARK] * BYTES + [SPECIAL]
    for values, kind in (
        ((*range(0x09, 0x0E), 0x20), WHITE),
        (
            (*range(0x41, 0x5B), 0x5F, *range(0x61, 0x7B), *range(0xC2, 0xE2), *range(0xEA, 0xF0)),
            LETTER,
        ),
        (range(0x30, 0x3A), DIGIT),
        ((*range(0xE3, 0xEA), *range(0xF0, 0xF5)), SINGLE),
        (range(0x80, 0xC0), CONTINUATION),
        ((0x27,), APOSTROPHE),
    ):
        for value in values:
            classes[value] = kind
    return classes
