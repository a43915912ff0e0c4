"""`Recipe`: everything that decides a training run, as one validated tree of settings.

Read from `models/NAME.toml`, changed by `section.key=value`, written whole into each run directory.
Choices a reader may question: sections whose meaning depends on a `kind` are one class per kind, so
that a setting of another kind cannot be written down at all; a setting without effect is an error
(never ignored), except that an override which switches a `kind`, an `arch` or a feature off takes
the file's dependent settings with it; the architecture's own settings are checked by the
architecture's `Config`, and only then is torch imported.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from bytelm.errors import RecipeError, unknown_name
from bytelm.recipe_sections import (
    KINDS,
    WSD,
    AdamW,
    Causal,
    Constant,
    Cosine,
    Count,
    Data,
    Evaluate,
    FillInTheMiddle,
    Log,
    Model,
    Muon,
    Section,
    Train,
    kind_of,
)

if TYPE_CHECKING:
    from bytelm.arch.base import ArchConfig, ByteModel


class Recipe(Section):
    """The whole tree. Frozen; `override` makes a changed copy.

    >>> recipe = Recipe.from_dict({
    ...     "model": {"arch": "transformer"}, "data": {"train": ["a.txt"]}, "train": {"steps": 10}})
    >>> recipe.override(["optimizer.lr=1e-3"]).optimizer.lr
    0.001
    """

    name: str = "run"
    seed: Count = 0
    model: Model
    data: Data
    objective: Annotated[Causal | FillInTheMiddle, Field(discriminator="kind")]
    optimizer: Annotated[Muon | AdamW, Field(discriminator="kind")]
    schedule: Annotated[WSD | Cosine | Constant, Field(discriminator="kind")]
    train: Train
    evaluate: Evaluate = Evaluate()
    log: Log = Log()

    @classmethod
    def load(cls, name: str | Path, *, overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe called `name`, or at that path, with `section.key=value` applied."""
        path = find_recipe(name)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not valid TOML: {error}") from None
        return cls.from_dict({"name": path.stem, **raw}, overrides=overrides)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe of a nested dict; `RecipeError` says which setting is wrong and why."""
        tree = deepcopy(dict(raw))
        for section, kinds in KINDS.items():
            if isinstance(tree.setdefault(section, {}), dict):
                tree[section].setdefault("kind", kind_of(kinds[0]))
        changes = dict(_parse_override(text) for text in overrides)
        _apply(tree, changes)
        try:
            recipe = cls.model_validate(tree)
        except ValidationError as error:
            raise RecipeError(_explain(error)) from None
        recipe._check()
        return recipe

    def override(self, overrides: Sequence[str]) -> "Recipe":
        """A copy with `section.key=value` changes."""
        return Recipe.from_dict(self.to_dict(), overrides=overrides)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, defaults included, settings without effect left out."""
        tree = self.model_dump(exclude_none=True)
        for key, _, _ in list(_ineffective(tree)):
            section, _, field = key.partition(".")
            del tree[section][field]
        return tree

    def to_toml(self) -> str:
        """The whole recipe as TOML that `load` reads back to an equal one."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @cached_property
    def architecture(self) -> "type[ByteModel]":
        """The `ByteModel` class of `model.arch` (imports torch)."""
        from bytelm.errors import BytelmError
        from bytelm.registry import architecture

        try:
            return architecture(self.model.arch)
        except BytelmError as error:
            raise RecipeError(f"model.arch: {error}") from None

    @cached_property
    def arch_config(self) -> "ArchConfig":
        """The architecture's own validated config (imports torch)."""
        try:
            return self.architecture.Config(**self.model.settings)
        except ValidationError as error:
            fields = self.architecture.Config.model_fields
            raise RecipeError(_explain(error, prefix=("model",), allowed=fields)) from None

    def _check(self) -> None:
        """What no single field can see."""
        train, data, warmup = self.train, self.data, self.schedule.warmup
        if isinstance(warmup, float) and warmup > 1:
            raise RecipeError(
                f"schedule.warmup = {warmup}: an integer counts steps, a fraction (0 to 1) is a "
                "share of the whole training"
            )
        if train.steps is None and train.max_minutes is None:
            raise RecipeError(
                "the recipe does not say when to stop: set train.steps, train.max_minutes or both"
            )
        if train.batch_bytes % (train.context_bytes * train.accumulate):
            raise RecipeError(
                f"train.batch_bytes ({train.batch_bytes}) must be a multiple of "
                f"train.context_bytes x train.accumulate ({train.context_bytes} x "
                f"{train.accumulate} = {train.context_bytes * train.accumulate})"
            )
        if data.weights is not None and len(data.weights) != len(data.train):
            raise RecipeError(
                f"data.weights has {len(data.weights)} numbers for {len(data.train)} paths in "
                "data.train: give one each"
            )
        if data.tokenizer is not None and (self.objective.kind != "causal" or data.curriculum):
            raise RecipeError(
                "data.tokenizer needs objective.kind 'causal' and no data.curriculum: infilling "
                "markers and the rows of a curriculum are defined over bytes"
            )
        self._check_curriculum()

    def _check_curriculum(self) -> None:
        """A curriculum cuts windows of the final length into equal parts."""
        data, final = self.data, self.train.context_bytes
        if data.curriculum is None:
            return
        if self.objective.kind != "causal" or data.policy == "bucket":
            raise RecipeError(
                "data.curriculum cuts rows into shorter ones, so it needs objective.kind 'causal' "
                f"and a data.policy other than 'bucket', not {self.objective.kind!r} and "
                f"{data.policy!r}"
            )
        unit = data.record_size or 1
        lengths = [int(length) for _, length in data.curriculum]
        if lengths[-1] != final or any(final % n or n % unit for n in lengths):
            raise RecipeError(
                f"data.curriculum has rows of {lengths} bytes: the last must be "
                f"train.context_bytes ({final}), and each must divide it"
                + (f" and be a multiple of data.record_size ({unit})" if unit > 1 else "")
            )


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: that path, else NAME.toml in the recipe folders."""
    path = Path(name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if path.is_file():
            return path
        raise RecipeError(f"there is no recipe file {str(path)!r}")
    for folder in recipe_folders():
        if (found := folder / f"{name}.toml").is_file():
            return found
    known = {file.stem for folder in recipe_folders() for file in folder.glob("*.toml")}
    raise RecipeError(unknown_name("recipe", str(name), known))


def recipe_folders() -> list[Path]:
    """Where recipes are looked up by name: ./models, the repository's, the wheel's."""
    package = Path(__file__).resolve().parent
    return [Path("models"), package.parent / "models", package / "_recipes"]


def _parse_override(text: str) -> tuple[str, Any]:
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


def _apply(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Write the overrides into the tree, then drop or refuse what has no effect any more."""
    new_arch = changes.get("model.arch")
    if isinstance(tree.get("model"), dict) and new_arch not in (None, tree["model"].get("arch")):
        tree["model"] = {}
    for key, value in changes.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{key}: {part!r} is a value, not a section")
        node[last] = value
    for key, switch, reason in list(_ineffective(tree)):
        if key in changes or switch not in changes:
            raise RecipeError(f"{key} has no effect: {reason}. Remove it or change {switch}")
        section, _, field = key.partition(".")
        del tree[section][field]


