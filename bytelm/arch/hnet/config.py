"""H-Net's configuration: the nested layout and one value per stage for everything else.

The checks live here, so that a wrong recipe is refused with the entry's name before any weight is
made, and the model can be read beside the paper.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bytelm.arch.backbone import NGramConfig
from bytelm.arch.base import Idle
from bytelm.errors import BytelmError
from bytelm.nn.attention import AttentionOptions
from bytelm.nn.boundaries import RULES, RuleName
from bytelm.nn.kernels import Backend
from bytelm.nn.mamba2 import SSMOptions
from bytelm.nn.stack import StackOptions, parse_layout

Layout = list[Any]
PerStage = tuple[Annotated[int, Field(ge=0)], ...]
USUAL_CHUNK = 6.0  # bytes per chunk where none is aimed at: SpaceByte's rule over English
_TARGETED = {"learned", "fixed"}  # the boundaries that `target` has a meaning for
Byte = Annotated[int, Field(ge=0, le=255)]


class HNetConfig(NGramConfig):
    """Sizes and rules of an H-Net. Lists have one entry per stage, outermost first, the main
    network last; lengths of a stage are in positions of its own sequence."""

    layout: Layout = Field(
        description='nested stacks, such as ["m4", ["T1m4", ["T26"], "m4T1"], "m4"]: m Mamba-2, '
        "t attention, c short convolution, upper case adds SwiGLU"
    )
    d_model: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="widths, never shrinking inwards"
    )
    d_intermediate: PerStage = Field(
        (), description="SwiGLU widths; 0 where a stage has no upper-case layer"
    )
    num_heads: PerStage = Field((), description="attention heads")
    rotary_dim: PerStage = Field((), description="channels per head that rotate; default half")
    window: tuple[Annotated[int, Field(ge=-1)], ...] = Field(
        (), description="earlier positions that attention sees; -1 = all"
    )
    d_state: int = Field(128, ge=1, description="Mamba-2 state size per channel")
    d_conv: int = Field(4, ge=2, description="width of the convolutions")
    expand: int = Field(2, ge=1, description="Mamba-2 inner width as a multiple of d_model")
    head_dim: int = Field(64, ge=1, description="Mamba-2 head width")
    chunk: int = Field(64, ge=1, description="Mamba-2 block length in training; speed only")
    backend: Backend = Field("auto", description="Mamba-2 kernel; speed only")
    boundaries: tuple[RuleName, ...] = Field(
        (),
        description="one per chunking stage: learned (router), fixed (every `target` positions), "
        "space (SpaceByte's rule), words (with the blank in front), given (by the batch, or after "
        "given_after); default learned",
    )
    given_after: tuple[Byte, ...] = Field(
        (),
        description='byte values after which a chunk starts where boundaries = "given" and none '
        "are given, such as [10] for lines; decoding needs it",
    )
    target: tuple[Annotated[float, Field(gt=1)], ...] = Field(
        (),
        description="N, positions per chunk, one per chunking stage: aim of the ratio loss, or the "
        "fixed stride",
    )
    ratio_weight: float = Field(0.03, ge=0, description="alpha, weight of the ratio loss")
    anneal_from: tuple[Annotated[float, Field(gt=1)], ...] = Field(
        (), description="N at the start of training, moving linearly to `target`; empty = off"
    )
    anneal_fraction: float = Field(
        0.0, ge=0, le=1, description="fraction of training after which N is `target`; 0 = off"
    )
    taught_by: tuple[Literal["fixed", "space"], ...] = Field(
        (),
        description="one per chunking stage: the rule that cuts at first, while the learned one is "
        "taught to agree with it; empty = off",
    )
    taught_fraction: float = Field(
        0.0, ge=0, le=1, description="share of training in which `taught_by` cuts; 0 = off"
    )
    lr_multipliers: tuple[Annotated[float, Field(gt=0)], ...] | Literal["published"] = Field(
        (),
        description="learning-rate factors (embeddings and head take the first); empty = all 1; "
        '"published" = the paper\'s rule',
    )
    released_ids: bool = Field(
        False,
        description="table of the released checkpoints: 256 rows, of which 254 is BOS and 255 EOS, "
        "so that bytes 0xFE and 0xFF (never UTF-8) have none",
    )

    @property
    def stages(self) -> int:
        """S, the number of chunking stages."""
        return len(unnest(self.layout)) // 2

    @model_validator(mode="after")
    def _consistent(self) -> "HNetConfig":
        S = self.stages
        _check_lengths(self, S)
        for s in self._all():
            _check_stage(self, s, _letters(self.layout, s))
        if any(a > b for a, b in zip(self.d_model, self.d_model[1:], strict=False)):
            raise ValueError(f"d_model {self.d_model} must not shrink from the outside in")
        for s, rule in [*enumerate(self.boundary_rules), *enumerate(self.taught_by)]:
            if RULES[rule].reads_bytes and s > 0:
                raise ValueError(f"boundaries {rule!r} exist at stage 0 only, not at stage {s}")
            if rule == "fixed" and self.target and self.target[s] != int(self.target[s]):
                raise ValueError(f"a fixed stride must be a whole number, not {self.target[s]}")
        if bool(self.anneal_from) != bool(self.anneal_fraction):
            raise ValueError("anneal_from and anneal_fraction go together: set both or neither")
        if bool(self.taught_by) != bool(self.taught_fraction):
            raise ValueError("taught_by and taught_fraction go together: set both or neither")
        if self.taught_by and set(self.boundary_rules) != {"learned"}:
            raise ValueError("taught_by needs learned boundaries at every stage")
        return self

    def idle(self) -> Iterator[Idle]:
        """Settings of layers, rules and losses that the layout or the boundaries do not have."""
        yield from super().idle()
        rules = set(self.boundary_rules)
        letters = [_letters(self.layout, s) for s in self._all()]
        if not any(used & set("mM") for used in letters):
            for name in ("d_state", "expand", "head_dim", "chunk", "backend"):
                yield Idle(setting=name, why="the layout has no Mamba-2 layers (m, M)")
        if not any(used & set("mMcC") for used in letters):
            yield Idle(setting="d_conv", why="the layout has no convolutions (m, M, c, C)")
        for s, used in enumerate(letters):
            if not used & set("tT"):
                why = f"stage {s} has no attention layers (t, T)"
                yield Idle(setting="num_heads", entry=s, unset=(0, 1), why=why)
                yield Idle(setting="rotary_dim", entry=s, unset=(0,), why=why)
                yield Idle(setting="window", entry=s, unset=(-1,), why=why)
            if not used & set("MTC"):
                why = f"stage {s} has no layers with SwiGLU (M, T, C)"
                yield Idle(setting="d_intermediate", entry=s, unset=(0,), why=why)
        if "learned" not in rules:
            for name in ("ratio_weight", "anneal_from", "anneal_fraction"):
                yield Idle(setting=name, why="no boundaries are learned")
        elif not self.ratio_weight:
            for name in ("anneal_from", "anneal_fraction"):
                yield Idle(setting=name, why="ratio_weight is 0")
        if self.lr_multipliers != "published":
            if not rules & _TARGETED:
                yield Idle(setting="target", why="no boundaries are learned or fixed")
            for s, rule in enumerate(self.boundary_rules):
                if rule not in _TARGETED:
                    why = f"the boundaries of stage {s} are {rule!r}"
                    yield Idle(setting="target", entry=s, unset=(USUAL_CHUNK,), why=why)
        if "given" not in rules:
            yield Idle(setting="given_after", why='no boundaries are "given"')

    def _all(self) -> range:
        return range(self.stages + 1)

    @property
    def stage_lr_multipliers(self) -> tuple[float, ...]:
        """One factor on the learning rate per stage."""
        if self.lr_multipliers == "published":
            return published_lr_multipliers(self.target, self.d_model)
        return self.lr_multipliers or (1.0,) * (self.stages + 1)

    @property
    def boundary_rules(self) -> tuple[RuleName, ...]:
        """One rule per chunking stage; all learned by default."""
        learned: list[RuleName] = ["learned"] * self.stages
        return self.boundaries or tuple(learned)

    def stack_options(self, s: int) -> StackOptions:
        """What the stacks of stage s are built with."""

        def at(values: Sequence[int], default: int) -> int:
            return values[s] if values else default

        heads = at(self.num_heads, 1)
        return StackOptions(
            dim=self.d_model[s],
            hidden=at(self.d_intermediate, 0),
            attention=AttentionOptions(
                heads=heads,
                rotary_dim=at(self.rotary_dim, self.d_model[s] // max(heads, 1) // 4 * 2),
                window=at(self.window, -1),
            ),
            ssm=SSMOptions(
                d_state=self.d_state,
                d_conv=self.d_conv,
                expand=self.expand,
                head_dim=self.head_dim,
                chunk=self.chunk,
                backend=self.backend,
            ),
        )


def published_lr_multipliers(
    target: Sequence[float], d_model: Sequence[int], *, bytes_per_token: float = 4.6
) -> tuple[float, ...]:
    """The paper's learning-rate modulation, one factor per stage (section 2.3):

    sqrt(bytes_per_token * prod_{i>=s} N_i / prod_i N_i * D_S / D_s), where bytes_per_token is that
    of the subword model whose learning rate is being carried over, and N_S = 1.

    >>> [round(m, 2) for m in published_lr_multipliers([3, 3], [1024, 1024, 1536])]
    [2.63, 1.52, 0.71]
    """
    ratios = [*target, 1.0]
    whole = math.prod(ratios)
    return tuple(
        math.sqrt(bytes_per_token * math.prod(ratios[s:]) / whole * d_model[-1] / width)
        for s, width in enumerate(d_model)
    )


def unnest(layout: Layout) -> list[str]:
    """The layout strings from encoder 0 inwards and out again to decoder 0: 2S + 1 of them.

    >>> unnest(["m4", ["T1m4", ["T26"], "m4T1"], "m4"])
    ['m4', 'T1m4', 'T26', 'm4T1', 'm4']
    """
    match layout:
        case [str(main)]:
            return [main]
        case [str(encoder), list(inner), str(decoder)]:
            return [encoder, *unnest(inner), decoder]
    raise BytelmError(
        f'layout {layout!r} is neither ["main"] nor ["encoder", [...], "decoder"], '
        'such as ["m4", ["T22"], "m4"]'
    )


def _letters(layout: Layout, s: int) -> set[str]:
    """The kinds of layers that stage s has, on either side."""
    strings = unnest(layout)
    return set(parse_layout(strings[s]) + parse_layout(strings[len(strings) - 1 - s]))


def _check_lengths(config: HNetConfig, S: int) -> None:
    per_stage = ["d_intermediate", "num_heads", "rotary_dim", "window"]
    if config.lr_multipliers != "published":
        per_stage.append("lr_multipliers")
    elif len(config.target) != S:
        raise ValueError('lr_multipliers = "published" needs a target for every chunking stage')
    if len(config.d_model) != S + 1:
        raise ValueError(
            f"d_model has {len(config.d_model)} entries, the layout {config.layout} has {S + 1}"
        )
    for name in per_stage:
        if (given := len(getattr(config, name))) not in (0, S + 1):
            raise ValueError(f"{name} has {given} entries; the layout needs {S + 1} (or none)")
    for name in ("boundaries", "anneal_from", "taught_by"):
        if (given := len(getattr(config, name))) not in (0, S):
            raise ValueError(f"{name} has {given} entries; the layout has {S} chunking stages")
    needs = sum(rule in _TARGETED for rule in config.boundary_rules)
    if len(config.target) != S and (needs or config.target):
        raise ValueError(
            f"target has {len(config.target)} entries; the layout has {S} chunking stages"
        )


def _check_stage(config: HNetConfig, s: int, letters: set[str]) -> None:
    D = config.d_model[s]
    if letters & set("MTC") and not (config.d_intermediate and config.d_intermediate[s] > 0):
        raise ValueError(f"stage {s} has SwiGLU layers: give it a d_intermediate above 0")
    if letters & set("tT"):
        if not config.num_heads or config.num_heads[s] < 1 or D % config.num_heads[s]:
            raise ValueError(f"stage {s} has attention: num_heads must divide its width {D}")
        rotary = config.stack_options(s).attention.rotary_dim
        if rotary % 2 or rotary > D // config.num_heads[s]:
            raise ValueError(f"rotary_dim {rotary} of stage {s} must be even and fit a head")
    if letters & set("mM") and config.expand * D % config.head_dim:
        raise ValueError(
            f"stage {s}: expand * width = {config.expand * D} must be a multiple of "
            f"head_dim = {config.head_dim}"
        )
