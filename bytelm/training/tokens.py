"""The tokenizer of a recipe with `data.tokenizer`: found, read, and kept with the run.

Imported only by such recipes' runs, so byte models never wait for the compiled codec.
"""

from functools import lru_cache
from pathlib import Path

from bytelm.data.bundled import find_data
from bytelm.errors import DataError
from bytelm.recipe import Recipe
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.files import NAME
from bytelm.tokenizer.objective import CausalTokens, token_vocab
from bytelm.vocab import TokenVocab


def tokenizer_of(recipe: Recipe) -> BinaryBPE:
    """The tokenizer `data.tokenizer` names: a folder or file, here or in the repository."""
    assert recipe.data.tokenizer is not None, "the recipe's model reads bytes"
    path = Path(find_data(recipe.data.tokenizer))
    if not path.exists():
        raise DataError(
            f"data.tokenizer: there is nothing at {recipe.data.tokenizer!r}; give a folder with a "
            "tokenizer.json, such as tokenizers/binary-16k (bytelm tokenizer train makes them)"
        )
    inside = [path] if path.is_file() else [path, *path.glob(NAME + "*")]
    return _load(path, max(entry.stat().st_mtime_ns for entry in inside))


@lru_cache(maxsize=4)
def _load(path: Path, changed: int) -> BinaryBPE:
    """Read once for the model, the data and the run; again if the file is another."""
    try:
        return BinaryBPE.load(path)
    except FileNotFoundError:
        raise DataError(f"data.tokenizer: there is no {NAME} in {path}") from None


def vocab_of(recipe: Recipe) -> TokenVocab:
    """The ids the recipe's model has."""
    return token_vocab(tokenizer_of(recipe))


def objective_of(recipe: Recipe) -> CausalTokens:
    """Next-token prediction with the recipe's tokenizer."""
    return CausalTokens(tokenizer_of(recipe), vocab_of(recipe))