def _ineffective(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
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
            if field in Evaluate.model_fields and evaluate[field]:
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


def _explain(
    error: ValidationError, *, prefix: tuple[str, ...] = (), allowed: Iterable[str] = ()
) -> str:
    """One line a wrong setting: which, what was given, what is allowed."""
    lines = []
    for item in error.errors():
        location = [*prefix, *(str(part) for part in item["loc"])]
        if location[0] in KINDS:  # pydantic puts the kind, and union branches, into the path
            kinds = [kind_of(kind) for kind in KINDS[location[0]]]
            location = [location[0], *(part for part in location[1:] if part not in kinds)][:2]
        lines.append(_explain_one(item, location, allowed or _fields(location)))
    return "\n".join(dict.fromkeys(lines))


def _explain_one(item: Any, location: list[str], allowed: Iterable[str]) -> str:
    key, given = ".".join(location), item["input"]
    if item["type"] == "extra_forbidden":
        kind = f"setting of [{location[0]}]" if len(location) > 1 else "section"
        return unknown_name(kind, location[-1], allowed)
    if item["type"] == "union_tag_invalid":
        kinds = [kind_of(kind) for kind in KINDS[location[0]]]
        return unknown_name(f"{location[0]}.kind", given.get("kind"), kinds)
    if item["type"] == "missing":
        return f"{key} is required and missing"
    return f"{key} = {given!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _fields(location: list[str]) -> set[str]:
    """Names allowed where an unknown one was found."""
    section = location[0]
    if len(location) == 1:
        return set(Recipe.model_fields)
    if section in KINDS:
        return {field for kind in KINDS[section] for field in kind.model_fields}
    annotation = Recipe.model_fields[section].annotation
    return set(annotation.model_fields) if isinstance(annotation, type) else set()
