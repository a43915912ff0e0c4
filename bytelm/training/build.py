"""From a recipe to an initialised model."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bytelm.arch.base import ByteModel
from bytelm.recipe import Recipe
from bytelm.vocab import ByteVocab, Vocab


def build(recipe: "Recipe | str | Path") -> ByteModel:
    """The model of a recipe (a `Recipe`, a name or a path), initialised from `recipe.seed`.

    The caller's random-number generator is left as it was.
    """
    recipe = as_recipe(recipe)
    config = recipe.arch_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return recipe.architecture(config, _vocab(recipe))


def _vocab(recipe: Recipe) -> Vocab:
    """Bytes, or the ids of the recipe's tokenizer."""
    if recipe.data.tokenizer is None:
        return ByteVocab()
    from bytelm.training.tokens import vocab_of

    return vocab_of(recipe)


def as_recipe(recipe: "Recipe | str | Path", *, overrides: Sequence[str] = ()) -> Recipe:
    """A `Recipe` of whatever names one, with overrides applied."""
    if isinstance(recipe, Recipe):
        return recipe.override(overrides) if overrides else recipe
    return Recipe.load(recipe, overrides=overrides)
