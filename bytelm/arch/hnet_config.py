"""H-Net's configuration: the nested layout and one value a stage for everything else.

The checks live here, so that a wrong recipe is refused with the entry's name before any weight is
made, and `arch/hnet.py` can be read beside the paper.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bytelm.arch.base import ArchConfig
from bytelm.errors import BytelmError
from bytelm.nn.attention import AttentionOptions
from bytelm.nn.kernels import Backend
from bytelm.nn.mamba2 import SSMOptions
from bytelm.nn.stack import StackOptions, parse_layout

Boundaries = Literal["learned", "fixed", "space", "given"]
Layout = list[Any]
PerStage = tuple[int, ...]


class HNetConfig(ArchConfig):
    """Lists have one entry a stage, outermost first, the main network last.

    layout           nested, e.g. ["m4", ["T1m4", ["T26"], "m4T1"], "m4"]
    d_model          widths, never shrinking inwards
    d_intermediate   SwiGLU widths; 0 where a stage has no upper-case layer
    num_heads, rotary_dim, window   attention (rotary_dim: channels a head; window: earlier
                     positions in view, -1 = all; both in units of the stage's own sequence)
    d_state, d_conv, expand, head_dim, chunk, backend   Mamba-2; chunk and backend are speed only
    boundaries       one a chunking stage: learned | fixed | space | given
    target           N, bytes (or inner chunks) a chunk: aim of the ratio loss, or fixed stride
    ratio_weight     alpha of the ratio loss
    anneal_from, anneal_fraction   N starts at anneal_from and reaches `target` linearly after that
                     fraction of training (steadier for small models); 0 = off
    lr_multipliers   one a stage, embeddings and head take the first; empty = all 1
    released_ids     tables of the released checkpoints: 256 rows, of which 254 is BOS and 255 EOS;
                     bytes 0xFE and 0xFF then cannot be represented (they are never UTF-8)
    """

    layout: Layout
    d_model: PerStage
    d_intermediate: PerStage = ()
    num_heads: PerStage = ()
    rotary_dim: PerStage = ()
    window: PerStage = ()
    d_state: int = Field(128, ge=1)
    d_conv: int = Field(4, ge=2)
    expand: int = Field(2, ge=1)
    head_dim: int = Field(64, ge=1)
    chunk: int = Field(64, ge=1)
    backend: Backend = "auto"
    boundaries: tuple[Boundaries, ...] = ()
    target: tuple[Annotated[float, Field(gt=1)], ...] = ()
    ratio_weight: float = Field(0.03, ge=0)
    anneal_from: tuple[Annotated[float, Field(gt=1)], ...] = ()
    anneal_fraction: float = Field(0.0, ge=0, le=1)
    lr_multipliers: tuple[Annotated[float, Field(gt=0)], ...] = ()
    released_ids: bool = False

    @property
    def stages(self) -> int:
        """S, the number of chunking stages."""
        return len(unnest(self.layout)) // 2

    @model_validator(mode="after")
    def _consistent(self) -> "HNetConfig":
        strings = unnest(self.layout)
        S = len(strings) // 2
        uses = [set("".join(map(parse_layout, _stage_strings(strings, s)))) for s in range(S + 1)]
        _check_lengths(self, S)
        for s, letters in enumerate(uses):
            _check_stage(self, s, letters)
        if any(a > b for a, b in zip(self.d_model, self.d_model[1:], strict=False)):
            raise ValueError(f"d_model {self.d_model} must not shrink from the outside in")
        for s, rule in enumerate(self.boundary_rules):
            if rule in ("space", "given") and s > 0:
                raise ValueError(f"boundaries {rule!r} exist at stage 0 only, not at stage {s}")
            if rule == "fixed" and self.target[s] != int(self.target[s]):
                raise ValueError(f"a fixed stride must be a whole number, not {self.target[s]}")
        if bool(self.anneal_from) != bool(self.anneal_fraction):
            raise ValueError("anneal_from and anneal_fraction go together: set both or neither")
        return self

    @property
    def boundary_rules(self) -> tuple[Boundaries, ...]:
        """One rule a chunking stage; all learned by default."""
        learned: list[Boundaries] = ["learned"] * self.stages
        return self.boundaries or tuple(learned)

    def stack_options(self, s: int) -> StackOptions:
        """What the stacks of stage s are built with."""

        def at(values: PerStage, default: int) -> int:
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


def _stage_strings(strings: list[str], s: int) -> set[str]:
    return {strings[s], strings[len(strings) - 1 - s]}


def _check_lengths(config: HNetConfig, S: int) -> None:
    per_stage = ("d_intermediate", "num_heads", "rotary_dim", "window", "lr_multipliers")
    if len(config.d_model) != S + 1:
        raise ValueError(
            f"d_model has {len(config.d_model)} entries, the layout {config.layout} has {S + 1}"
        )
    for name in per_stage:
        if (given := len(getattr(config, name))) not in (0, S + 1):
            raise ValueError(f"{name} has {given} entries; the layout needs {S + 1} (or none)")
    for name in ("boundaries", "anneal_from"):
        if (given := len(getattr(config, name))) not in (0, S):
            raise ValueError(f"{name} has {given} entries; the layout has {S} chunking stages")
    needs = sum(rule in ("learned", "fixed") for rule in config.boundary_rules)
    if len(config.target) != S and (needs or config.target):
        raise ValueError(
            f"target has {len(config.target)} entries; the layout has {S} chunking stages"
        )


def _check_stage(config: HNetConfig, s: int, letters: set[str]) -> None:
    D = config.d_model[s]
    if letters & set("MT") and not (config.d_intermediate and config.d_intermediate[s] > 0):
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
