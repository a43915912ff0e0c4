"""Isotropic stacks written in H-Net's layout language, e.g. "m4", "T22", "T1m4".

Letters: m = Mamba-2, M = Mamba-2 + SwiGLU, t = attention, T = attention + SwiGLU, c = a short
convolution alone, C = the same + SwiGLU; the number is a repeat count. Blocks are pre-norm on a
residual stream kept in float32 or better, and every stack ends in its own RMSNorm (H-Net section
2.3: without it the deep main network drowns the residual path). Names of parameters are those of
the released checkpoints.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.errors import BytelmError
from bytelm.nn.attention import AttentionOptions, SelfAttention
from bytelm.nn.mamba2 import Mamba2, SSMOptions
from bytelm.nn.mlp import SwiGLU
from bytelm.nn.norms import RMSNorm
from bytelm.nn.segments import Segments
from bytelm.nn.short_conv import ShortConv
from bytelm.nn.state import State

_RUN = re.compile(r"([mMtTcC])(\d+)")


def parse_layout(layout: str) -> str:
    """One letter per layer: "T1m4" -> "Tmmmm". `BytelmError` if the layout is not well formed.

    >>> parse_layout("T1m2")
    'Tmm'
    """
    letters = "".join(letter * int(count) for letter, count in _RUN.findall(layout))
    if not layout or _RUN.sub("", layout) or not letters:
        raise BytelmError(
            f"layout {layout!r} is not a run of letter+count with letters m, M, t, T, c, C "
            "(m Mamba-2, t attention, c short convolution; upper case adds SwiGLU), such as 'm4' "
            "or 'T1m4'"
        )
    return letters


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """Width D, SwiGLU width (0 = none allowed), and what the two kinds of mixer need."""

    dim: int
    hidden: int
    attention: AttentionOptions
    ssm: SSMOptions
    eps: float = 1e-5

    @classmethod
    def transformer(
        cls,
        dim: int,
        *,
        heads: int,
        hidden: int = 0,
        rotary_dim: int = 0,
        window: int = -1,
        qk_norm: bool = True,
        causal: bool = True,
        conv: int = 0,
        base: float = 10_000.0,
    ) -> "StackOptions":
        """Of a stack of T (and c) layers: rotary positions on `rotary_dim` channels per head (0 =
        all), SwiGLU of width `hidden` (0 = 8/3 dim, rounded up to a multiple of 64). conv: width of
        the convolutions of c layers, if there are any; base: of the rotary frequencies.

        `ValueError` if `dim` is not `heads` heads of even width, or the rotation does not fit one.
        """
        width = dim // heads
        if dim % heads or width % 2:
            raise ValueError(f"d_model {dim} must be {heads} heads of even width")
        if rotary_dim % 2 or rotary_dim > width:
            raise ValueError(f"rotary_dim {rotary_dim} must be even and fit a head")
        attention = AttentionOptions(
            heads=heads,
            rotary_dim=rotary_dim or width,
            window=window,
            qk_norm=qk_norm,
            causal=causal,
            base=base,
        )
        ssm = SSMOptions(d_conv=conv) if conv else SSMOptions()
        hidden = hidden or -(-dim * 8 // 3 // 64) * 64
        return cls(dim=dim, hidden=hidden, attention=attention, ssm=ssm)


@dataclass(frozen=True)
class StackState(State):
    """One state per layer."""

    layers: tuple[State, ...]


class Block(nn.Module):
    """(B, L, D) -> (B, L, D): x + mixer(norm1(x)), then for upper-case letters
    x + mlp(norm2(x))."""

    def __init__(self, letter: str, options: StackOptions):
        super().__init__()
        self.norm1 = RMSNorm(options.dim, eps=options.eps)
        self.mixer: SelfAttention | Mamba2 | ShortConv
        if letter in "tT":
            self.mixer = SelfAttention(options.dim, options.attention)
        elif letter in "cC":
            self.mixer = ShortConv(options.dim, options.ssm.d_conv)
        else:
            self.mixer = Mamba2(options.dim, options.ssm)
        self.mlp: SwiGLU | None = None
        if letter.isupper():
            self.norm2 = RMSNorm(options.dim, eps=options.eps)
            self.mlp = SwiGLU(options.dim, options.hidden)

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        x = x_BLD + self.mixer(self.norm1(x_BLD), segments)
        return x if self.mlp is None else x + self.mlp(self.norm2(x))

    def extend(self, x_BLD: Tensor, counts: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), state)."""
        mixed, state = self.mixer.extend(self.norm1(x_BLD), counts, state)  # type: ignore[arg-type]
        x = x_BLD + mixed
        return (x if self.mlp is None else x + self.mlp(self.norm2(x))), state


