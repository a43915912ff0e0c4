"""Learn Your Tokens, one byte per row in place (`body.py` has the other forms).

The decoder's caches hold the open words; a row that starts a word lets its decoder begin from
scratch behind new prefix vectors, after the encoder has read the word that has closed and the
Transformer over words has taken it. The other rows only take a step of the decoder.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bytelm.arch.wordpool.body import Embed, WordBody, WordState
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.prefixed import Prefixed
from bytelm.nn.stepping.boundaries import rule_steps
from bytelm.nn.stepping.stack import StackSteps


class WordSteps:
    """The body for the rows of a state."""

    def __init__(self, body: WordBody, state: WordState, embed: Embed, *, compiled: bool):
        self._body, self._embed, self._limit = body, embed, body.options.max_word
        self._rule = rule_steps(body.rule, state.rule)
        self._positions: list[int] = state.position.tolist()
        open_words = zip(state.word.tolist(), state.open.tolist(), strict=True)
        self._words: list[list[int]] = [word[:n] for word, n in open_words]
        self._read = state.read.clone()
        rows = len(self._words)
        self._trunk = StackSteps(body.trunk, state.trunk, rows, compiled=compiled)
        empty = body.decoder.init_state(rows)
        self._decoder = StackSteps(body.decoder, empty, rows, compiled=compiled)
        self.chunks = 0
        self._spell_again(state)

    def _spell_again(self, state: WordState) -> None:
        """Bring the decoder to where the open words stand."""
        begun = [b for b, word in enumerate(self._words) if word]
        if not begun:
            return
        with torch.inference_mode():
            self._prefix(begun)
            x = self._embed(state.word)
            for i in range(max(len(word) for word in self._words)):
                rows = [b for b in begun if len(self._words[b]) > i]
                self._decoder.step(x[rows, i], rows)

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """Feed one byte to the rows with these numbers, None = all; -> outputs (n, D)."""
        numbers = range(len(self._words)) if rows is None else rows
        index = None if rows is None else torch.tensor(list(rows), device=x_nD.device)
        positions = [self._positions[b] for b in numbers]
        starts, _ = self._rule.cut(x_nD, numbers, index, positions, ids)
        begun = [b for b, start in zip(numbers, starts, strict=True) if start or not self._words[b]]
        if begun:
            self.chunks += len(begun)
            self._close([b for b in begun if self._words[b]])
            self._decoder.restart(begun)
            self._prefix(begun)
        for b in begun:
            self._words[b] = []
        for b, symbol in zip(numbers, ids, strict=True):
            self._words[b].append(symbol)
            self._positions[b] += 1
        return self._decoder.step(x_nD, rows)

    def _close(self, rows: list[int]) -> None:
        """The trunk takes these rows' words."""
        if not rows:
            return
        body, device = self._body, self._read.device
        words = [self._words[b] for b in rows]
        lengths = torch.tensor([len(word) for word in words], device=device)
        longest = int(lengths.max())
        ids = torch.tensor([word + [0] * (longest - len(word)) for word in words], device=device)
        starts = torch.zeros_like(ids, dtype=torch.bool)
        starts[:, 0] = True
        packed = Prefixed(ChunkPlan(starts, delay=1), body.options.prefixes, lengths)
        vectors = body.write(self._embed(ids), packed)[:, 0]
        every = len(rows) == len(self._words)
        said = self._trunk.step(vectors, None if every else rows)
        self._read[rows] = said.to(self._read.dtype)

    def _prefix(self, rows: list[int]) -> None:
        """Feed the prefix vectors of new words."""
        every = len(rows) == len(self._words)
        vectors = self._body.prefix(self._read[rows])
        for i in range(vectors.shape[1]):
            self._decoder.step(vectors[:, i], None if every else rows)

    def state(self) -> WordState:
        """The immutable state of all rows."""
        device, limit = self._read.device, self._limit
        padded = [word + [0] * (limit - len(word)) for word in self._words]
        return WordState(
            position=torch.tensor(self._positions, device=device),
            rule=self._rule.state(),
            word=torch.tensor(padded, device=device),
            open=torch.tensor([len(word) for word in self._words], device=device),
            trunk=self._trunk.state(),
            read=self._read.clone(),
        )
