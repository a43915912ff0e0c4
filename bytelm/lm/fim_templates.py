"""In which format a model is asked to infill: `Template`, and the table of families.

Formats are data: `fim_templates.toml`, a table for each family with its source, and files of the
same form by others (`read_template`). Special symbols are contexts, never text, so no prefix or
suffix can forge one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from bytelm.errors import BytelmError, unknown_name

Order = Literal["psm", "spm"]
PREFIX, SUFFIX, BLANK = "{prefix}", "{suffix}", "{blank}"
_TABLE = Path(__file__).with_name("fim_templates.toml")
_KEYS = ("models", "psm", "spm", "ends", "needs", "source")


@dataclass(frozen=True)
class Template:
    """One family's format.

    psm, spm   parts of a prompt, prefix or suffix first; None where the family was not trained on
               it. PREFIX and SUFFIX stand for the texts, BLANK for the dummy blank, bytes for
               themselves; everything else names a special symbol. The middle follows
    ends       special symbols that end a middle, besides the model's own end of text
    needs      further symbols by which a model is known to be of the family
    blank      the model's own dummy blank, b"" if its tokenizer has none
    """

    name: str
    psm: tuple[str | bytes, ...] | None = None
    spm: tuple[str | bytes, ...] | None = None
    ends: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    models: str = ""
    source: str = ""
    blank: bytes = b""

    @property
    def orders(self) -> tuple[Order, ...]:
        """Those that the family was trained on, its own first."""
        return tuple(order for order in get_args(Order) if getattr(self, order) is not None)

    @property
    def symbols(self) -> set[str]:
        """The special symbols a model needs to know this format."""
        parts = [part for order in self.orders for part in getattr(self, order)]
        named = {part for part in parts if isinstance(part, str)} - {PREFIX, SUFFIX, BLANK}
        return named | set(self.needs)

    @property
    def has_blank(self) -> bool:
        """Whether a dummy blank has a place in it."""
        return any(BLANK in getattr(self, order) for order in self.orders)

    def fill(
        self, order: Order | None = None, *, prefix: bytes, suffix: bytes
    ) -> tuple[list[bytes | str], bytes]:
        """(context, prompt) after which the middle follows.

        order: default: the family's own. `BytelmError` for one that it was not trained on.
        """
        order = order or self.orders[0]
        parts = self.psm if order == "psm" else self.spm
        if parts is None:
            raise BytelmError(
                f"this model's family ({self.name}) was not trained on the order {order}: use "
                f"{self.orders[0]}"
            )
        prompt = b""
        if parts[-1] == PREFIX:  # it runs on into the middle: one text, and one dummy blank
            parts, prompt = parts[:-1], prefix
        texts = {PREFIX: prefix, SUFFIX: suffix}
        context: list[bytes | str] = []
        for part, following in zip(parts, (*parts[1:], None), strict=True):
            if part == BLANK:
                begun = following is None or texts[str(following)]
                context += [self.blank] if self.blank and begun else []
            else:
                context.append(texts.get(part, part) if isinstance(part, str) else part)
        return context, prompt

    def ends_of(self, specials: Iterable[str]) -> list[str]:
        """The symbols among `specials` that end a middle."""
        return [name for name in self.ends if name in set(specials)]


def parse_template(name: str, value: Mapping[str, Any]) -> Template:
    """The template that a table of a TOML file describes; `BytelmError` for one that cannot be."""
    for key in value:
        if key not in _KEYS:
            raise BytelmError(f"template {name}: {unknown_name('key', key, _KEYS)}")
    orders = {
        order: _parts(name, order, value[order]) for order in ("psm", "spm") if order in value
    }
    if not orders:
        raise BytelmError(f"template {name} has neither psm nor spm: give the parts of a prompt")
    for key in ("ends", "needs"):
        _check_names(name, key, value.get(key, []))
    return Template(
        name,
        psm=orders.get("psm"),
        spm=orders.get("spm"),
        ends=tuple(value.get("ends", ())),
        needs=tuple(value.get("needs", ())),
        models=str(value.get("models", "")),
        source=str(value.get("source", "")),
    )


def _parts(name: str, order: str, value: Any) -> tuple[str | bytes, ...]:
    parts: list[str | bytes] = []
    for part in value if isinstance(value, list) else [None]:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and len(part) == 1:
            parts.append(part["text"].encode())
        else:
            raise BytelmError(
                f"template {name}: {order} is a list of symbol names, {PREFIX}, {SUFFIX}, {BLANK} "
                f'and {{text = "..."}}, not {value!r}'
            )
    for text in (PREFIX, SUFFIX):
        if parts.count(text) != 1:
            raise BytelmError(f"template {name}: {order} has {text} {parts.count(text)} times")
    for at, part in enumerate(parts):
        if part == BLANK and parts[at + 1 : at + 2] not in ([PREFIX], [SUFFIX]):
            raise BytelmError(f"template {name}: {order} has {BLANK} where no text follows")
    if all(isinstance(p, bytes) or p in (PREFIX, SUFFIX, BLANK) for p in parts):
        raise BytelmError(f"template {name}: {order} names no special symbol")
    return tuple(parts)


def _check_names(name: str, key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BytelmError(f"template {name}: {key} is a list of symbol names, not {value!r}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BytelmError(f"{path} is not TOML: {error}") from None


TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {name: parse_template(name, value) for name, value in _read(_TABLE).items()}
)


def read_template(name: str | Path) -> Template:
    """A template of the table by its name, or the one in a TOML file of the table's form (its keys
    at the top level). `BytelmError` if it is neither or not well formed."""
    if str(name) in TEMPLATES:
        return TEMPLATES[str(name)]
    path = Path(name)
    if path.is_file():
        return parse_template(path.stem, _read(path))
    known = unknown_name("template", str(name), TEMPLATES)
    raise BytelmError(f"{known}, or a TOML file with a template")


def family_of(specials: Iterable[str]) -> Template | None:
    """The template of the family whose special symbols these are; None for none."""
    known = set(specials)
    return next((template for template in TEMPLATES.values() if template.symbols <= known), None)


# every special symbol that the table names: a marker, whatever type a file gives it
MARKERS = frozenset(
    name for template in TEMPLATES.values() for name in (*template.symbols, *template.ends)
)
