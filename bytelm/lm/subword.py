"""Our own subword models as `ByteLM`s: what `bytelm.load` makes of a run with `data.tokenizer`.

Such a run is read like any tokenized model, through the exact converter, and like our byte models
in windows of the context it was trained with. Its Transformers keep a tree of keys and values (no
copy a byte); other architectures are read by copies of their state. Of the ids, only tokens with
bytes and the end are normalised, because no other symbol can follow in a text.

Two figures of such a model must not be confused. `score` and `bits_per_byte` are those of the exact
byte distribution, a sum over token strings (those of `mode`). `SubwordLM.tokens` scores the one
token string that the tokenizer writes: as fast as the model itself, and what is usually reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, CausalModel
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact.converter import ByteConverter, Mode
from bytelm.exact.models.forked import ForkedLM
from bytelm.exact.models.tree_attention import Group, attend
from bytelm.exact.models.tree_lm import TreeLM, depths
from bytelm.exact.tokenizers.tables import merge_encoder
from bytelm.exact.windowed import WindowedConverter
from bytelm.lm.reach import Reach
from bytelm.nn.cache import KVCache
from bytelm.nn.stack import StackState
from bytelm.nn.state import State
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.vocabulary import token_vocab
from bytelm.vocab import TokenVocab

_BATCH_LOGITS = 1 << 26  # numbers in the logits of one scoring forward: bounds memory, not results


class SubwordLM(WindowedConverter):
    """A model over the ids of `bpe` as an exact byte-level one.

    window, stride        as in `NativeLM`, in bytes
    mode, beam, epsilon   as in `bytelm.convert`. The default is `canonical`, one row a byte: the
                          model never saw another encoding, and a beam over all of them costs more
    """

    def __init__(
        self,
        model: ByteModel,
        bpe: BinaryBPE,
        *,
        window: int,
        stride: int | None = None,
        mode: Mode = "canonical",
        beam: int = 8,
        epsilon: float = 1e-3,
    ):
        if not isinstance(model, CausalModel):
            raise BytelmError(f"{type(model).__name__} does not predict what comes next")
        self.model, self.bpe = model.eval(), bpe
        words = [bpe.codec.token(i) for i in range(len(bpe.codec))]
        merges = [(words[a], words[b]) for a, b in bpe.codec.merges.tolist()]
        encoder = merge_encoder(bpe.token_bytes, merges, None)
        lm = token_lm(self.model, bpe)
        converter = ByteConverter(lm, encoder, mode=mode, beam=beam, epsilon=epsilon)
        super().__init__(converter, window=window, stride=stride)

    @property
    def tokens(self) -> TokenScores:
        """The model's code length of the tokens the tokenizer writes."""
        return TokenScores(self.model, self.bpe, self.reach)


