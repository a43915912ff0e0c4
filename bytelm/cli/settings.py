"""Config classes as tables of settings: name, type, default, description, for people and as JSON.

Types are said in words of TOML, since that is where settings are written.
"""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_WORDS = {int: "integer", float: "number", bool: "true | false", str: "text", type(None): "none"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def settings_of(config: type[BaseModel]) -> list[dict[str, Any]]:
    """One entry per field: `name`, `type`, `required`, `default` (None if required or absent) and
    `description`, in the order of the class."""
    return [
        {
            "name": name,
            "type": _type_of(field),
            "required": field.is_required(),
            "default": None if field.is_required() else _plain(field.get_default()),
            "description": field.description,
        }
        for name, field in config.model_fields.items()
    ]


def lines_of(settings: Iterable[dict[str, Any]], *, width: int = 100) -> list[str]:
    """The same as text: a line with name, type and default, and the description below it."""
    import textwrap

    lines = []
    for setting in settings:
        default = "required" if setting["required"] else f"default {toml(setting['default'])}"
        lines.append(f"  {setting['name']}: {setting['type']} ({default})")
        lines += textwrap.wrap(
            setting["description"] or "", width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return lines


def _type_of(field: FieldInfo) -> str:
    return type_text(field.annotation, field.metadata)


def type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """An annotation in words, with its limits.

    >>> type_text(list[int]), type_text(Literal["a", "b"] | None), type_text(tuple[float, ...])
    ('list of integer', '"a" | "b" | none', 'list of number')
    """
    text = _base_text(annotation)
    limits = [
        f"{sign} {value:g}"
        for item in metadata
        for name, sign in _LIMITS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return f"{text} {' and '.join(limits)}" if limits else text


def _base_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        nested = [part for item in metadata for part in getattr(item, "metadata", [item])]
        return type_text(inner, nested)
    if origin is Literal:
        return " | ".join(toml(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(_base_text, arguments)))
    if origin in (list, tuple):
        return f"list of {_base_text(arguments[0])}"
    if isinstance(annotation, type) and annotation is not Any:
        return _WORDS.get(annotation, "list" if annotation is list else annotation.__name__)
    return "anything"


def _plain(value: Any) -> Any:
    """The value as JSON holds it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def toml(value: Any) -> str:
    """The value as a recipe has it, on one line.

    >>> toml(["m1", [True, 0.5], None])
    '["m1", [true, 0.5], none]'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