class Stack(nn.Module):
    """(B, L, D) -> (B, L, D) through the layers of one layout string and a final RMSNorm.

    norm: whether there is one; BLT's networks hand their residual stream on as it is.
    """

    def __init__(self, layout: str, options: StackOptions, *, norm: bool = True):
        super().__init__()
        self.letters, self.dim = parse_layout(layout), options.dim
        self.layers = nn.ModuleList(Block(letter, options) for letter in self.letters)
        self.rmsnorm = RMSNorm(options.dim, eps=options.eps) if norm else nn.Identity()

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        x = x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32))
        for block in self._blocks():
            x = block(x, segments)
        return self.rmsnorm(x)

    def init_state(self, batch_size: int) -> StackState:
        """The state of every layer before the first position of `batch_size` rows."""
        return StackState(tuple(block.mixer.init_state(batch_size) for block in self._blocks()))

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: StackState
    ) -> tuple[Tensor, StackState]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), state)."""
        x = x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32))
        states = []
        for block, before in zip(self._blocks(), state.layers, strict=True):
            x, after = block.extend(x, counts, before)
            states.append(after)
        return self.rmsnorm(x), StackState(tuple(states))

    def _blocks(self) -> Iterator[Block]:
        for layer in self.layers:
            assert isinstance(layer, Block)
            yield layer

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self._blocks()).norm1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self._blocks()).norm1.weight.device

    @property
    def height(self) -> int:
        """Residual additions: 1 per lower-case layer, 2 per upper-case one."""
        return sum(2 if letter.isupper() else 1 for letter in self.letters)

    def reset_linears(self, residual_adds: int) -> None:
        """`reset_linears` of the whole stack."""
        reset_linears(self, residual_adds)


@torch.no_grad()
def reset_linears(module: nn.Module, residual_adds: int) -> None:
    """Linears of `module` ~ N(0, 0.02); those that write to the residual stream (`out_proj`, `fc2`)
    are scaled by 1/sqrt(residual_adds), the number of additions from the outside in."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            writes = name.endswith(("out_proj", "fc2"))
            part.weight.normal_(0, 0.02 / math.sqrt(residual_adds) if writes else 0.02)


def stack_flops(layout: str, options: StackOptions, context: float) -> float:
    """Forward floating-point operations per position of a stack at that context length in its own
    positions (two per multiply-add; norms and activations are left out)."""
    D = options.dim
    total = 0.0
    for letter in parse_layout(layout):
        if letter in "tT":
            window = options.attention.window
            seen, sides = (context / 2, 1) if options.attention.causal else (context, 2)
            seen = seen if window < 0 else min(seen, sides * window + 1)
            total += 8 * D * D + 4 * D * seen
        elif letter in "cC":
            total += 2 * options.ssm.d_conv * D
        else:
            total += _mamba_flops(D, options.ssm)
        if letter.isupper():
            total += 6 * D * options.hidden
    return total


def _mamba_flops(D: int, o: SSMOptions) -> float:
    inner = o.expand * D
    heads = inner // o.head_dim
    shared = o.groups * o.d_state
    projections = 2 * D * (2 * inner + 2 * shared + heads) + 2 * inner * D
    conv = 2 * o.d_conv * (inner + 2 * shared)
    recurrence = 6 * inner * o.d_state  # update, decay and read-out of the state
    return projections + conv + recurrence
