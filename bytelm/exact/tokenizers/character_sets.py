"""Which characters a one-character expression means, asked of the library that will use it, and the
classes of characters that a set of such expressions cannot tell apart.

Asking is exact whatever the library's version of Unicode, its rules for letter case or for nested
brackets. Blocks of one category (ideographs, syllables, private use, planes without characters) are
asked by their first character and wherever the expression names a code point inside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

from bytelm.errors import BytelmError

CODE_POINTS = 0x110000
_SURROGATES = (0xD800, 0xE000)
_UNIFORM = (
    (0x3400, 0x4DB6), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0xE000, 0xF900), (0x17000, 0x187ED),
    (0x20000, 0x2A6D7), (0x2A700, 0x2B735), (0x30000, 0x3134B), (0x34000, 0xE0000),
    (0xE1000, 0xF0000), (0xF0000, 0x110000),
)  # fmt: skip
_NAMED = re.compile(r"\\[xu]\{?([0-9A-Fa-f]+)|(.)", re.DOTALL)


@lru_cache(maxsize=512)
def members(source: str) -> NDArray[np.bool_]:
    """(0x110000,) which code points the one-character expression matches. `BytelmError` if the
    library refuses the expression.

    >>> np.flatnonzero(members("[a-c]")).tolist()
    [97, 98, 99]
    """
    asked, lengths = _asked(source)
    text = "".join(map(chr, asked))
    try:
        cut = pre_tokenizers.Split(Regex(f"(?:{source})+"), "removed", invert=True)
        spans = [span for _, span in cut.pre_tokenize_str(text)]
    except Exception as error:
        raise BytelmError(f"the library cannot read {source!r}: {error}") from error
    found = np.zeros(len(asked), bool)
    for start, end in spans:
        found[start:end] = True
    whole = np.zeros(CODE_POINTS, bool)
    whole[: _SURROGATES[0]], whole[_SURROGATES[1] :] = np.split(
        np.repeat(found, lengths), [_SURROGATES[0]]
    )
    return whole


def _asked(source: str) -> tuple[list[int], list[int]]:
    """The code points to ask about, and how many each stands for."""
    named = {int(code, 16) if code else ord(one) for code, one in _NAMED.findall(source)}
    asked: list[int] = []
    at = 0
    for low, high in (*_UNIFORM, (CODE_POINTS, CODE_POINTS)):
        asked += [code for code in range(at, low) if not _SURROGATES[0] <= code < _SURROGATES[1]]
        inside = {edge for code in named for edge in (code, code + 1) if low < edge < high}
        asked += sorted({low, *inside}) if low < high else []
        at = high
    ends = [*asked[1:], CODE_POINTS]
    gap = _SURROGATES[1] - _SURROGATES[0]
    return asked, [
        end - code - (gap if code < _SURROGATES[0] < end else 0)
        for code, end in zip(asked, ends, strict=True)
    ]


class CharacterClasses:
    """The classes of characters that are in the same ones of some sets.

    of         (0x110000,) the class of each code point
    samples    one character of each class
    """

    def __init__(self, sources: Iterable[str]):
        names = list(dict.fromkeys(sources))
        signature = np.zeros(CODE_POINTS, np.int64)
        for i, name in enumerate(names):
            if i % 48 == 0 and i:  # no more bits: number what there is
                signature = np.unique(signature, return_inverse=True)[1].astype(np.int64)
            signature = signature * 2 + members(name)
        signature[slice(*_SURROGATES)] = signature[ord("a")]  # no characters: no class of their own
        _, first, of = np.unique(signature, return_index=True, return_inverse=True)
        self.of: NDArray[np.int32] = of.astype(np.int32)
        self.samples: Sequence[str] = [chr(code) for code in first]
        self._masks = {name: _mask(members(name)[first]) for name in names}

    def __len__(self) -> int:
        return len(self.samples)

    def mask(self, source: str, *, negative: bool = False) -> int:
        """The classes in a set (or not in it), as bits."""
        found = self._masks[source]
        return found ^ ((1 << len(self)) - 1) if negative else found

    def within(self, low: int, high: int) -> list[int]:
        """The classes of the characters in a range of code points."""
        return _within(self, low, high)


@lru_cache(maxsize=4096)
def _within(classes: CharacterClasses, low: int, high: int) -> list[int]:
    found = classes.of[low:high]
    if low < _SURROGATES[1] and high > _SURROGATES[0]:
        found = np.concatenate(
            [classes.of[low : _SURROGATES[0]], classes.of[_SURROGATES[1] : high]]
        )
    return np.unique(found).tolist()


def _mask(bits: NDArray[np.bool_]) -> int:
    return sum(1 << i for i in np.flatnonzero(bits).tolist())
