"""A tiny byte encoder-decoder: an encoder reads the source in both directions, a decoder writes.

Both halves are pre-norm Transformers over one byte table (Vaswani et al. 2017, with RMSNorm, SwiGLU
and no biases); each decoder block is causal self-attention, attention to the encoder's memory, then
SwiGLU. Self-attention has rotary positions. Attention to the memory has none of its own: each half
adds sinusoids of the absolute position to its input, and the encoder's run backwards from the end
of the source in one half of the channels, so that "the same place" and "the same place counted from
the end" are both a matter of one inner product.

Decoding keeps the decoder's keys and values, and the memory's, which every layer reads once per
source (`nn.memory`). Both are immutable and can be selected and joined by row.
"""

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bytelm.arch.base import ArchConfig, ModelOutput, ParameterRole, Seq2SeqModel, causal_loss
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.attention import CrossAttention, SelfAttention
from bytelm.nn.cache import KVCache
from bytelm.nn.linear import Linear
from bytelm.nn.memory import Memory
from bytelm.nn.mlp import SwiGLU
from bytelm.nn.norms import RMSNorm
from bytelm.nn.rope import rotary_tables
from bytelm.nn.segments import Segments, last_valid
from bytelm.nn.stack import Stack, StackOptions, reset_linears, stack_flops
from bytelm.nn.state import State
from bytelm.vocab import Vocab


class EncDecConfig(ArchConfig):
    """Size and shape of both halves."""

    encoder_layers: int = Field(2, ge=1, description="blocks of the encoder")
    decoder_layers: int = Field(2, ge=1, description="blocks of the decoder")
    d_model: int = Field(128, ge=4, description="width D of the vectors of both halves")
    heads: int = Field(4, ge=1, description="attention heads per layer")
    hidden: int = Field(
        0, ge=0, description="width of the SwiGLUs; 0 = 8/3 d_model rounded up to 64"
    )
    qk_norm: bool = Field(False, description="whether queries and keys are normalised")

    @model_validator(mode="after")
    def _consistent(self) -> "EncDecConfig":
        if self.d_model % 4:
            raise ValueError(f"d_model {self.d_model} must be a multiple of 4")
        self.stack_options(causal=True)
        return self

    def stack_options(self, *, causal: bool) -> StackOptions:
        """The settings of the blocks of one half."""
        return StackOptions.transformer(
            self.d_model,
            heads=self.heads,
            hidden=self.hidden,
            qk_norm=self.qk_norm,
            causal=causal,
        )


@dataclass(frozen=True)
class EncDecState(State):
    """past: keys and values of the decoder's layers; read: those of the memory; length (B,): ids
    fed so far."""

    past: tuple[KVCache, ...]
    read: tuple[Memory, ...]
    length: Tensor


