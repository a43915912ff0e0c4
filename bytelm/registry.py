"""What can be named in a recipe or opened from a path, loaded on first use.

There is one registry for each kind of part that is meant to be added from outside: architectures,
objectives, sources and loaders. A new part is one file and one line in a table below, or an entry
point of another package in the registry's group ("name = module:attribute"). A name of ours cannot
be taken by an entry point, so that installing a package never changes what an old recipe means.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from bytelm.errors import BytelmError, unknown_name


@lru_cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Name -> "module:attribute" of a group, looked up once per search path: it takes long."""
    return {entry.name: entry.value for entry in entry_points(group=group)}


@dataclass(frozen=True)
class Registry:
    """Parts of one kind by name; nothing is imported before `get`.

    kind      what an error message calls one of them, such as "architecture"
    group     the entry-point group that other packages add to
    built_in  name -> "module:attribute" of our own, in the order in which they are tried

    >>> registry = Registry("codec", "bytelm.no_such_group", {"plain": "bytelm.errors:DataError"})
    >>> registry.names(), registry.get("plain").__name__
    (['plain'], 'DataError')
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def targets(self) -> dict[str, str]:
        """Name -> "module:attribute": ours first, then entry points by name."""
        found = _entry_points(self.group, tuple(sys.path))
        foreign = {name: found[name] for name in sorted(found) if name not in self.built_in}
        return {**self.built_in, **foreign}

    def names(self) -> list[str]:
        """Every name that `get` knows: ours first, then entry points by name."""
        return list(self.targets())

    def get(self, name: str) -> Any:
        """The part called `name`.

        Raises `BytelmError` for an unknown name (with the nearest match) and for an entry point
        whose module or attribute does not exist.
        """
        targets = self.targets()
        if name not in targets:
            raise BytelmError(unknown_name(self.kind, name, targets))
        module, _, attribute = targets[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except BytelmError:
            raise
        except (ImportError, AttributeError) as error:
            raise BytelmError(
                f"the {self.kind} {name!r} is registered as {targets[name]!r}, which cannot be "
                f"imported: {error}"
            ) from error

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, part) of every part in the order of `names`, each imported when it is reached."""
        for name in self.names():
            yield name, self.get(name)


ARCHITECTURES = Registry(
    "architecture",
    "bytelm.architectures",
    {
        "transformer": "bytelm.arch.transformer:Transformer",
        "hnet": "bytelm.arch.hnet:HNet",
        "spacebyte": "bytelm.arch.spacebyte:SpaceByte",
        "wordpool": "bytelm.arch.wordpool:WordPool",
        "megabyte": "bytelm.arch.megabyte:MegaByte",
        "blt": "bytelm.arch.blt:BLT",
        "t5": "bytelm.arch.t5:T5",
        "mrt5": "bytelm.arch.t5:MrT5",
        "encoder": "bytelm.arch.encoder:Encoder",
        "byte2word": "bytelm.arch.byte2word:Byte2Word",
    },
)
OBJECTIVES = Registry(
    "objective",
    "bytelm.objectives",
    {
        "causal": "bytelm.objectives.causal:Causal",
        "fim": "bytelm.objectives.fim:Fim",
        "tokens": "bytelm.objectives.tokens:Tokens",
        "classification": "bytelm.objectives.classification:Classification",
        "masked_words": "bytelm.objectives.masked_words:MaskedWords",
        "seq2seq": "bytelm.objectives.seq2seq:Seq2Seq",
        "span_corruption": "bytelm.objectives.span_corruption:SpanCorruption",
    },
)
SOURCES = Registry(
    "source",
    "bytelm.sources",
    {
        "hub": "bytelm.data.sources.hub:HubSource",
        "corpus": "bytelm.data.corpus.documents:CorpusSource",
        "json-lines": "bytelm.data.sources.json_lines:JsonLinesSource",
        "tsv": "bytelm.data.sources.tsv:TsvSource",
        "parquet": "bytelm.data.sources.parquet:ParquetSource",
        "zip": "bytelm.data.sources.zip:ZipSource",
        "ar": "bytelm.data.sources.ar:ArSource",
        "tar": "bytelm.data.sources.tar:TarSource",
        "compressed": "bytelm.data.sources.compressed:CompressedSource",
    },
)
LOADERS = Registry(
    "loader",
    "bytelm.loaders",
    {
        "run": "bytelm.loading:RunLoader",
        "subword-run": "bytelm.loading:SubwordRunLoader",
        "gguf": "bytelm.loading:GgufLoader",
        "huggingface": "bytelm.loading:HuggingFaceLoader",
    },
)


def architectures() -> dict[str, str]:
    """Name -> "module:Class" of every known architecture."""
    return ARCHITECTURES.targets()


def architecture(name: str) -> type:
    """The `ByteModel` class registered under `name`; `BytelmError` names the nearest match."""
    return ARCHITECTURES.get(name)
