"""`Recipe`: everything that decides a training run, as one validated tree of settings.

Read from `models/NAME.toml`, changed by `section.key=value`, written whole into each run directory.
Choices a reader may question: sections whose meaning depends on a `kind` are one class per kind, so
that a setting of another kind cannot be written down at all; a setting without effect is an error
(never ignored), except that an override which switches a `kind`, an `arch` or a feature off takes
the file's dependent settings with it (`bytelm.recipe_overrides`). [model] and [objective] are
checked by the `Config` of the class that the registry names. That imports torch, so it waits: for
[model] until the model is asked for, for [objective] only while it says nothing at all.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from bytelm.damage import read_object, reason
from bytelm.errors import BytelmError, RecipeError, unknown_name
from bytelm.recipe_overrides import apply_overrides, ineffective
from bytelm.recipe_sections import (
    KINDS,
    AdamWSettings,
    ConstantSettings,
    CosineSettings,
    Count,
    DataSettings,
    EvaluateSettings,
    LogSettings,
    ModelSettings,
    MuonSettings,
    ObjectiveSettings,
    Settings,
    TrainSettings,
    WSDSettings,
    kind_of,
)
from bytelm.registry import ARCHITECTURES, OBJECTIVES

if TYPE_CHECKING:
    from bytelm.arch.base import ArchConfig, ByteModel
    from bytelm.objectives import Objective, ObjectiveConfig


C = TypeVar("C", bound=BaseModel)


class Recipe(Settings):
    """The whole tree. Frozen; `override` makes a changed copy.

    >>> recipe = Recipe.from_dict({
    ...     "model": {"arch": "transformer"}, "data": {"train": ["a.txt"]}, "train": {"steps": 10}})
    >>> recipe.override(["optimizer.lr=1e-3"]).optimizer.lr
    0.001
    """

    name: str = Field("run", description="names the run directory; default: the file's name")
    seed: Count = Field(0, description="of initial weights, the order of the data and all else")
    model: ModelSettings
    data: DataSettings
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: Annotated[MuonSettings | AdamWSettings, Field(discriminator="kind")]
    schedule: Annotated[
        WSDSettings | CosineSettings | ConstantSettings, Field(discriminator="kind")
    ]
    train: TrainSettings
    evaluate: EvaluateSettings = EvaluateSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def load(cls, name: str | Path, *, overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe called `name`, or at that path, with `section.key=value` applied."""
        path = find_recipe(name)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
            raise RecipeError(f"{path} is not valid TOML: {reason(error)}") from None
        return cls.from_dict({"name": path.stem, **raw}, overrides=overrides)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe of a nested dict; `RecipeError` says which setting is wrong and why."""
        tree = deepcopy(dict(raw))
        for section, kinds in KINDS.items():
            if isinstance(tree.setdefault(section, {}), dict):
                tree[section].setdefault("kind", kind_of(kinds[0]))
        apply_overrides(tree, overrides)
        _over_tokens(tree)
        _with_origin(tree)
        recipe = cls._validated(tree)
        recipe._check()
        if recipe.objective != ObjectiveSettings() or recipe.data.curriculum:
            recipe._check_objective()
            defaults = recipe.objective_config.model_dump(mode="json", exclude_none=True)
            recipe = cls._validated({**tree, "objective": {**tree["objective"], **defaults}})
        return recipe

    @classmethod
    def _validated(cls, tree: Mapping[str, Any]) -> "Recipe":
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise RecipeError(_explain(error)) from None

    def override(self, overrides: Sequence[str]) -> "Recipe":
        """A copy with `section.key=value` changes."""
        return Recipe.from_dict(self.to_dict(), overrides=overrides)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, defaults included, settings without effect left out."""
        tree = self.model_dump(exclude_none=True)
        for key, _, _ in list(ineffective(tree)):
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
        try:
            return ARCHITECTURES.get(self.model.arch)
        except BytelmError as error:
            raise RecipeError(f"model.arch: {error}") from None

    @cached_property
    def arch_config(self) -> "ArchConfig":
        """The architecture's own validated config (imports torch)."""
        return _configure("model", self.architecture.Config, self.model.settings)

    @cached_property
    def objective_class(self) -> "type[Objective]":
        """The `Objective` class of `objective.kind` (imports torch)."""
        try:
            return OBJECTIVES.get(self.objective.kind)
        except BytelmError as error:
            raise RecipeError(f"objective.kind: {error}") from None

    @cached_property
    def objective_config(self) -> "ObjectiveConfig":
        """The objective's own validated config (imports torch)."""
        config, settings = self.objective_class.Config, self.objective.settings
        for field in settings:
            users = [] if field in config.model_fields else _users(field)
            if users:
                raise RecipeError(
                    f"objective.{field} has no effect: objective.kind is {self.objective.kind!r}, "
                    f"and only {' and '.join(users)} uses it. Remove it or change objective.kind"
                )
        return _configure("objective", config, settings)

    def _check(self) -> None:
        """What no single field can see."""
        train, data, warmup = self.train, self.data, self.schedule.warmup
        if isinstance(warmup, float) and warmup > 1:
            raise RecipeError(
                f"schedule.warmup = {warmup}: an integer counts steps, a fraction (0 to 1) is a "
                "share of the whole training"
            )
        if train.steps is None and train.bytes is None and train.max_minutes is None:
            raise RecipeError(
                "the recipe does not say when to stop: set train.bytes, train.steps or "
                "train.max_minutes"
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
        if data.strict and data.skip_errors:
            raise RecipeError(
                "data.strict makes what is left out an error, and data.skip_errors leaves errors "
                "out: choose one of them"
            )
        self._check_curriculum()

    def _check_objective(self) -> None:
        """What the objective says it can work with."""
        data, kind, chosen = self.data, self.objective_class, self.objective.kind
        if data.tokenizer is not None and (kind.reads == "bytes" or data.curriculum):
            raise RecipeError(
                "data.tokenizer needs objective.kind 'tokens' (the default beside it) and no "
                f"data.curriculum: {chosen!r} and the rows of a curriculum are defined over bytes"
                if kind.reads == "bytes"
                else "data.tokenizer needs a recipe without data.curriculum: the rows of a "
                "curriculum are defined over bytes"
            )
        if data.tokenizer is None and kind.reads == "tokens":
            raise RecipeError(
                f"objective.kind {chosen!r} predicts the ids of a tokenizer: name one with "
                "data.tokenizer, such as tokenizers/binary-16k"
            )
        if data.field is not None and (fields := self.objective_config.record_fields) is not None:
            names = " and ".join(dict.fromkeys(fields.settings.values()))
            raise RecipeError(
                f"data.field has no effect: objective.kind {chosen!r} reads the fields of records "
                f"that {names} name. Remove it"
            )
        if data.curriculum and not kind.curriculum:
            able = " or ".join(
                repr(name) for name in OBJECTIVES.built_in if OBJECTIVES.get(name).curriculum
            )
            raise RecipeError(
                f"data.curriculum cuts rows into shorter ones, so it needs objective.kind {able}, "
                f"not {chosen!r}"
            )
        if data.policy not in kind.policies:
            raise RecipeError(
                f"objective.kind {chosen!r} needs data.policy = "
                f"{' or '.join(map(repr, kind.policies))}, not {data.policy!r}"
            )

    def _check_curriculum(self) -> None:
        """A curriculum cuts windows of the final length into equal parts."""
        data, final = self.data, self.train.context_bytes
        if data.curriculum is None:
            return
        if data.policy == "bucket":
            raise RecipeError(
                "data.curriculum cuts rows into shorter ones, so it needs a data.policy other than "
                "'bucket', whose rows differ in width"
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


def _over_tokens(tree: dict[str, Any]) -> None:
    """Say `tokens` where a recipe with data.tokenizer says nothing, or `causal`, which was its name
    too before they had one each."""
    objective, data = tree.setdefault("objective", {}), tree.get("data")
    if isinstance(data, dict) and data.get("tokenizer") and objective in ({}, {"kind": "causal"}):
        tree["objective"] = {"kind": "tokens"}


def _with_origin(tree: dict[str, Any]) -> None:
    """Add to [model] the settings of the model that `from` names which it does not say itself. A
    folder that is gone is no mistake here: a run that has begun does not need it."""
    model = tree.get("model")
    if not isinstance(model, dict) or "from" not in model:
        return
    if not isinstance(origin := model["from"], str):
        raise RecipeError(f"model.from = {origin!r}: give the path of a run or checkpoint")
    file = Path(origin) / "config.json"
    if not file.is_file() or "arch" not in model:
        return
    stored = read_object(file, "a model")
    try:
        kind = ARCHITECTURES.get(model["arch"])
        known = stored["config"] if "arch" in stored else kind.release_settings(stored)
    except BytelmError as error:
        raise RecipeError(f"model.from: {error}") from None
    fields = kind.Config.model_fields
    model.update({n: v for n, v in known.items() if n in fields and n not in model})


def _configure(section: str, config: type[C], settings: Mapping[str, Any]) -> C:
    """The validated config of a section whose fields belong to a registered class."""
    try:
        return config(**settings)
    except ValidationError as error:
        message = _explain(error, prefix=(section,), allowed=config.model_fields)
        raise RecipeError(message) from None


def _users(field: str) -> list[str]:
    """The built-in objectives that have such a setting."""
    kinds = OBJECTIVES.built_in
    return [name for name in kinds if field in OBJECTIVES.get(name).Config.model_fields]


def _explain(
    error: ValidationError, *, prefix: tuple[str, ...] = (), allowed: Iterable[str] = ()
) -> str:
    """One line per wrong setting: which, what was given, what is allowed."""
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
