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
        return recipe.architecture(config, vocab_of(recipe))


def vocab_of(recipe: Recipe) -> Vocab:
    """Bytes, or the ids of the recipe's tokenizer."""
    if recipe.data.tokenizer is None:
        return ByteVocab()
    from bytelm.training import tokens

    return tokens.vocab_of(recipe)


def trained_specials(recipe: Recipe) -> tuple[str, ...]:
    """Names of the special symbols that the recipe's model meets in training."""
    if recipe.data.tokenizer is not None:
        return ()
    infilling = ("fim_prefix", "fim_suffix", "fim_middle")
    plain = ("eos", "bos", "pad", "mask", "sep")
    return (*plain, *infilling) if recipe.objective.kind == "fim" else plain


def tokenizer_files(recipe: Recipe) -> dict[str, bytes]:
    """Name -> content of what a run directory needs besides the model: its tokenizer, if any."""
    if recipe.data.tokenizer is None:
        return {}
    from bytelm.training import tokens

    return {tokens.NAME: tokens.tokenizer_of(recipe).to_json()}


def as_recipe(recipe: "Recipe | str | Path", *, overrides: Sequence[str] = ()) -> Recipe:
    """A `Recipe` of whatever names one, with overrides applied."""
    if isinstance(recipe, Recipe):
        return recipe.override(overrides) if overrides else recipe
    return Recipe.load(recipe, overrides=overrides)
