"""No setting of an architecture is without effect: it changes the model, or it is refused.

Every setting of every architecture is changed, one at a time and in several ways, starting from
every case of the contract tests. A change that is accepted must show in the parameters, their
initial values or their optimizer roles, in an output, or in a loss.
"""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError

from bytelm.arch.base import STORED, ArchConfig, ByteModel
from bytelm.arch.hnet.config import HNetConfig
from bytelm.errors import BytelmError
from bytelm.recipe import Recipe, recipe_folders
from bytelm.registry import ARCHITECTURES, architecture
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, arguments_of, training_batch

ONE_STAGE = CASES["hnet-1stage"][1]
MORE = {  # settings that the contract tests leave at their defaults
    "transformer-ngrams": (
        "transformer",
        {"layers": 1, "d_model": 32, "heads": 2, "ngrams": [2], "ngram_rows": 50},
    ),
    "hnet-annealed": ("hnet", {**ONE_STAGE, "anneal_from": [2.0], "anneal_fraction": 0.5}),
    "hnet-taught": ("hnet", {**ONE_STAGE, "taught_by": ["space"], "taught_fraction": 0.5}),
    "hnet-published-rates": ("hnet", {**ONE_STAGE, "lr_multipliers": "published"}),
    "hnet-no-ratio-loss": ("hnet", {**ONE_STAGE, "ratio_weight": 0.0}),
    "blt-fixed": ("blt", {**CASES["blt-entropy"][1], "boundaries": "fixed", "stride": 3}),
    "spacebyte-fixed": (
        "spacebyte",
        {**CASES["spacebyte"][1], "boundaries": "fixed", "stride": 3, "d_model": 64},
    ),
    "byte2word-bytes": ("byte2word", {"layers": 1, "d_model": 32, "heads": 2}),
    "t5-buckets": ("t5", {**CASES["t5"][1], "buckets": 8}),
    "mrt5-buckets": ("mrt5", {**CASES["mrt5-fixed"][1], "buckets": 8}),
    "hnet-windows": ("hnet", {**CASES["hnet-attention-only"][1], "rotary_dim": [4, 8]}),
}
STARTS = {**CASES, **MORE}
# what changes how fast a model computes, and no number
SPEED = {
    name
    for name, field in HNetConfig.model_fields.items()
    if "speed only" in (field.description or "")
}


def build(arch: str, settings: dict[str, Any]) -> ByteModel:
    kind = architecture(arch)
    torch.manual_seed(0)
    config = kind.Config(**settings)
    return kind(config, ByteVocab(), **arguments_of(kind, config))


