"""T5 1.1 over bytes, which is ByT5 (Xue et al. 2022): an encoder reads, a decoder writes.

Blocks are pre-norm with RMSNorm and gated GELU, without any linear bias; scores are not scaled and
positions enter only as a relative bias that all layers of a stack share; the head is not tied to
the table (Raffel et al. 2020; T5 1.1). The table has the 384 rows of the released ByT5s whatever
the vocabulary, so weights move freely between pre-training with sentinels and fine-tuning without.

Two things a reader may question. `encode` puts EOS behind every source, as ByT5's tokenizer does:
so an empty source is one position, and nobody forgets it. And the loss is taken over rows of the
table, because a sentinel shares its row with a byte (`nn.tables`); logits of the sentinels are
those of their rows too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.arch.base import ModelOutput, ParameterRole, Seq2SeqModel, causal_loss
from bytelm.arch.t5.blocks import EPS, DecoderBlock, EncoderBlock, reset_blocks
from bytelm.arch.t5.config import T5Config
from bytelm.arch.t5.release import from_release, t5_settings
from bytelm.data.batch import IGNORE, Batch
from bytelm.errors import BytelmError
from bytelm.nn.cache import KVCache
from bytelm.nn.linear import Linear
from bytelm.nn.memory import Memory
from bytelm.nn.norms import RMSNorm
from bytelm.nn.relative import RelativeBias
from bytelm.nn.segments import last_valid
from bytelm.nn.state import State
from bytelm.nn.tables import id_map
from bytelm.vocab import Vocab

_PACKED = "a row of a sequence-to-sequence batch is one pair: do not pack them"


@dataclass(frozen=True)
class T5Memory(State):
    """hidden: the encoder's output (B, M, D); gates: what is added to scores of its positions,
    (B, M, 1), 0 but for MrT5. Both have the same lengths."""

    hidden: Memory
    gates: Memory


@dataclass(frozen=True)
class T5State(State):
    """past: keys and values of the decoder's layers; read: those of the memory; gates as in
    `T5Memory`; length (B,): ids fed so far."""

    past: tuple[KVCache, ...]
    read: tuple[Memory, ...]
    gates: Memory
    length: Tensor


@dataclass(frozen=True)
class Encoded:
    """A memory, and what making it adds to losses and statistics."""

    memory: T5Memory
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)


class T5(Seq2SeqModel[T5State]):
    """One byte table, encoder blocks, decoder blocks, a final norm each, head."""

    Config = T5Config

    def __init__(self, config: T5Config, vocab: Vocab):
        super().__init__(config, vocab)
        self.config: T5Config = config
        self.ids = id_map("byt5", vocab)
        D = config.d_model
        self.embeddings = nn.Embedding(self.ids.rows, D)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.encoder_bias = self._bias(both_directions=True)
        self.encoder_norm = RMSNorm(D, eps=EPS)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.decoder_bias = self._bias(both_directions=False)
        self.decoder_norm = RMSNorm(D, eps=EPS)
        self.lm_head = Linear(D, self.ids.rows, bias=False)
        self.reset_parameters()

    def _bias(self, *, both_directions: bool) -> RelativeBias:
        return RelativeBias(
            self.config.heads,
            buckets=self.config.buckets,
            max_distance=self.config.max_distance,
            both_directions=both_directions,
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Table N(0, 1), head N(0, 0.02), position biases N(0, 1/D), blocks as `reset_blocks`."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        for bias in (self.encoder_bias, self.decoder_bias):
            nn.init.normal_(bias.weight, std=self.config.d_model**-0.5)
        reset_blocks(self)

    @classmethod
    def release_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return t5_settings(config)

    def release_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return from_release(self.config, state)

    def forward(self, batch: Batch) -> ModelOutput:
        if batch.document_ids is not None:
            raise BytelmError(_PACKED)
        encoded = self._encode(self.source_of(batch))
        memory = encoded.memory
        positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)[None]
        bias = self._decoder_scores(positions, positions)
        read_bias = key_bias(memory.gates)
        x = self._embed(batch.ids)
        for block in self._decoder_blocks():
            x = block(x, bias, block.cross.read(memory.hidden), read_bias)
        rows = self._head(x)
        loss = None
        if (targets := batch.targets) is not None:
            wanted = self.ids.rows_of(targets.masked_fill(targets == IGNORE, self.ids.pad))
            loss = causal_loss(rows, wanted.masked_fill(targets == IGNORE, IGNORE))
        return ModelOutput(
            logits=self.ids.logits_of(rows), loss=loss, aux=encoded.aux, stats=encoded.stats
        )

    def encode(self, source: Batch) -> T5Memory:
        return self._encode(source).memory

    def _encode(self, source: Batch) -> Encoded:
        """The memory of the sources."""
        ids, lengths = self.ended(source)
        x, bias = self._embed(ids), self._encoder_scores(lengths, ids.shape[1])
        for block in self._encoder_blocks():
            x = block(x, bias)
        return Encoded(self._memory(x, lengths, None))

    def ended(self, source: Batch) -> tuple[Tensor, Tensor]:
        """The source with EOS behind each row: ids (B, M + 1) and lengths (B,) in positions."""
        if source.document_ids is not None:
            raise BytelmError(_PACKED)
        ids, lengths = source.ids, source.lengths
        if lengths is None:
            lengths = torch.full_like(ids[:, 0], ids.shape[1])
        ids = F.pad(ids, (0, 1))
        at = torch.arange(ids.shape[1], device=ids.device)
        ids = torch.where(at < lengths[:, None], ids, self.vocab.pad)
        return torch.where(at == lengths[:, None], self.vocab.eos, ids), lengths + 1

    def init_state(self, memory: T5Memory) -> T5State:
        blocks, lengths = self._decoder_blocks(), memory.hidden.lengths
        return T5State(
            past=tuple(block.attention.init_state(len(lengths)) for block in blocks),
            read=tuple(block.cross.read(memory.hidden) for block in blocks),
            gates=memory.gates,
            length=torch.zeros_like(lengths),
        )

    def prefill(self, ids: Tensor, lengths: Tensor, state: T5State) -> tuple[Tensor, T5State]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(ids, counts, state)
        return self.ids.logits_of(self._head(last_valid(x, counts))), state

    def extend(self, ids: Tensor, lengths: Tensor, state: T5State) -> tuple[Tensor, T5State]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(ids, counts, state)
        return self.ids.logits_of(self._head(x)), state

    def step(self, ids: Tensor, state: T5State) -> tuple[Tensor, T5State]:
        x, state = self._extend(ids[:, None], None, state)
        return self.ids.logits_of(self._head(x[:, 0])), state

    def flops_per_byte(self, context_bytes: int) -> float:
        """Forward operations per byte of the target, with a source of `context_bytes`: those of
        the decoder, and of the encoder once per source byte."""
        c = self.config
        encoder = [self._block_flops(context_bytes)] * c.encoder_layers
        return sum(encoder) + self._decoder_flops(context_bytes / 2, context_bytes)

    def _block_flops(self, seen: float) -> float:
        """Of self-attention to `seen` positions and a feed-forward net."""
        D, inner = self.config.d_model, self.config.attention.inner
        return 8 * D * inner + 4 * inner * seen + 6 * D * self.config.feed_forward

    def _decoder_flops(self, seen: float, memory: float) -> float:
        """Of the decoder and the head, with `memory` positions per target byte to read from."""
        D, inner = self.config.d_model, self.config.attention.inner
        cross = 8 * D * inner + 4 * inner * memory
        return self.config.decoder_layers * (self._block_flops(seen) + cross) + (
            2.0 * D * self.ids.rows
        )

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight" or name in ("encoder_bias.weight", "decoder_bias.weight"):
            return ParameterRole(kind="embedding", decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)

    def _extend(self, ids: Tensor, counts: Tensor | None, state: T5State) -> tuple[Tensor, T5State]:
        """Feed counts[b] (None = L) more ids (B, L) of each row; -> (vectors (B, L, D), state)."""
        L = ids.shape[1]
        length = state.length + (L if counts is None else counts)
        queries = state.length[:, None] + torch.arange(L, device=ids.device)
        keys = torch.arange(int(length.max()), device=ids.device)[None]
        bias, read_bias = self._decoder_scores(queries, keys), key_bias(state.gates)
        x, past = self._embed(ids), []
        for block, before, read in zip(self._decoder_blocks(), state.past, state.read, strict=True):
            x, after = block.extend(x, counts, before, bias, read, read_bias)
            past.append(after)
        return x, T5State(tuple(past), state.read, state.gates, length)

    def _embed(self, ids: Tensor) -> Tensor:
        x = self.embeddings(self.ids.rows_of(ids))
        if x.dtype == torch.float16 or _autocasts_to_float16(x.device):
            raise BytelmError(
                "T5 cannot run in float16: its unscaled activations grow beyond 65,504, the "
                "largest number of that format, and become infinite. Use bfloat16 or float32"
            )
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _encoder_scores(self, lengths: Tensor, width: int) -> Tensor:
        """What is added to the encoder's scores: position bias (B or 1, H, M, M), with the padding
        hidden where there is any."""
        positions = torch.arange(width, device=lengths.device)[None]
        return hide(self.encoder_bias(positions, positions), lengths)

    def _decoder_scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Position bias (B or 1, H, L, S) in which later keys are hidden."""
        later = keys[:, None, None, :] > queries[:, None, :, None]
        return self.decoder_bias(queries, keys).masked_fill(later, -torch.inf)

    def _memory(self, x_BMD: Tensor, lengths: Tensor, gates_BM: Tensor | None) -> T5Memory:
        """The memory of the last block's output; no gates are gates of 0."""
        gates = x_BMD.new_zeros(x_BMD.shape[:2]) if gates_BM is None else gates_BM
        hidden = Memory(self.encoder_norm(x_BMD), lengths)
        return T5Memory(hidden, Memory(gates[..., None], lengths))

    def _encoder_blocks(self) -> list[EncoderBlock]:
        return [block for block in self.encoder if isinstance(block, EncoderBlock)]

    def _decoder_blocks(self) -> list[DecoderBlock]:
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def _head(self, x: Tensor) -> Tensor:
        """Logits of the rows of the table."""
        rows = self.lm_head(self.decoder_norm(x))
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def key_bias(gates: Memory) -> Tensor:
    """(B, 1, 1, M): the gates of a memory's positions, padding hidden."""
    return gates.values[..., 0].masked_fill(~gates.valid, -torch.inf)[:, None, None]


def hide(bias: Tensor, lengths: Tensor) -> Tensor:
    """A bias (B or 1, H, L, M) in which keys beyond lengths (B,) are hidden, if there are any."""
    valid = torch.arange(bias.shape[-1], device=lengths.device) < lengths[:, None]
    if bool(valid.all()):
        return bias
    return bias.masked_fill(~valid[:, None, None], -torch.inf)


def _autocasts_to_float16(device: torch.device) -> bool:
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
