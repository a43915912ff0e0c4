"""Overrides of a recipe, and which of its settings have no effect.

Both work on the raw tree, before it is validated: an override that switches a `kind` or a feature
off takes the file's dependent settings with it, whereas a setting that nobody switched off and that
does nothing is an error. Likewise a limit given by an override takes the place of the file's limit:
who asks for `train.steps=2000` does not want to end at the minutes that the file names.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bytelm.errors import RecipeError
from bytelm.recipe_sections import KINDS, SECTIONS, EvaluateSettings, kind_of

# (section, the field that chooses a registered class, its default): another choice clears the rest
_CHOICES = (("model", "arch", None), ("objective", "kind", "causal"))
_LIMITS = ("steps", "bytes", "max_minutes")  # of [train]


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write `section.key=value` changes into the tree of a recipe, then drop what they switch off;
    `RecipeError` for a setting that has no effect otherwise."""
    changes = dict(_parse(text) for text in overrides)
    for section, choice, default in _CHOICES:
        given = tree.get(section)
        if isinstance(given, dict) and (key := f"{section}.{choice}") in changes:
            if changes[key] != given.get(choice, default):
                tree[section] = {}
    for key, value in changes.items():
        _require_section(key)
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{key}: {part!r} is a value, not a section")
        node[last] = value
    changed = changes.keys() | _replace_limits(tree, changes)
    for key, switch, reason in list(ineffective(tree)):
        if key in changes or switch not in changed:
            raise RecipeError(f"{key} has no effect: {reason}. Remove it or change {switch}")
        section, _, field = key.partition(".")
        del tree[section][field]


def _replace_limits(tree: dict[str, Any], changes: Mapping[str, Any]) -> set[str]:
    """Drop the limits of the tree that nobody gave when another one was given; -> which."""
    train = tree.get("train")
    given = {name for name in _LIMITS if f"train.{name}" in changes}
    if not given or not isinstance(train, dict):
        return set()
    dropped = {name for name in _LIMITS if name not in given and name in train}
    for name in dropped:
        del train[name]
    return {f"train.{name}" for name in dropped}


def _require_section(key: str) -> None:
    """`RecipeError` for a setting without its section, naming the sections that have it."""
    classes = {**KINDS, **SECTIONS}
    if "." in key or key in ("name", "seed", "model", "objective", *classes):
        return
    known = [
        f"{section}.{field}"
        for section, kinds in classes.items()
        for kind in kinds
        for field in kind.model_fields
    ]
    places = [name for name in dict.fromkeys(known) if name.partition(".")[2] == key]
    if places:
        raise RecipeError(f"{key} stands in a section: write {' or '.join(places)}")
    short = {name.partition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, short, n=1)
    hint = f"; did you mean {short[near[0]]}?" if near else ", for example train.steps=100"
    raise RecipeError(f"{key}: a setting is written section.key=value{hint}")


def ineffective(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(setting, the switch that disables it, why) for each setting present without effect."""
    sections = {name: value for name, value in tree.items() if isinstance(value, dict)}
    for section, kinds in KINDS.items():
        given = sections.get(section, {})
        users: dict[str, list[str]] = {}
        for kind in kinds:
            for field in kind.model_fields:
                users.setdefault(field, []).append(kind_of(kind))
        chosen = given.get("kind")
        for field in given:
            if chosen in users["kind"] and chosen not in users.get(field, users["kind"]):
                only = " and ".join(users[field])
                why = f"{section}.kind is {chosen!r}, and only {only} uses it"
                yield f"{section}.{field}", f"{section}.kind", why
    yield from _ineffective_switches(sections)


def _ineffective_switches(
    sections: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, str, str]]:
    evaluate, train = sections.get("evaluate", {}), sections.get("train", {})
    data = sections.get("data", {})
    if not data.get("heldout"):
        for field in evaluate:
            if field in EvaluateSettings.model_fields and evaluate[field]:
                yield (
                    f"evaluate.{field}",
                    "data.heldout",
                    "there are no data.heldout paths",
                )
    elif evaluate.get("every") == 0 and "bytes" in evaluate:
        yield "evaluate.bytes", "evaluate.every", "evaluate.every is 0 (no periodic evaluation)"
    if train.get("checkpoint_every") == 0 and "keep_last" in train:
        yield "train.keep_last", "train.checkpoint_every", "train.checkpoint_every is 0"
    if train.get("max_minutes") is None and "clock" in train:
        yield "train.clock", "train.max_minutes", "train.max_minutes is not set"
    log, steps = sections.get("log", {}), train.get("steps")
    if "profile_steps" in log and steps is not None and log["profile_steps"][0] > steps:
        yield "log.profile_steps", "train.steps", f"training ends at step {steps}"
    if "record_size" in data and data.get("policy") != "record":
        yield "data.record_size", "data.policy", "data.policy is not 'record'"
    if "weights" in data and len(data.get("train", ())) == 1:
        yield "data.weights", "data.train", "data.train is a single path"


def _parse(text: str) -> tuple[str, Any]:
    """`section.key=value` -> (key, value): the value in TOML syntax, or a bare string."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise RecipeError(
            f"an override is section.key=value, for example train.steps=100; got {text!r}"
        )
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