def signature(model: ByteModel) -> dict[str, Any]:
    """All by which two models can be told apart in training and use."""
    roles = {name: model.parameter_role(name, p) for name, p in model.named_parameters()}
    initial = {name: p.detach().clone() for name, p in model.state_dict().items()}
    batch = training_batch(model)
    batch.ids[0, 5:8] = torch.tensor([101, 32, 101])
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):  # nothing hides behind a zero
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
            p.add_(0.3 * noise)
    results = []
    changes_on_the_way = type(model).progress is not ByteModel.progress
    for fraction in (0.0, 0.1, 0.7, 1.0) if changes_on_the_way else (1.0,):
        model.progress(fraction)
        output = model(batch)
        results += [output.logits.detach(), output.loss.detach()]
        results += [term.detach() for _, term in sorted(output.aux.items())]
        results += [float(value) for _, value in sorted(output.stats.items())]
    model.after_step({name: float(value) for name, value in output.stats.items()})
    results += [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        results.append(model.eval()(batch).logits)
    return {"roles": roles, "initial": initial, "results": results}


def differs(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.shape != other.shape or not torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() != other.keys() or any(differs(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) != len(other) or any(map(differs, one, other))
    return one != other


def changes(annotation: Any, value: Any) -> Iterator[Any]:
    """Other values of a setting's type."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from changes(part, value)
    elif origin is Literal:
        yield from (other for other in get_args(annotation) if other != value)
    elif isinstance(value, tuple | list):
        yield from list_changes(annotation, value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        larger = (2 * value, 64) if value >= 0 else ()  # not a window wider than the rows
        yield from {0, 1, 2, value + 1, value + 2, *larger} - {value}
    elif isinstance(value, float):
        yield from (other for other in (0.0, 0.5, value + 1, 2 * value) if other != value)


def list_changes(annotation: Any, value: Any) -> Iterator[Any]:
    """Each entry changed; an empty list filled."""
    part = get_args(annotation)[0] if get_args(annotation) else Any
    while get_origin(part) is not Literal and get_args(part):
        part = get_args(part)[0]  # out of Annotated
    for entry, old in enumerate(value):
        for new in changes(part, old):
            yield [*value[:entry], new, *value[entry + 1 :]]
    if not value:
        numbers = (0, 1, 2, 4, 7, 32, 0.5, 3.5)
        fills = get_args(part) if get_origin(part) is Literal else numbers
        yield from ([fill] * size for fill in fills for size in (1, 2, 3))


def accepted_changes(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    arch, settings = STARTS[name]
    config = architecture(arch).Config
    start = config(**settings)
    for setting, field in config.model_fields.items():
        if setting == "layout":
            continue  # the model itself
        for value in changes(field.annotation, getattr(start, setting)):
            if value == field.get_default() or value == start.model_dump(mode="json")[setting]:
                continue
            try:
                changed = config(**{**settings, setting: value})
            except (ValidationError, TypeError):
                continue
            idle = {(i.setting, i.entry) for i in changed.idle()}
            if (setting, None) in idle:
                continue  # written as it would be if left out
            before, after = getattr(start, setting), getattr(changed, setting)
            if isinstance(after, tuple):
                pairs = enumerate(zip(before or [None] * len(after), after, strict=False))
                moved = [entry for entry, (old, new) in pairs if old != new]
                if all((setting, n) in idle for n in moved):
                    continue  # one way of leaving it out for another
            yield setting, {**settings, setting: value}


def one_of_each() -> Iterator[Any]:
    """All starts; those but the first of each architecture and one with a router are slow."""
    seen = set()
    for name, (arch, _) in STARTS.items():
        quick = arch not in seen or name == "hnet-1stage"
        yield pytest.param(name, marks=() if quick else pytest.mark.slow)
        seen.add(arch)


@pytest.mark.parametrize("name", list(one_of_each()))
def test_every_setting_that_is_accepted_changes_the_model(name):
    arch, settings = STARTS[name]
    before = signature(build(arch, settings))
    without, seen = [], set()
    for setting, changed in accepted_changes(name):
        if setting in SPEED:
            continue
        seen.add(setting)
        try:
            after = signature(build(arch, changed))
        except BytelmError:  # it cannot read the same bytes any more, say
            continue
        if not differs(before, after):
            without.append((setting, changed[setting]))
    assert seen, "nothing was changed"
    spelled_out = {"lr_multipliers": 1, "boundaries": "learned"}  # what an empty list stands for
    assert not [
        (setting, value)
        for setting, value in without
        if not (setting in spelled_out and set(value) == {spelled_out[setting]})
    ]


def test_every_setting_of_every_architecture_is_changed_from_some_start():
    """So that a new one is not overlooked."""
    for arch, kind in ARCHITECTURES.items():
        names = [name for name, (other, _) in STARTS.items() if other == arch]
        assert names, f"{arch} has no case"
        seen = {setting for name in names for setting, _ in accepted_changes(name)}
        paths = {"layout", "patcher"}  # the model itself, and where a part of it comes from
        assert seen == set(kind.Config.model_fields) - paths, arch


SIX = {  # which were accepted by hnet/config.py and did nothing
    "ratio_weight": {**CASES["hnet-fixed"][1], "ratio_weight": 0.5},
    "anneal_from": {**CASES["hnet-fixed"][1], "anneal_from": [2.0], "anneal_fraction": 0.5},
    "target": {**CASES["hnet-space"][1], "target": [4.0]},
    r"window\[0\]": {**ONE_STAGE, "window": [3, -1]},
    r"d_intermediate\[0\]": {**ONE_STAGE, "d_intermediate": [48, 64]},
    "d_state": {**CASES["hnet-attention-only"][1], "d_state": 16},
    r"num_heads\[0\]": {**ONE_STAGE, "num_heads": [2, 2]},
    r"rotary_dim\[0\]": {**ONE_STAGE, "rotary_dim": [2, 2]},
    "chunk": {**CASES["hnet-attention-only"][1], "chunk": 16},
    "given_after": {**ONE_STAGE, "given_after": [10]},
}


@pytest.mark.parametrize("setting", SIX)
def test_a_setting_without_effect_is_refused_with_what_to_write(setting):
    with pytest.raises(ValidationError, match=f"{setting} = .* has no effect: .*(Remove it|there)"):
        HNetConfig(**SIX[setting])


@pytest.mark.parametrize("setting", SIX)
def test_what_a_run_has_stored_loads_all_the_same(setting):
    config = HNetConfig.model_validate(SIX[setting], context=STORED)
    assert HNetConfig.model_validate(config.model_dump(mode="json"), context=STORED) == config


@pytest.mark.parametrize("name", STARTS)
def test_writing_out_every_default_changes_nothing(name):
    arch, settings = STARTS[name]
    config = architecture(arch).Config
    made = config(**settings)
    assert config(**made.model_dump(mode="json")) == made


RECIPES = sorted({file.stem for folder in recipe_folders() for file in folder.glob("*.toml")})


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes_hold_no_setting_without_effect(name):
    assert isinstance(Recipe.load(name).arch_config, ArchConfig)
