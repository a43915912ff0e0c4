"""A byte-level Transformer encoder that classifies whole rows: formats, languages, labels.

The layers are those of the causal Transformer (`bytelm.nn.stack`) with attention in both
directions; padding is hidden from it (and cut off where no row reaches, so that more of it gives
bit-identical results), a row's vectors are averaged over its own positions, and one linear layer
gives the classes. An average instead of a special first symbol, because every position
then gets a gradient from the first step on, and because it works for rows of any length, down to
none: a row without a byte has the mean 0, and its classes are those of the head's bias.
"""

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bytelm.arch.base import (
    ArchConfig,
    EncoderModel,
    ModelOutput,
    ParameterRole,
    label_loss,
    require_labels,
)
from bytelm.data.batch import Batch
from bytelm.nn.linear import Linear
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackOptions, stack_flops
from bytelm.vocab import Vocab


class EncoderConfig(ArchConfig):
    """Size and shape of the encoder."""

    layers: int = Field(4, ge=1, description="blocks of attention and SwiGLU")
    d_model: int = Field(128, ge=2, description="width D of the vectors")
    heads: int = Field(4, ge=1, description="attention heads per layer")
    hidden: int = Field(
        0, ge=0, description="width of the SwiGLU; 0 = 8/3 d_model rounded up to 64"
    )
    window: int = Field(-1, ge=-1, description="positions in view on either side; -1 = all")
    qk_norm: bool = Field(True, description="whether queries and keys are normalised")

    @model_validator(mode="after")
    def _consistent(self) -> "EncoderConfig":
        self.stack_options()
        return self

    def stack_options(self) -> StackOptions:
        """The settings of the blocks."""
        return StackOptions.transformer(
            self.d_model,
            heads=self.heads,
            hidden=self.hidden,
            window=self.window,
            qk_norm=self.qk_norm,
            causal=False,
        )


class Encoder(EncoderModel):
    """Byte table, `layers` pre-norm blocks, final norm, mean over the row, head."""

    Config = EncoderConfig

    def __init__(self, config: EncoderConfig, vocab: Vocab, *, labels: Sequence[str] = ()):
        super().__init__(config, vocab, labels=require_labels(labels))
        self.config: EncoderConfig = config
        self.embeddings = nn.Embedding(vocab.size, config.d_model)
        self.backbone = Stack(f"T{config.layers}", config.stack_options())
        self.head = Linear(config.d_model, len(self.labels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Embedding N(0, 1), head N(0, 0.02) without bias, linears as `Stack.reset_linears`."""
        if self.head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.backbone.reset_linears(self.backbone.height)

    def forward(self, batch: Batch) -> ModelOutput:
        batch = batch.trimmed()
        logits = self.head(mean_of_rows(self.representations(batch), batch.mask()))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return ModelOutput(logits=logits, loss=label_loss(logits, batch.labels))

    def representations(self, batch: Batch) -> Tensor:
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        return self.backbone(self.embeddings(batch.ids), segments)

    def flops_per_byte(self, context_bytes: int) -> float:
        return stack_flops(f"T{self.config.layers}", self.config.stack_options(), context_bytes)

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name == "head.weight":
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)


def mean_of_rows(x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    """(B, D) mean of each row's valid positions (None = all of them); 0 for a row without any."""
    if valid_BL is None:
        return x_BLD.mean(dim=1)
    counts_B1 = valid_BL.sum(dim=1, keepdim=True).clamp(min=1)
    return x_BLD.masked_fill(~valid_BL[..., None], 0.0).sum(dim=1) / counts_B1
