"""From a recipe to its parts, each made once and handed down: corpora, objective, model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bytelm.arch.base import ByteModel
from bytelm.data.bundled import find_data
from bytelm.errors import DataError, RecipeError
from bytelm.objectives import Objective, Setup
from bytelm.recipe import Recipe
from bytelm.training.data import Corpora

if TYPE_CHECKING:
    from bytelm.tokenizer import BinaryBPE


def build(recipe: "Recipe | str | Path") -> ByteModel:
    """The model of a recipe (a `Recipe`, a name or a path), initialised from `recipe.seed`.

    The caller's random-number generator is left as it was.
    """
    recipe = as_recipe(recipe)
    return build_model(recipe, build_objective(recipe, open_corpora(recipe)))


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


def build_model(recipe: Recipe, objective: Objective) -> ByteModel:
    """The model of a recipe for its objective; `RecipeError` where the two do not go together."""
    kind, config = recipe.architecture, recipe.arch_config
    if kind.family != objective.family:
        raise RecipeError(
            f"objective.kind {recipe.objective.kind!r} trains {objective.family} models, and "
            f"model.arch {recipe.model.arch!r} is of the family {kind.family!r}: choose another "
            "of the two"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return kind(config, objective.vocab, **objective.model_arguments())


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
