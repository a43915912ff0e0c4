"""Settings of T5 and of MrT5."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from bytelm.arch.base import ArchConfig, Idle
from bytelm.nn.biased import BiasedOptions

Deletion = Literal["learned", "random", "fixed", "boundaries", "pooling"]


class T5Config(ArchConfig):
    """Size and shape of both halves."""

    encoder_layers: int = Field(2, ge=1, description="blocks of the encoder")
    decoder_layers: int = Field(2, ge=1, description="blocks of the decoder")
    d_model: int = Field(128, ge=1, description="width D of the vectors of both halves")
    heads: int = Field(4, ge=1, description="attention heads per layer")
    head_dim: int = Field(0, ge=0, description="width of a head; 0 = d_model / heads")
    hidden: int = Field(
        0, ge=0, description="width of the feed-forward nets; 0 = 8/3 d_model rounded up to 64"
    )
    buckets: int = Field(32, ge=4, multiple_of=4, description="of relative distances")
    max_distance: int = Field(128, ge=2, description="from which distances share the last bucket")
    softmax1: bool = Field(
        False, description="whether attention may look at nothing: exp(s) / (1 + sum exp(s))"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "T5Config":
        if not self.head_dim and self.d_model % self.heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of heads {self.heads}: set head_dim"
            )
        if self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"max_distance {self.max_distance} must be above half of buckets ({self.buckets})"
            )
        return self

    @property
    def attention(self) -> BiasedOptions:
        """The settings of every attention layer."""
        width = self.head_dim or self.d_model // self.heads
        return BiasedOptions(heads=self.heads, head_dim=width, softmax1=self.softmax1)

    @property
    def feed_forward(self) -> int:
        """Width of the feed-forward nets."""
        return self.hidden or -(-self.d_model * 8 // 3 // 64) * 64


class MrT5Config(T5Config):
    """Those of T5, and how the encoder shortens its sequence.

    `learned` is MrT5 (Kallini et al. 2025, arXiv:2410.20771, section 3); the others are what it is
    compared with. k_p and k_i are the controller's gains per optimizer step.
    """

    gate_layer: int = Field(1, ge=1, description="blocks of the encoder before the shortening")
    deletion: Deletion = Field(
        "learned",
        description="learned: MrT5's gate; random, fixed: positions chosen without learning; "
        "boundaries: learned segments, averaged; pooling: strided convolution",
    )
    rate: float = Field(0.5, gt=0, lt=1, description="share of the positions to delete")
    stride: int = Field(2, ge=2, description="positions that pooling makes one")
    scale: float = Field(-30.0, lt=0, description="gate value of a deleted position (k)")
    threshold: float = Field(
        0.5, gt=0, lt=1, description="share of `scale` beyond which a position is deleted"
    )
    gate_norm: bool = Field(True, description="whether the gate reads normalised vectors")
    k_p: float = Field(0.5, ge=0, description="proportional gain of the controller of the rate")
    k_i: float = Field(1e-5, ge=0, description="integral gain of the controller of the rate")
    alpha: float = Field(0.0, ge=0, description="weight of the gate's loss at the beginning")
    hard_share: float = Field(
        0.0, ge=0, le=1, description="share of training batches in which deletion is hard"
    )
    noise: bool = Field(False, description="Gumbel noise on the gate's logits in training")
    score_penalty: float = Field(
        0.0, ge=0, description="weight of the mean squared attention score behind the gate"
    )
    keep_gates: bool = Field(
        False, description="whether survivors keep their gate values where deletion is hard"
    )

    @model_validator(mode="after")
    def _gate_fits(self) -> "MrT5Config":
        if self.gate_layer >= self.encoder_layers:
            raise ValueError(
                f"gate_layer {self.gate_layer} must be below encoder_layers "
                f"({self.encoder_layers}): behind the last block there is nothing to save"
            )
        return self

    @property
    def expected_rate(self) -> float:
        """The share of positions that is meant to go."""
        return 1 - 1 / self.stride if self.deletion == "pooling" else self.rate

    def idle(self) -> Iterator[Idle]:
        """Settings of another kind of deletion."""
        if self.deletion != "learned":
            gate = ("scale", "threshold", "gate_norm", "k_p", "k_i", "alpha", "hard_share")
            for name in (*gate, "noise", "score_penalty", "keep_gates"):
                yield Idle(setting=name, why="only deletion = 'learned' has a gate")
        elif not self.k_p and not self.k_i:
            yield Idle(setting="rate", why="k_p and k_i are 0, so nothing steers towards it")
        if self.deletion == "pooling":
            yield Idle(setting="rate", why="stride says how much pooling deletes")
        else:
            yield Idle(setting="stride", why="only deletion = 'pooling' has strides")