class DecoderBlock(nn.Module):
    """x + self(norm1 x), then + cross(norm2 x), then + mlp(norm3 x)."""

    def __init__(self, options: StackOptions):
        super().__init__()
        self.norm1 = RMSNorm(options.dim, eps=options.eps)
        self.attention = SelfAttention(options.dim, options.attention)
        self.norm2 = RMSNorm(options.dim, eps=options.eps)
        self.cross = CrossAttention(options.dim, options.attention)
        self.norm3 = RMSNorm(options.dim, eps=options.eps)
        self.mlp = SwiGLU(options.dim, options.hidden)

    def forward(self, x_BLD: Tensor, segments: Segments, read: Memory) -> Tensor:
        x = x_BLD + self.attention(self.norm1(x_BLD), segments)
        return self._after(x, read)

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, past: KVCache, read: Memory
    ) -> tuple[Tensor, KVCache]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), cache)."""
        mixed, past = self.attention.extend(self.norm1(x_BLD), counts, past)
        return self._after(x_BLD + mixed, read), past

    def _after(self, x: Tensor, read: Memory) -> Tensor:
        x = x + self.cross(self.norm2(x), read)
        return x + self.mlp(self.norm3(x))


class EncDec(Seq2SeqModel[EncDecState]):
    """One byte table, encoder stack, decoder blocks, final norm, head."""

    Config = EncDecConfig

    def __init__(self, config: EncDecConfig, vocab: Vocab):
        super().__init__(config, vocab)
        self.config: EncDecConfig = config
        self.embeddings = nn.Embedding(vocab.size, config.d_model)
        self.encoder = Stack(f"T{config.encoder_layers}", config.stack_options(causal=False))
        options = config.stack_options(causal=True)
        self.decoder = nn.ModuleList(DecoderBlock(options) for _ in range(config.decoder_layers))
        self.norm = RMSNorm(config.d_model)
        self.lm_head = Linear(config.d_model, vocab.size, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Embedding N(0, 1), head N(0, 0.02), linears as `reset_linears` in both halves."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.encoder.reset_linears(self.encoder.height)
        reset_linears(self.decoder, 3 * self.config.decoder_layers)

    def forward(self, batch: Batch) -> ModelOutput:
        if batch.document_ids is not None:
            raise BytelmError("a row of a sequence-to-sequence batch is one pair: do not pack them")
        memory = self.encode(self.source_of(batch))
        segments = Segments(batch.ids.shape[1], batch.lengths)
        x = self._embed(batch.ids, segments.positions(batch.ids.device))
        for block in self._blocks():
            x = block(x, segments, block.cross.read(memory))
        logits = self._head(x)
        return ModelOutput(logits=logits, loss=causal_loss(logits, batch.targets))

    def encode(self, source: Batch) -> Memory:
        if source.document_ids is not None:
            raise BytelmError("a row of a sequence-to-sequence batch is one pair: do not pack them")
        (B, M), device = source.ids.shape, source.ids.device
        lengths = source.lengths
        if lengths is None:
            lengths = torch.full((B,), M, dtype=torch.long, device=device)
        segments = Segments(M, source.lengths)
        forwards = segments.positions(device)
        x = self.embeddings(source.ids) + self._places(forwards, lengths[:, None] - 1 - forwards)
        return Memory(self.encoder(x, segments), lengths)

    def init_state(self, memory: Memory) -> EncDecState:
        return EncDecState(
            past=tuple(block.attention.init_state(len(memory.lengths)) for block in self._blocks()),
            read=tuple(block.cross.read(memory) for block in self._blocks()),
            length=torch.zeros_like(memory.lengths),
        )

    def prefill(
        self, ids: Tensor, lengths: Tensor, state: EncDecState
    ) -> tuple[Tensor, EncDecState]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(ids, counts, state)
        return self._head(last_valid(x, counts)), state

    def extend(
        self, ids: Tensor, lengths: Tensor, state: EncDecState
    ) -> tuple[Tensor, EncDecState]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(ids, counts, state)
        return self._head(x), state

    def step(self, ids: Tensor, state: EncDecState) -> tuple[Tensor, EncDecState]:
        x, state = self._extend(ids[:, None], None, state)
        return self._head(x[:, 0]), state

    def flops_per_byte(self, context_bytes: int) -> float:
        """Forward operations per byte of the target, with a source of `context_bytes`: those of
        the decoder, and of the encoder once per source byte."""
        config = self.config
        encoder, decoder = (config.stack_options(causal=causal) for causal in (False, True))
        D = config.d_model
        cross = 8 * D * D + 4 * D * context_bytes
        return (
            stack_flops(f"T{config.encoder_layers}", encoder, context_bytes)
            + stack_flops(f"T{config.decoder_layers}", decoder, context_bytes)
            + cross * config.decoder_layers
            + 2.0 * D * self.vocab.size
        )

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)

    def _extend(
        self, ids: Tensor, counts: Tensor | None, state: EncDecState
    ) -> tuple[Tensor, EncDecState]:
        """Feed counts[b] (None = L) more ids (B, L) of each row; -> (vectors (B, L, D), state)."""
        L = ids.shape[1]
        x = self._embed(ids, state.length[:, None] + torch.arange(L, device=ids.device))
        past = []
        for block, before, read in zip(self._blocks(), state.past, state.read, strict=True):
            x, after = block.extend(x, counts, before, read)
            past.append(after)
        length = state.length + (L if counts is None else counts)
        return x, EncDecState(tuple(past), state.read, length)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Vectors of the decoder's ids (B, L) at these positions."""
        return self.embeddings(ids) + self._places(positions, positions)

    def _places(self, first: Tensor, second: Tensor) -> Tensor:
        """Sinusoids (..., L, D) of two kinds of position, half of the channels each."""
        both = torch.broadcast_tensors(first, second)
        return torch.cat([self._sinusoids(positions) for positions in both], dim=-1)

    def _sinusoids(self, positions: Tensor) -> Tensor:
        dtype, half = self.embeddings.weight.dtype, self.config.d_model // 2
        cos, sin = rotary_tables(positions, half, base=10_000.0, dtype=dtype)
        return torch.cat((cos, sin), dim=-1)

    def _blocks(self) -> list[DecoderBlock]:
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def _head(self, x: Tensor) -> Tensor:
        logits = self.lm_head(self.norm(x))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
