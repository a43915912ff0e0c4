"""bytelm: byte-level, tokenizer-free language models behind one next-byte interface.

Importing this package loads the standard library only: every public name is fetched on first use,
so that `bytelm --help` never waits for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bytelm.version import __version__ as __version__

# public name -> module that defines it
_PUBLIC = {
    "Batch": "bytelm.data",
    "BinaryBPE": "bytelm.tokenizer",
    "ByteLM": "bytelm.lm.protocol",
    "ByteState": "bytelm.lm.protocol",
    "ByteVocab": "bytelm.vocab",
    "Corpus": "bytelm.data",
    "Ensemble": "bytelm.lm.ensemble",
    "GenerateOptions": "bytelm.lm.options",
    "Generation": "bytelm.lm.generation",
    "ModelDrafter": "bytelm.lm.model_draft",
    "PromptLookup": "bytelm.lm.draft",
    "Recipe": "bytelm.recipe",
    "TokenLM": "bytelm.exact",
    "build": "bytelm.training",
    "convert": "bytelm.exact",
    "generate": "bytelm.lm.generate",
    "infill": "bytelm.lm.infill",
    "load": "bytelm.loading",
    "load_classifier": "bytelm.loading",
    "load_filler": "bytelm.loading",
    "train": "bytelm.training",
}
_SUBPACKAGES = ("hub",)

__all__ = [*sorted(_PUBLIC), "hub", "__version__"]

if TYPE_CHECKING:
    from bytelm import hub as hub
    from bytelm.data import Batch as Batch
    from bytelm.data import Corpus as Corpus
    from bytelm.exact import TokenLM as TokenLM
    from bytelm.exact import convert as convert
    from bytelm.lm.draft import PromptLookup as PromptLookup
    from bytelm.lm.generation import Generation as Generation
    from bytelm.lm.model_draft import ModelDrafter as ModelDrafter
    from bytelm.lm.options import GenerateOptions as GenerateOptions
    from bytelm.lm.protocol import ByteLM as ByteLM
    from bytelm.lm.protocol import ByteState as ByteState
    from bytelm.vocab import ByteVocab as ByteVocab


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"bytelm.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bytelm' has no attribute {name!r}; it has {__all__}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
