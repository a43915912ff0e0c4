"""Learn Your Tokens, one byte per row in place (`body.py` has the other forms).

The decoder's caches hold the open words; a row that starts a word lets its decoder begin from
scratch behind new prefix vectors, after the encoder has read the word that has closed and the
Transformer over words has taken it. The other rows only take a step of the decoder.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bytelm.arch.wordpool.body import WordBody, WordState
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.prefixed import Prefixed
from bytelm.nn.stepping.boundaries import rule_steps
from bytelm.nn.stepping.stack import StackSteps


class WordSteps:
    """The body for the rows of a state."""

    def __init__(self, body: WordBody, state: WordState, *, compiled: bool):
        self._body = body
        self._rule = rule_steps(body.rule, state.rule)
        self._positions: list[int] = state.position.tolist()
        self._open: list[int] = state.open.tolist()  # bytes of each open word
        self._word, self._read = state.word.clone(), state.read.clone()
        rows = len(self._open)
        self._trunk = StackSteps(body.trunk, state.trunk, rows, compiled=compiled)
        empty = body.decoder.init_state(rows)
        self._decoder = StackSteps(body.decoder, empty, rows, compiled=compiled)
        self.chunks = 0
        self._spell_again()

    def _spell_again(self) -> None:
        """Bring the decoder to where the open words stand."""
        begun = [b for b, size in enumerate(self._open) if size]
        if not begun:
            return
        with torch.inference_mode():
            self._prefix(begun)
            for i in range(max(self._open)):
                rows = [b for b in begun if self._open[b] > i]
                self._decoder.step(self._word[rows, i], rows)

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """Feed one byte to the rows with these numbers, None = all; -> outputs (n, D)."""
        numbers = list(range(len(self._open)) if rows is None else rows)
        index = None if rows is None else torch.tensor(numbers, device=x_nD.device)
        positions = [self._positions[b] for b in numbers]
        starts, _ = self._rule.cut(x_nD, numbers, index, positions, ids)
        begun = [b for b, start in zip(numbers, starts, strict=True) if start or not self._open[b]]
        if begun:
            self.chunks += len(begun)
            self._close([b for b in begun if self._open[b]])
            self._decoder.restart(begun)
            self._prefix(begun)
        for b in begun:
            self._open[b] = 0
        self._word[numbers, [self._open[b] for b in numbers]] = x_nD.to(self._word.dtype)
        for b in numbers:
            self._open[b] += 1
            self._positions[b] += 1
        return self._decoder.step(x_nD, rows)

    def _close(self, rows: list[int]) -> None:
        """The trunk takes these rows' words."""
        if not rows:
            return
        body, device = self._body, self._read.device
        lengths = torch.tensor([self._open[b] for b in rows], device=device)
        x = self._word[rows, : int(lengths.max())]
        starts = torch.zeros(x.shape[:2], dtype=torch.bool, device=device)
        starts[:, 0] = True
        packed = Prefixed(ChunkPlan(starts, delay=1), body.options.prefixes, lengths)
        vectors = body.write(x, packed)[:, 0]
        said = self._trunk.step(vectors, self._some(rows))
        self._read[rows] = said.to(self._read.dtype)

    def _prefix(self, rows: list[int]) -> None:
        """Feed the prefix vectors of new words."""
        vectors = self._body.prefix(self._read[rows])
        for i in range(vectors.shape[1]):
            self._decoder.step(vectors[:, i], self._some(rows))

    def _some(self, rows: list[int]) -> list[int] | None:
        """These rows, None = all."""
        return None if len(rows) == len(self._open) else rows

    def state(self) -> WordState:
        """The immutable state of all rows."""
        device = self._read.device
        return WordState(
            position=torch.tensor(self._positions, device=device),
            rule=self._rule.state(),
            word=self._word.clone(),
            open=torch.tensor(self._open, device=device),
            trunk=self._trunk.state(),
            read=self._read.clone(),
        )
