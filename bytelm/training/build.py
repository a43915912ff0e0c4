"""From a recipe to its parts, each made once and handed down: corpora, objective, model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bytelm.arch.base import ByteModel, TrainedPart
from bytelm.damage import malformed
from bytelm.data.bundled import find_data
from bytelm.errors import DataError, RecipeError
from bytelm.objectives import Objective, Setup
from bytelm.recipe import Recipe
from bytelm.run import CONFIG, Description, Run
from bytelm.run_model import described_part, trained_parts
from bytelm.training.data import Corpora
from bytelm.training.origin import begin_with

if TYPE_CHECKING:
    from bytelm.tokenizer import BinaryBPE


def build(recipe: "Recipe | str | Path") -> ByteModel:
    """The model of a recipe (a `Recipe`, a name or a path), initialised from `recipe.seed`, or with
    the weights that `model.from` names.

    The caller's random-number generator is left as it was.
    """
    recipe = as_recipe(recipe)
    model = build_model(recipe, build_objective(recipe, open_corpora(recipe)))
    begin_with(model, recipe.model.origin)
    return model


def outline(recipe: "Recipe | str | Path") -> ByteModel:
    """The shapes of a recipe's model, on the meta device: of what is trained, not of trained models
    that are to become a part of it."""
    recipe = as_recipe(recipe)
    with torch.device("meta"):
        return build_model(recipe, build_objective(recipe, open_corpora(recipe)), {})


def open_corpora(recipe: Recipe) -> Corpora:
    """The data of a recipe, as its objective reads it; nothing is opened yet."""
    return Corpora(recipe.data, recipe.objective_config.record_fields)


def build_objective(recipe: Recipe, corpora: Corpora) -> Objective:
    """The objective of a recipe. It opens data and tokenizer when it needs them, or never."""
    tokenizer = recipe.data.tokenizer
    setup = Setup(
        seed=recipe.seed,
        open_corpus=lambda: corpora.training,
        open_tokenizer=None if tokenizer is None else lambda: open_tokenizer(tokenizer),
    )
    return recipe.objective_class(recipe.objective_config, setup)


def build_model(
    recipe: Recipe, objective: Objective, parts: Mapping[str, TrainedPart] | None = None
) -> ByteModel:
    """The model of a recipe for its objective; `RecipeError` where the two do not go together.

    parts  the trained models that become a part of it; None = those that the recipe names
    """
    kind, config = recipe.architecture, recipe.arch_config
    if kind.family != objective.family:
        raise RecipeError(
            f"objective.kind {recipe.objective.kind!r} trains {objective.family} models, and "
            f"model.arch {recipe.model.arch!r} is of the family {kind.family!r}: choose another "
            "of the two"
        )
    parts = trained_parts(config) if parts is None else parts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return kind(config, objective.vocab, **objective.model_arguments(), **parts)


def parts_of(recipe: Recipe, run: Run, *, begun: bool) -> dict[str, TrainedPart]:
    """The trained models that become a part of a recipe's: from where the recipe says or, in a run
    that has `begun` and so holds their weights, as it describes them."""
    if not begun:
        return trained_parts(recipe.arch_config)
    stored, names = run.description().arguments, recipe.arch_config.trained_parts()
    with malformed(run.path / CONFIG, "the description of a model"):
        return {name: described_part(stored[name]) for name in names}


def arguments_of(objective: Objective, parts: Mapping[str, TrainedPart]) -> dict[str, Any]:
    """What a run stores of the model's arguments besides config and vocabulary."""
    described = {name: part.to_dict() for name, part in parts.items()}
    return {**objective.model_arguments(), **described}


def describe(
    recipe: Recipe, model: ByteModel, objective: Objective, arguments: Mapping[str, Any]
) -> Description:
    """What config.json of a run says about its model."""
    return Description.of(
        recipe,
        model,
        specials=objective.specials,
        arguments=arguments,
        files=objective.files(),
    )


def open_tokenizer(path: str) -> "BinaryBPE":
    """The tokenizer `data.tokenizer` names: a folder or file, here or in the repository."""
    from bytelm.tokenizer import BinaryBPE  # its compiled codec, for which byte models never wait

    found = Path(find_data(path))
    if not found.exists():
        raise DataError(
            f"data.tokenizer: there is nothing at {path!r}; give a folder with a tokenizer.json, "
            "such as tokenizers/binary-16k (bytelm tokenizer train makes them)"
        )
    try:
        return BinaryBPE.load(found)
    except FileNotFoundError:
        raise DataError(f"data.tokenizer: there is no tokenizer.json in {found}") from None


def as_recipe(recipe: "Recipe | str | Path", *, overrides: Sequence[str] = ()) -> Recipe:
    """A `Recipe` of whatever names one, with overrides applied."""
    if isinstance(recipe, Recipe):
        return recipe.override(overrides) if overrides else recipe
    return Recipe.load(recipe, overrides=overrides)
