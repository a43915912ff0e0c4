"""Architectures by name, loaded on first use.

A new architecture is one file in `bytelm/arch/` and one line here, or an entry point of another
package in the group `bytelm.architectures` ("name = module:Class").
"""

from importlib import import_module
from importlib.metadata import entry_points

from bytelm.errors import BytelmError, unknown_name

_BUILT_IN = {
    "transformer": "bytelm.arch.transformer:Transformer",
    "hnet": "bytelm.arch.hnet:HNet",
}


def architectures() -> dict[str, str]:
    """Name -> "module:Class" of every known architecture; ours win over entry points."""
    found = {entry.name: entry.value for entry in entry_points(group="bytelm.architectures")}
    return {**found, **_BUILT_IN}


def architecture(name: str) -> type:
    """The `ByteModel` class registered under `name`; `BytelmError` names the nearest match."""
    known = architectures()
    if name not in known:
        raise BytelmError(unknown_name("architecture", name, known))
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
