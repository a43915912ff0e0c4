"""A flat byte-level Transformer: the baseline every hierarchical model has to beat.

RMSNorm, rotary positions, SwiGLU, no biases, untied head; queries and keys are normalised by
default. With `window` it is the sliding-window byte model that most papers leave out: attention
cost then grows with the window instead of the context. It shares its layers with the T blocks of
H-Net (`bytelm.nn.stack`) and is that stack with a byte table and a head.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bytelm.arch.base import ArchConfig, CausalModel, ModelOutput, ParameterRole, causal_loss
from bytelm.data.batch import Batch
from bytelm.nn.attention import AttentionOptions
from bytelm.nn.mamba2 import SSMOptions
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackOptions, StackState, stack_flops
from bytelm.vocab import Vocab


class TransformerConfig(ArchConfig):
    """layers, width d_model, heads, SwiGLU width hidden (0 = 8/3 d_model rounded up to 64),
    rotary_dim channels a head (0 = all of them), window of earlier bytes (-1 = all), qk_norm."""

    layers: int = Field(6, ge=1)
    d_model: int = Field(256, ge=2)
    heads: int = Field(4, ge=1)
    hidden: int = Field(0, ge=0)
    rotary_dim: int = Field(0, ge=0)
    window: int = Field(-1, ge=-1)
    qk_norm: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerConfig":
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            raise ValueError(f"d_model {self.d_model} must be {self.heads} heads of even width")
        if self.rotary_dim % 2 or self.rotary_dim > self.d_model // self.heads:
            raise ValueError(f"rotary_dim {self.rotary_dim} must be even and fit a head")
        return self

    def stack_options(self) -> StackOptions:
        return StackOptions(
            dim=self.d_model,
            hidden=self.hidden or -(-self.d_model * 8 // 3 // 64) * 64,
            attention=AttentionOptions(
                heads=self.heads,
                rotary_dim=self.rotary_dim or self.d_model // self.heads,
                window=self.window,
                qk_norm=self.qk_norm,
            ),
            ssm=SSMOptions(),
        )


class Transformer(CausalModel[StackState]):
    """Byte table, `layers` pre-norm blocks, final norm, head."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig, vocab: Vocab):
        super().__init__(config, vocab)
        self.config: TransformerConfig = config
        self.embeddings = nn.Embedding(vocab.size, config.d_model)
        self.backbone = Stack(f"T{config.layers}", config.stack_options())
        self.lm_head = nn.Linear(config.d_model, vocab.size, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Embedding N(0, 1), head N(0, 0.02), linears as `Stack.reset_linears`."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.backbone.reset_linears(self.backbone.height)

    def forward(self, batch: Batch) -> ModelOutput:
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        logits = self._head(self.backbone(self.embeddings(batch.ids), segments))
        return ModelOutput(logits=logits, loss=causal_loss(logits, batch.targets))

    def init_state(self, batch_size: int) -> StackState:
        return self.backbone.init_state(batch_size)

    def prefill(self, ids: Tensor, lengths: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        x, state = self.backbone.extend(self.embeddings(ids), lengths, state)
        at = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])
        return self._head(x.gather(1, at).squeeze(1)), state

    def step(self, ids: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        x, state = self.backbone.extend(self.embeddings(ids)[:, None], None, state)
        return self._head(x[:, 0]), state

    def flops_per_byte(self, context_bytes: int) -> float:
        body = stack_flops(f"T{self.config.layers}", self.config.stack_options(), context_bytes)
        return body + 2.0 * self.config.d_model * self.vocab.size

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)

    def _head(self, x: Tensor) -> Tensor:
        logits = self.lm_head(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
