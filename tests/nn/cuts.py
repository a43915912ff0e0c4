"""Boundary rules over texts for the tests of rules and plans, in float64."""

from dataclasses import replace

import torch
from hypothesis import strategies as st

from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import BoundaryRule, Cuts, RuleOptions, Stretch
from bytelm.nn.segments import Segments

D = 6
OPTIONS = RuleOptions(dim=D, stride=3, after=(10, 32), limit=7)
NAMES = st.sampled_from(sorted(RULES))
TEXTS = st.binary(min_size=1, max_size=40) | st.text(
    alphabet="ab \n1\u00e9\u4e2d", min_size=1, max_size=20
).map(str.encode)


def make_rule(name: str) -> BoundaryRule:
    return RULES[name](OPTIONS).double()


def vectors(ids_BL: torch.Tensor) -> torch.Tensor:
    """(B, L, D): a random vector per byte value, so that a position depends on its byte alone."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(300, D, generator=generator, dtype=torch.float64)[ids_BL]


def stretch_of(ids_BL: torch.Tensor, segments: Segments | None = None) -> Stretch:
    segments = segments or Segments(ids_BL.shape[1])
    return Stretch(
        x=vectors(ids_BL),
        positions=segments.positions(ids_BL.device),
        counts=segments.lengths,
        ids=ids_BL,
    )


def cut_whole(rule: BoundaryRule, stretch: Stretch) -> Cuts:
    with torch.no_grad():
        return rule.cut(stretch, rule.init_state(len(stretch.x), stretch.x))[0]


def cut_bytes(name: str, text: bytes, segments: Segments | None = None, **given) -> Cuts:
    """What a rule makes of one text, from the empty state."""
    stretch = replace(stretch_of(torch.tensor([list(text)]), segments), **given)
    return cut_whole(make_rule(name), stretch)
