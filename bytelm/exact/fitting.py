"""How much of known texts a converted model can read at once: a window only where one is needed.

A model's context is counted in tokens and a window in bytes. One byte per token always fits, but
reads a quarter of the context of English. The texts are known here, so the widest window is found
of which every part fits, by the tokens that the tokenizer writes. Some room is left, because
token strings that it would not have written are longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.canonical import CanonicalLM
from bytelm.exact.models.tree_lm import TreeLM
from bytelm.exact.windowed import WindowedConverter
from bytelm.lm.protocol import ByteLM
from bytelm.lm.sliding_context import SlidingContext

_ROOM = 8  # one part in so many of the context is left for other spellings
_WIDTHS = (8, 6, 4, 3, 2, 1.5, 1)  # windows that are tried, in bytes per token of the context


def fit_to_context(lm: ByteLM, texts: Sequence[bytes]) -> ByteLM:
    """`lm` itself if it can read each text whole, else a converted model in the widest window of
    whole texts that fits, dropped by halves (`window`, `stride` say so).

    `BytelmError` if the model's context is too short for a single byte.

    >>> from bytelm.exact import TabularLM, convert
    >>> fit_to_context(convert(TabularLM(lambda h: [0.5, 0.5], [b"a", b"b"])), [b"ab"]).window
    """
    limit = _room_for_text(lm) if isinstance(lm, ByteConverter) else None
    if not isinstance(lm, ByteConverter) or limit is None:
        return lm
    if limit < 1:
        raise BytelmError(f"the model's context has no room for text ({limit} tokens)")
    if all(len(text) <= limit for text in texts):
        return lm
    ends = [_tokens_before(lm, text) for text in texts]
    allowed = max(1, limit - limit // _ROOM)
    if all(known[-1] <= allowed for known in ends):
        return lm
    for width in _WIDTHS:
        window = int(limit * width)
        sliding = SlidingContext.of(window)
        if width == 1 or all(_fits(sliding, known, allowed) for known in ends):
            return WindowedConverter(lm, window=window)
    raise AssertionError("one byte per token always fits")


def _room_for_text(lm: ByteConverter) -> int | None:
    """Tokens of the context that are left to a text; None: no limit."""
    inner = lm.lm.lm if isinstance(lm.lm, CanonicalLM) else lm.lm
    if not isinstance(inner, TreeLM) or inner.limit is None:
        return None
    before = len(inner.start_ids) + len(lm.start_tokens) + len(lm.dummy_prefix)
    return inner.limit - before - 1  # scoring a window looks one byte beyond it


def _tokens_before(lm: ByteConverter, text: bytes) -> list[int]:
    """(n + 1,) at each offset, how many canonical tokens end at or before it; a token per byte
    where the tokenizer is not known or cannot write the text."""
    each_byte = list(range(len(text) + 1))
    if lm.encoder is None:
        return each_byte
    try:
        tokens = [lm.trie.vocab_bytes[i] or b"" for i in lm.encoder.encode(text)]
    except (KeyError, ValueError):
        return each_byte
    if b"".join(tokens) != text:
        return each_byte
    ended = [0] * (len(text) + 1)
    for end in accumulate(map(len, tokens)):
        ended[end] += 1
    return list(accumulate(ended))


def _fits(sliding: SlidingContext, ends: list[int], allowed: int) -> bool:
    """Whether no window holds more than `allowed` tokens, the two that it cuts included."""
    return all(ends[hi] - ends[s] + 2 <= allowed for s, _, hi in sliding.segments(0, len(ends) - 1))