@dataclass(frozen=True)
class TokenScores:
    """log P of a text's canonical tokens, in windows as `Reach` says, for `evaluate_bits`.

    A whole text is encoded once; a token that starts at byte t is predicted from the tokens that
    start in its context x[s:t]. In a single window this is at most log P of the exact byte model,
    which adds the other token strings of the same bytes.
    """

    model: CausalModel[Any]
    bpe: BinaryBPE
    reach: Reach

    @property
    def window(self) -> int:
        return self.reach.window

    @property
    def stride(self) -> int:
        return self.reach.stride

    def score_batch_with_end(self, texts: Sequence[bytes]) -> list[Tensor]:
        """(n + 1,) float64 nats a text: each token's at its first byte, 0 elsewhere; then the
        end's. Sums are code lengths; single entries say nothing about single bytes."""
        scores = [torch.zeros(len(text) + 1, dtype=torch.float64) for text in texts]
        windows = [
            window
            for text, out in zip(texts, scores, strict=True)
            for window in self._windows(text, out)
        ]
        windows.sort(key=lambda window: len(window.ids))
        positions = max(1, _BATCH_LOGITS // self.bpe.vocab_size)
        while windows:
            count = max(1, positions // len(windows[-1].ids))
            self._score(windows[-count:])
            del windows[-count:]
        return scores

    def _windows(self, text: bytes, out: Tensor) -> list[_TokenWindow]:
        vocab = _vocab(self.model)
        ids, offsets = self.bpe.encode_with_offsets(text)
        ids, starts = np.append(ids, vocab.eos), offsets  # the end starts where the text stops
        found = []
        for s, lo, hi in self.reach.segments(0, len(text)):
            context, first, last = np.searchsorted(starts, [s, lo, hi + 1])
            if first < last:
                row = [vocab.bos, *ids[context:last].tolist()]
                places = torch.from_numpy(starts[first:last])
                found.append(_TokenWindow(row, out, places))
        return found

    @torch.no_grad()
    def _score(self, windows: Sequence[_TokenWindow]) -> None:
        width = max(len(window.ids) for window in windows) - 1
        vocab, device = _vocab(self.model), self.model.device
        rows = [[*window.ids, *[vocab.pad] * (width + 1 - len(window.ids))] for window in windows]
        ids_BL = torch.tensor(rows, device=device)
        lengths_B = torch.tensor([len(window.ids) - 1 for window in windows], device=device)
        logits_BLV = self.model(Batch(ids=ids_BL[:, :-1], lengths=lengths_B)).logits
        logits_BLV += _only(self.bpe, vocab, logits_BLV)
        chosen_BL = logits_BLV.gather(2, ids_BL[:, 1:, None])[..., 0] - logits_BLV.logsumexp(2)
        for window, row, length in zip(windows, chosen_BL.double().cpu(), lengths_B, strict=True):
            window.out[window.places] = row[length - len(window.places) : length]


@dataclass(frozen=True, slots=True)
class _TokenWindow:
    """One forward's row: BOS, context and targets; the last targets' scores go to out[places]."""

    ids: list[int]
    out: Tensor
    places: Tensor


def check_tokenizer(vocab: TokenVocab, bpe: BinaryBPE) -> None:
    """`CheckpointError` unless `bpe` is what a model with this vocabulary was trained on."""
    if token_vocab(bpe) != vocab:
        raise CheckpointError(
            f"the tokenizer ({bpe.vocab_size} ids) is not the one that this model ({vocab.size} "
            "ids) was trained with: their hashes differ"
        )


def token_lm(model: CausalModel[Any], bpe: BinaryBPE) -> TreeLM | ForkedLM:
    """The model as a `TokenLM`: with a tree of keys and values if its state is nothing else."""
    check_tokenizer(_vocab(model), bpe)
    state = model.init_state(1)
    attention = isinstance(state, StackState) and all(
        isinstance(layer, KVCache) for layer in state.layers
    )
    return (_Tree if attention else _Forked)(model, bpe)


def _vocab(model: ByteModel) -> TokenVocab:
    if not isinstance(model.vocab, TokenVocab):
        raise BytelmError(f"this {type(model).__name__} reads bytes, not tokens")
    return model.vocab


def _only(bpe: BinaryBPE, vocab: TokenVocab, like: Tensor) -> Tensor:
    """(V,) 0 for tokens with bytes and the end, -inf for all that no text has."""
    silent = [data is None for data in bpe.token_bytes]
    silent[vocab.eos] = False
    bias = torch.zeros(vocab.size, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(torch.tensor(silent, device=like.device), -torch.inf)


class _Logprobs:
    """What both adapters know of their model."""

    def __init__(self, model: CausalModel[Any], bpe: BinaryBPE):
        self.model = model
        self._bias = _only(bpe, _vocab(model), next(model.parameters()).detach().float())

    def of(self, logits: Tensor) -> Tensor:
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return (exact + self._bias).log_softmax(-1)


class _Tree(TreeLM):
    """A model whose decode state is keys and values alone."""

    def __init__(self, model: CausalModel[Any], bpe: BinaryBPE):
        vocab = _vocab(model)
        super().__init__(
            bpe.token_bytes, eos_ids={vocab.eos}, start_ids=[vocab.bos], device=model.device
        )
        self.model, self._logprobs = model, _Logprobs(model, bpe)
        self._layers = len(model.init_state(1).layers)

    @torch.inference_mode()
    def forward(self, ids: list[int], groups: list[Group]) -> Tensor:
        depth_R = torch.tensor(depths(groups), device=self._device)
        state = StackState(tuple(_TreeLayer(i, groups, depth_R) for i in range(self._layers)))
        logits, _ = self.model.step(torch.tensor(ids, device=self._device), state)
        return self._logprobs.of(logits)


@dataclass(frozen=True)
class _TreeLayer(State):
    """One layer's cache for a step in which every row is a new node of the tree: what a `KVCache`
    is for rows of a batch."""

    layer: int
    groups: list[Group]
    lengths: Tensor  # (R,) ancestors of each row, which is its position
    new: tuple[Tensor, Tensor] | None = None  # keys and values of the new rows, (H, R, K)

    def append(self, keys_RH1K: Tensor, values_RH1K: Tensor, counts: None) -> Self:
        keys, values = keys_RH1K[:, :, 0].transpose(0, 1), values_RH1K[:, :, 0].transpose(0, 1)
        return replace(self, new=(keys, values))

    def attend(self, q_RH1K: Tensor, positions: Tensor, window: int) -> Tensor:
        assert self.new is not None, "append comes first"
        q_HRK = q_RH1K[:, :, 0].transpose(0, 1)
        seen = None if window < 0 else window + 1  # ours does not count the position itself
        out_HRK = attend(self.groups, self.layer, (q_HRK, *self.new), window=seen)
        return out_HRK.transpose(0, 1)[:, :, None]


class _Forked(ForkedLM):
    """A model with any other decode state."""

    def __init__(self, model: CausalModel[Any], bpe: BinaryBPE):
        vocab = _vocab(model)
        super().__init__(bpe.token_bytes, eos_ids={vocab.eos}, start_ids=[vocab.bos])
        self.model, self._logprobs = model, _Logprobs(model, bpe)

    def first(self, ids: list[int]) -> tuple[Any, Tensor]:
        device = self.model.device
        ids_BL, lengths_B = torch.tensor([ids], device=device), torch.tensor([len(ids)])
        logits, state = self.model.prefill(ids_BL, lengths_B.to(device), self.model.init_state(1))
        return state, self._logprobs.of(logits[0])

    def step(self, state: Any, rows: Tensor, ids: Tensor) -> tuple[Any, Tensor]:
        chosen = state.select(rows.to(self.model.device))
        logits, state = self.model.step(ids.to(self.model.device), chosen)
        return state, self._logprobs.of(logits)
