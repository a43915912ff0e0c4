"""UTF-8 over bytes: the automaton of well-formed text, and streaming in whole characters.

Well-formed is table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above
U+10FFFF. A byte LM can end a chunk inside a character; `CharacterBuffer` holds back at most three
bytes so that a terminal never shows half of one, and lets bytes that are not UTF-8 through as they
are.
"""

from functools import lru_cache

import numpy as np

from bytelm.lm.dfa import DEAD, ByteDFA
from bytelm.vocab import BYTES

# lead bytes (inclusive) -> ranges of the continuation bytes
_CONTINUATION = (0x80, 0xBF)
_FORMS = (
    ((0x00, 0x7F), ()),
    ((0xC2, 0xDF), (_CONTINUATION,)),
    ((0xE0, 0xE0), ((0xA0, 0xBF), _CONTINUATION)),
    ((0xE1, 0xEC), (_CONTINUATION, _CONTINUATION)),
    ((0xED, 0xED), ((0x80, 0x9F), _CONTINUATION)),
    ((0xEE, 0xEF), (_CONTINUATION, _CONTINUATION)),
    ((0xF0, 0xF0), ((0x90, 0xBF), _CONTINUATION, _CONTINUATION)),
    ((0xF1, 0xF3), (_CONTINUATION, _CONTINUATION, _CONTINUATION)),
    ((0xF4, 0xF4), ((0x80, 0x8F), _CONTINUATION, _CONTINUATION)),
)


class Utf8DFA(ByteDFA):
    """Well-formed UTF-8 as a constraint: a text may begin inside the prompt's last character."""

    def start(self, prompt: bytes) -> int:
        """The state after the unfinished character of the prompt, if it ends in one."""
        return self.run(open_character(prompt))


@lru_cache(maxsize=1)
def utf8_dfa() -> Utf8DFA:
    """The automaton of well-formed UTF-8; state 0, the only accepting one, is a boundary.

    >>> utf8_dfa().accepts("Größe".encode()), utf8_dfa().accepts(b"\\xc0\\xaf")
    (True, False)
    """
    number: dict[tuple, int] = {(): 0}  # the continuation bytes still to come -> state
    table = [np.full(BYTES, DEAD, dtype=np.int32)]

    def state_of(rest: tuple) -> int:
        if rest not in number:
            number[rest] = len(table)
            table.append(np.full(BYTES, DEAD, dtype=np.int32))
            (low, high), *later = rest
            table[number[rest]][low : high + 1] = state_of(tuple(later))
        return number[rest]

    for (low, high), rest in _FORMS:
        table[0][low : high + 1] = state_of(rest)
    return Utf8DFA.trimmed(np.stack(table), np.arange(len(table)) == 0)


def utf8_between(prefix: bytes, suffix: bytes) -> ByteDFA:
    """What may stand between two texts so that their joins are well-formed UTF-8: it completes the
    character in which the prefix ends, and ends in the one that the suffix completes.

    >>> middle = utf8_between(b"na\\xc3", b"\\xa9!")
    >>> middle.accepts(b"\\xafv\\xc3"), middle.accepts(b"\\xafv")
    (True, False)
    """
    whole, rest = utf8_dfa(), suffix[:3]
    completing = rest[: len(rest) - len(rest.lstrip(bytes(range(0x80, 0xC0))))]
    accepting = [whole.run(completing, state) == 0 for state in range(len(whole.next_SB))]
    initial = whole.run(open_character(prefix))
    return ByteDFA.trimmed(whole.next_SB, np.array(accepting), initial=initial)


def open_character(data: bytes) -> bytes:
    """The unfinished character at the end of `data` (0 to 3 bytes that more bytes can complete).

    >>> open_character("naï".encode()[:-1])
    b'\\xc3'
    """
    for size in range(1, min(3, len(data)) + 1):
        tail = data[-size:]
        if tail[0] >= 0xC0:
            return tail if utf8_dfa().run(tail) > 0 else b""
        if tail[0] < 0x80:
            return b""
    return b""


class CharacterBuffer:
    """Turns a stream of byte pieces into one of pieces that never end inside a character."""

    def __init__(self) -> None:
        self._held = b""

    def push(self, piece: bytes) -> bytes:
        """What can be shown now; at most three bytes are held back."""
        data = self._held + piece
        self._held = open_character(data)
        return data[: len(data) - len(self._held)]

    def flush(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return held
