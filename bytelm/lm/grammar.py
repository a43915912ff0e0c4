"""Constraints by grammar: JSON that obeys a schema, or a context-free grammar, over bytes.

The grammars are those of llguidance (extra `grammar`), given a vocabulary of the 256 single bytes
and an end: so its masks are masks of the next byte, and no token can straddle two symbols. A
matcher is copied before each byte, which makes it a place of the `Constraint` protocol.

What a grammar cannot tell is how far its nearest whole text is: `room` has no effect, and a text
that reaches `max_bytes` first is cut off there (finish "length"). Schemas that bound their strings
and lists, and the default of JSON without white space, keep texts short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from bytelm.errors import BytelmError, MissingExtraError
from bytelm.vocab import BYTES, END, OUTCOMES

_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


class Grammar:
    """A `Constraint` made of a grammar; see `json_schema` and `lark`."""

    def __init__(self, grammar: str, what: str):
        library = _library()
        self._matcher = library.LLMatcher(_tokenizer(), grammar, log_level=0)
        _check(self._matcher, what)

    def start(self, prompt: bytes) -> Any:
        """The place before the first byte: a text is judged alone, whatever the prompt."""
        return self._matcher.deep_copy()

    def allowed(self, place: Any, room: int | None = None) -> np.ndarray:
        """(257,) bool: what may come next; `room` has no effect. `BytelmError` where the grammar is
        too complex to go on."""
        if place.is_stopped() and not place.is_error():
            return np.arange(OUTCOMES) == END
        bits = place.compute_bitmask()
        _check(place, "grammar")
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:OUTCOMES]
        return mask.astype(bool)

    def advance(self, place: Any, byte: int) -> Any:
        """The place after `byte`, which was allowed."""
        after = place.deep_copy()
        after.consume_token(byte)
        _check(after, "grammar")
        return after


def json_schema(schema: Mapping[str, Any] | str | bytes | bool) -> Grammar:
    """The JSON texts that obey a JSON Schema (a mapping, or its JSON), without white space between
    their parts; {} is any JSON.

    `BytelmError` for what is no schema or uses keywords that cannot be enforced (they are named),
    `MissingExtraError` without llguidance.
    """
    if isinstance(schema, str | bytes):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise BytelmError(f"the JSON Schema is not JSON: {error}") from None
    if not isinstance(schema, Mapping | bool):
        raise BytelmError(f"a JSON Schema is an object or a truth value, not {schema!r:.80}")
    text = json.dumps(schema if isinstance(schema, bool) else dict(schema))
    library = _library()
    try:
        grammar = library.LLMatcher.grammar_from_json_schema(text, defaults=_COMPACT)
    except ValueError as error:
        raise BytelmError(f"the JSON Schema cannot be used: {error}") from None
    return Grammar(grammar, "JSON Schema")


def lark(grammar: str) -> Grammar:
    """The texts of a context-free grammar in the Lark syntax, whose first rule is `start`.

    `BytelmError` for a grammar with mistakes, `MissingExtraError` without llguidance.
    """
    return Grammar(_library().LLMatcher.grammar_from_lark(grammar), "grammar")


def _check(matcher: Any, what: str) -> None:
    if matcher.is_error():
        reason = " ".join(matcher.get_error().split())
        raise BytelmError(f"the {what} cannot be used: {reason:.300}")


def _library() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError("llguidance", "grammar", "constraining by a grammar") from None
    return llguidance


class _Bytes:
    """The vocabulary as llguidance reads it: each byte a token, and the end."""

    eos_token_id = END
    bos_token_id = None
    tokens: Sequence[bytes] = [*(bytes([i]) for i in range(BYTES)), b"<end>"]
    special_token_ids = (END,)

    def __call__(self, data: bytes) -> list[int]:
        return list(data)


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    library = _library()
    return library.LLTokenizer(library.TokenizerWrapper(_Bytes()), slices=[])
