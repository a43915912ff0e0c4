"""`ByteConverter`: a tokenized language model as a `ByteLM`.

Three estimands, never mixed (docs/exact.md):

- `all`: the law of "sample tokens, decode": the sum over every token string whose text starts with
  the bytes (Vieira et al. 2025, Proposition 1). A beam evaluates at most `beam` new token prefixes
  per byte, each of at least `epsilon` of the mass; what is kept is a lower bound (`log_lower`),
  what was dropped is bounded (`log_dropped`).
- `canonical`: the sum over covers that stand on a token prefix which the tokenizer could have
  written (Phan et al. 2024). Nothing is pruned; one model row per byte.
- `canonicalised`: the model first made canonical by construction (tokens that the tokenizer would
  not have written are masked, the rest renormalised). For it, `all` and `canonical` coincide.

`logprobs()` is normalised in every mode and `logprob` is the sum of its steps. On a real model the
modes `all` and `canonical` lose some mass at each step (special tokens, invalid continuations), so
exp(`log_lower`), the prefix probability itself, is somewhat smaller than exp(`logprob`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.exact.advance import advance
from bytelm.exact.deferred import Deferred
from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.hypothesis import Pruning
from bytelm.exact.models.canonical import CanonicalLM
from bytelm.exact.possible import predict
from bytelm.exact.state import ConvertedState, ConvertedText
from bytelm.exact.text_beam import TextBeam
from bytelm.exact.token_lm import TokenLM
from bytelm.exact.token_tree import TokenTree
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.lm.protocol import ByteLM, Context

Mode = Literal["all", "canonical", "canonicalised"]
_HELD_NUMBERS = 1 << 23  # texts scored together times vocabulary: each holds some distributions
_MODES = ("all", "canonical", "canonicalised")


class ByteConverter(ByteLM):
    """A token LM read one byte at a time; see the module's text for the modes.

    lm             the token model; in mode `canonicalised`, `self.lm` is its `CanonicalLM`
    encoder        canonical encodings; needed by the canonical modes, and speeds up `all`
    mode, beam, epsilon   as in `bytelm.convert`
    specials       names of special tokens -> ids, for contexts
    start          ids that stand before every text, after the model's own `start_ids`
    dummy_prefix   bytes that the tokenizer puts before every text and which are not part of it
                   (the dummy blank of SentencePiece); P(x) is then P(prefix x) / P(prefix)
    prefix         the same under a short name; give one of the two
    """

    def __init__(
        self,
        lm: TokenLM,
        encoder: Encoder | None,
        *,
        mode: Mode,
        beam: int,
        epsilon: float,
        specials: Mapping[str, int] | None = None,
        dummy_prefix: bytes = b"",
        prefix: bytes = b"",
        start: Sequence[int] = (),
    ):
        if mode not in _MODES:
            raise BytelmError(unknown_name("mode", mode, _MODES))
        if mode != "all" and encoder is None:
            raise BytelmError(
                f'mode {mode!r} needs the tokenizer: give `encode`, or use mode="all"'
            )
        if beam < 1 or not 0 <= epsilon < 1:
            raise BytelmError(
                f"beam must be at least 1 and epsilon in [0, 1), not {beam} and {epsilon}"
            )
        for token in start:
            if not 0 <= token < len(lm.vocab_bytes):
                raise BytelmError(
                    f"start id {token} is not one of the model's {len(lm.vocab_bytes)} ids"
                )
        self.mode = mode
        self.lm = CanonicalLM(lm, encoder) if mode == "canonicalised" and encoder else lm
        self.encoder = encoder
        self.trie = PrefixTrie(lm.vocab_bytes, lm.eos_ids)
        self.pruning = Pruning(beam, epsilon) if mode == "all" else None
        if dummy_prefix and prefix:
            raise BytelmError("dummy_prefix and prefix are one setting: give one of them")
        self.dummy_prefix = dummy_prefix or prefix
        self.start_tokens = list(start)
        self._deferred = Deferred.of(self.trie)
        self._specials = dict(specials or {})

    @property
    def specials(self) -> Mapping[str, int]:
        return self._specials

    @property
    def ends(self) -> set[str]:
        return {name for name, i in self._specials.items() if i in self.lm.eos_ids}

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> ConvertedState:
        begun = [self._begin(parts) for parts in contexts]
        bases = advance([beam for beam, _ in begun], [unscored for _, unscored in begun])
        beams = advance(bases, prompts)
        return ConvertedState(
            self,
            [
                ConvertedText(beam, base.logprob, base.log_lower)
                for beam, base in zip(beams, bases, strict=True)
            ],
        )

    def _begin(self, context: Context) -> tuple[TextBeam, bytes]:
        """A beam after the context's specials, and the context bytes still to be fed."""
        tokens, text = self._context_tokens(context)
        if self.encoder is not None and self.pruning is None and text:
            # Every canonical encoding has a boundary where encoding may restart, so what stands
            # before it is plain tokens: no row per byte for a long context.
            settled = self.encoder.restart(text, 0)
            tokens += self.encoder.encode(text[:settled])
            text = text[settled:]
        base = TokenTree(self.lm, self.trie).root.descend(tokens)
        base.logprob = 0.0
        beam = TextBeam(
            initial=((base, True),),
            pruning=self.pruning,
            frontier=None if self.encoder is None else CanonicalFrontier.after(self.encoder, base),
            deferred=self._deferred,
        )
        return beam, text

    def _context_tokens(self, context: Context) -> tuple[list[int], bytes]:
        """Ids up to the last special symbol, and the bytes after it. The dummy blank stands at
        the very start only: a template for infilling says where else it does."""
        tokens: list[int] = []
        text = self.dummy_prefix
        for part in context:
            if isinstance(part, bytes):
                text += part
                continue
            if text and (text != self.dummy_prefix or tokens):
                if self.encoder is None:
                    raise BytelmError(
                        f"a context with bytes before the special symbol {part!r} needs the "
                        "tokenizer: give `encode`"
                    )
                tokens += self.encoder.encode(text)
            tokens.append(self._specials[part])
            text = b""
        return [*self.start_tokens, *tokens], text

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """As `ByteLM._score`, in few forward passes, of so many texts together as their
        distributions fit a bounded memory."""
        size = max(1, _HELD_NUMBERS // len(self.trie.vocab_bytes))
        found: list[Tensor] = []
        for i in range(0, len(texts), size):
            found += self._score_together(texts[i : i + size], contexts[i : i + size])
        return found

    def _score_together(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """`_score` of texts read in step. The token prefixes of known texts that the tokenizer
        tells are evaluated together, and a context that several texts share is read once."""
        different = list(dict.fromkeys(contexts))
        begun = self._start([b""] * len(different), different)
        start = dict(zip(different, begun.beams, strict=True))
        traces = [[start[context].logprob] for context in contexts]
        beams = advance([start[context] for context in contexts], texts, traces=traces)
        predict(beams)
        return [
            torch.cat([_steps(trace), torch.tensor([beam.log_end()], dtype=torch.float64)])
            for trace, beam in zip(traces, beams, strict=True)
        ]


def _steps(trace: list[float]) -> Tensor:
    """Differences of running log-probabilities; -inf after an impossible byte stays -inf."""
    totals = torch.tensor(trace, dtype=torch.float64)
    steps = totals.diff()
    return torch.where(totals[1:] == -math.inf, totals[1:], steps)
