"""A flat byte-level Transformer: the baseline every hierarchical model has to beat.

RMSNorm, rotary positions, SwiGLU, no biases, untied head; queries and keys are normalised by
default. With `window` it is the sliding-window byte model that most papers leave out: attention
cost then grows with the window instead of the context. It shares its layers with the T blocks of
H-Net (`bytelm.nn.stack`): it is that stack between a byte table and a head (`arch/backbone.py`).
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from bytelm.arch.backbone import BackboneModel, BodyOutput, NGramConfig
from bytelm.data.batch import Batch
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackOptions, StackState, stack_flops
from bytelm.nn.stepping.stack import StackSteps
from bytelm.nn.tables import id_map
from bytelm.vocab import Vocab


class TransformerConfig(NGramConfig):
    """Sizes of a flat Transformer."""

    layers: int = Field(6, ge=1, description="blocks of attention and SwiGLU")
    d_model: int = Field(256, ge=2, description="width of the residual stream")
    heads: int = Field(4, ge=1, description="attention heads; each has an even number of channels")
    hidden: int = Field(0, ge=0, description="SwiGLU width; 0 = 8/3 d_model rounded up to 64")
    rotary_dim: int = Field(0, ge=0, description="channels per head that rotate; 0 = all")
    conv: int = Field(
        0, ge=0, description="width of a short convolution before each block, 2 or more; 0 = none"
    )
    window: int = Field(-1, ge=-1, description="earlier bytes each byte sees; -1 = all")
    qk_norm: bool = Field(True, description="unit-RMS queries and keys")
    rotary_base: float = Field(10_000.0, gt=0, description="base of the rotary frequencies")
    table: Literal["own", "blt"] = Field(
        "own",
        description="rows of the byte table: own, or those of the released BLTs, which the patcher "
        "of a model for export to transformers needs",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerConfig":
        if self.conv == 1:
            raise ValueError("conv = 1 mixes nothing: it must be 0 or at least 2")
        self.stack_options()
        return self

    def stack_options(self) -> StackOptions:
        """What the stack of blocks is built with."""
        return StackOptions.transformer(
            self.d_model,
            heads=self.heads,
            hidden=self.hidden,
            rotary_dim=self.rotary_dim,
            window=self.window,
            qk_norm=self.qk_norm,
            conv=self.conv,
            base=self.rotary_base,
        )

    @property
    def layout(self) -> str:
        """The stack in the layout language."""
        return "c1T1" * self.layers if self.conv else f"T{self.layers}"


class Transformer(BackboneModel[StackState]):
    """Byte table, `layers` pre-norm blocks, final norm, head."""

    Config = TransformerConfig
    config: TransformerConfig
    backbone: Stack

    def __init__(self, config: TransformerConfig, vocab: Vocab):
        super().__init__(
            config,
            vocab,
            dim=config.d_model,
            make_body=lambda: Stack(config.layout, config.stack_options()),
            ids=id_map(config.table, vocab),
        )

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        return BodyOutput(x=self.backbone(x_BLD, segments))

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: StackState, batch: Batch
    ) -> tuple[Tensor, StackState]:
        return self.backbone.extend(x_BLD, counts, state)

    def body_steps(self, state: StackState, rows: int, *, compiled: bool) -> StackSteps:
        return StackSteps(self.backbone, state, rows, compiled=compiled)

    def init_body(self, batch_size: int) -> StackState:
        return self.backbone.init_state(batch_size)

    def reset_body(self) -> None:
        self.backbone.reset_linears(self.backbone.height)

    def body_flops(self, context_bytes: int) -> float:
        return stack_flops(self.config.layout, self.config.stack_options(), context_bytes)
