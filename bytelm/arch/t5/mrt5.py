"""MrT5 (Kallini et al., ICLR 2025, arXiv:2410.20771): a T5 whose encoder deletes positions.

A gate between two blocks of the encoder says which positions the later blocks and the decoder need.
In training, gate values are added to the scores of those as keys, so deletion is soft and can be
learned; the mean gate value is part of the loss, with a weight that a controller steers so that the
share of deleted positions is `rate`. Otherwise deletion is hard: what is left is packed together
and keeps its original distances, so time is really saved. Soft and hard differ by the gate values
of the survivors, which hard deletion drops unless `keep_gates`.

The other kinds of `deletion` are what MrT5 is compared with; they shorten in training too.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import ParameterRole
from bytelm.arch.t5.blocks import EncoderBlock
from bytelm.arch.t5.config import MrT5Config
from bytelm.arch.t5.model import T5, Encoded, hide
from bytelm.arch.t5.release import mrt5_settings, t5_settings
from bytelm.data.batch import Batch
from bytelm.nn.biased import mean_square_score
from bytelm.nn.controller import RateController
from bytelm.nn.deletion import (
    DeleteGate,
    FixedDeletion,
    RandomDeletion,
    Shortened,
    compact,
    valid_positions,
)
from bytelm.nn.merging import BoundaryMerge, ConvPool
from bytelm.nn.ranks import sum_over_ranks
from bytelm.vocab import Vocab

Shortener = DeleteGate | RandomDeletion | FixedDeletion | BoundaryMerge | ConvPool


class MrT5(T5):
    """T5 with a `shortener` in front of encoder block number `gate_layer`."""

    Config = MrT5Config
    added = ("shortener.", "controller.")

    def __init__(self, config: MrT5Config, vocab: Vocab):
        super().__init__(config, vocab)
        self.config: MrT5Config = config
        self.shortener = _shortener(config)
        self.controller: RateController | None = None
        if isinstance(self.shortener, DeleteGate):
            self.controller = RateController(
                target=config.rate, k_p=config.k_p, k_i=config.k_i, alpha=config.alpha
            )
        if isinstance(self.shortener, DeleteGate | BoundaryMerge) and not self._is_meta:
            self.shortener.reset_parameters()

    @property
    def _is_meta(self) -> bool:
        return self.lm_head.weight.is_meta

    @classmethod
    def release_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a ByT5 too: its gate is then that of our settings."""
        return mrt5_settings(config) if "deletion_type" in config else t5_settings(config)

    def after_step(self, stats: Mapping[str, float]) -> None:
        if self.controller is not None:
            self.controller.observe(stats["deleted"])

    @torch.no_grad()
    def deleted(self, source: Batch) -> Tensor:
        """(B, M) bool: which bytes of the sources hard deletion leaves out; all false for kinds
        that merge positions instead. Padding is false."""
        ids, lengths = self.ended(source)
        x, _ = self._read(ids, lengths)
        gone = valid_positions(ids.shape[1], lengths)
        short = self._shorten(x, ids, lengths, hard=True)
        if isinstance(self.shortener, BoundaryMerge | ConvPool):
            return torch.zeros_like(gone)[:, :-1]
        left = valid_positions(short.positions.shape[1], short.lengths)
        rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(left)
        gone[rows[left], short.positions[left]] = False
        return gone[:, :-1] & (ids[:, :-1] != self.vocab.eos)

    def _encode(self, source: Batch) -> Encoded:
        ids, lengths = self.ended(source)
        x, bias = self._read(ids, lengths)
        hard = not self.training or bool(torch.rand(()) < self.config.hard_share)
        short = self._shorten(x, ids, lengths, hard=hard)
        if short.x is not x:
            bias = hide(self.encoder_bias(short.positions, short.positions), short.lengths)
        if short.gates is not None:
            bias = bias + short.gates[:, None, None, :]
        x, aux = short.x, dict(short.aux)
        later = self._encoder_blocks()[self.config.gate_layer :]
        for block in later:
            if self.training and self.config.score_penalty:
                term = self._score_penalty(block, x, short.lengths) / len(later)
                aux["scores"] = aux.get("scores", 0.0) + term
            x = block(x, bias)
        stats: dict[str, Tensor | float] = {"deleted": short.deleted}
        if self.controller is not None:
            stats["alpha"] = self.controller.alpha
        return Encoded(self._memory(x, short.lengths, short.gates), aux, stats)

    def _read(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors in front of the shortener, and the bias of their scores."""
        x, bias = self._embed(ids), self._encoder_scores(lengths, ids.shape[1])
        for block in self._encoder_blocks()[: self.config.gate_layer]:
            x = block(x, bias)
        return x, bias

    def _shorten(self, x: Tensor, ids: Tensor, lengths: Tensor, *, hard: bool) -> Shortened:
        gate = self.shortener
        if not isinstance(gate, DeleteGate):
            return gate(x, ids, lengths)
        assert self.controller is not None, "a gate has a controller"
        logits = gate(x, noise=self.training and self.config.noise)
        gates, keep = gate.gates(logits), gate.kept(logits)
        valid = valid_positions(ids.shape[1], lengths)
        counts = sum_over_ranks(torch.stack([(valid & ~keep).sum(), valid.sum()]).float())
        deleted = (counts[0] / counts[1]).detach()
        aux = {}
        if self.training:
            mean = (gates * valid).sum() / valid.sum()
            aux["gate"] = self.controller.alpha.to(mean.dtype) * mean
        if not hard:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
            return Shortened(
                x=x, lengths=lengths, positions=positions, deleted=deleted, gates=gates, aux=aux
            )
        short = compact(x, keep, lengths)
        left = gates.gather(1, short.positions) if self.config.keep_gates else None
        return Shortened(
            x=short.x,
            lengths=short.lengths,
            positions=short.positions,
            deleted=deleted,
            gates=left,
            aux=aux,
        )

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name.startswith("shortener."):  # a row of weights is no matrix to make orthogonal
            return ParameterRole(kind="other", decay=parameter.ndim > 1)
        return super().parameter_role(name, parameter)

    def _score_penalty(self, block: EncoderBlock, x: Tensor, lengths: Tensor) -> Tensor:
        """The term of one block: scores that stay small beside `scale` leave the gate its say."""
        q, k, _ = block.attention.heads(block.norm1(x))
        valid = valid_positions(x.shape[1], lengths)
        return self.config.score_penalty * mean_square_score(q, k, valid)

    def flops_per_byte(self, context_bytes: int) -> float:
        """As of T5, with the sequence behind the shortener as long as it is meant to be."""
        c, left = self.config, 1 - self.config.expected_rate
        early = c.gate_layer * self._block_flops(context_bytes)
        late = (c.encoder_layers - c.gate_layer) * self._block_flops(left * context_bytes) * left
        return early + late + self._decoder_flops(context_bytes / 2, left * context_bytes)


def _shortener(config: MrT5Config) -> Shortener:
    """The module that `config.deletion` names."""
    D = config.d_model
    if config.deletion == "learned":
        return DeleteGate(D, scale=config.scale, threshold=config.threshold, norm=config.gate_norm)
    if config.deletion == "random":
        return RandomDeletion(config.rate)
    if config.deletion == "fixed":
        return FixedDeletion(config.rate)
    if config.deletion == "boundaries":
        return BoundaryMerge(D, hidden=config.feed_forward, rate=config.rate)
    return ConvPool(D, stride=config.stride)
