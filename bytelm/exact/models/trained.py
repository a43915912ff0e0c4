"""Our own models over the ids of a Binary BPE as `TokenLM`s.

Transformers keep a tree of keys and values, so nothing is copied per byte; other architectures are
read by copies of their state. Of the ids, only tokens with bytes and the end are normalised,
because no other symbol can follow in a text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, CausalModel
from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact.models.forked import ForkedLM
from bytelm.exact.models.tree_attention import Group, attend
from bytelm.exact.models.tree_lm import TreeLM, depths
from bytelm.nn.cache import KVCache
from bytelm.nn.stack import StackState
from bytelm.nn.state import State
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.vocabulary import token_vocab
from bytelm.vocab import TokenVocab


def check_tokenizer(vocab: TokenVocab, bpe: BinaryBPE) -> None:
    """`CheckpointError` unless `bpe` is what a model with this vocabulary was trained on."""
    if token_vocab(bpe) != vocab:
        raise CheckpointError(
            f"the tokenizer ({bpe.vocab_size} ids) is not the one that this model ({vocab.size} "
            "ids) was trained with: their hashes differ"
        )


def trained_lm(model: CausalModel[Any], bpe: BinaryBPE) -> TreeLM | ForkedLM:
    """The model as a `TokenLM`: with a tree of keys and values if its state is nothing else.

    `BytelmError` for a model over bytes, `CheckpointError` for another model's tokenizer.
    """
    check_tokenizer(token_vocab_of(model), bpe)
    state = model.init_state(1)
    attention = isinstance(state, StackState) and all(
        isinstance(layer, KVCache) for layer in state.layers
    )
    return (_Tree if attention else _Forked)(model, bpe)


def token_vocab_of(model: ByteModel) -> TokenVocab:
    """The model's vocabulary; `BytelmError` if it is one over bytes."""
    if not isinstance(model.vocab, TokenVocab):
        raise BytelmError(f"this {type(model).__name__} reads bytes, not tokens")
    return model.vocab


def text_bias(bpe: BinaryBPE, vocab: TokenVocab, like: Tensor) -> Tensor:
    """(V,) 0 for tokens with bytes and the end, -inf for all that no text has."""
    barred = [data is None for data in bpe.token_bytes]
    barred[vocab.eos] = False
    bias = torch.zeros(vocab.size, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(torch.tensor(barred, device=like.device), -torch.inf)


class _Logprobs:
    """What both adapters know of their model."""

    def __init__(self, model: CausalModel[Any], bpe: BinaryBPE):
        self.model = model
        self._bias = text_bias(
            bpe, token_vocab_of(model), next(model.parameters()).detach().float()
        )

    def of(self, logits: Tensor) -> Tensor:
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return (exact + self._bias).log_softmax(-1)


class _Tree(TreeLM):
    """A model whose decode state is keys and values alone."""

    def __init__(self, model: CausalModel[Any], bpe: BinaryBPE):
        vocab = token_vocab_of(model)
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
        vocab = token_vocab_of(model)
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
