"""Decode states as values: a tree of dataclasses that can be selected, viewed and merged by row.

A model's state nests its layers' states. Three operations on rows are all that decoding needs, and
they recurse over the fields, so no model writes them again: `select` (a copy of some rows, for
beams and finished rows), `view` (some rows, to be worked on and put back) and `scatter` (put them
back). In H-Net the inner network works on a `view` of the rows that start a chunk.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class State:
    """Base of every decode state. Fields are tensors (rows first), States, or tuples of those."""

    def select(self, rows: Tensor) -> Self:
        """The state of `rows` (int64 indices, repeats allowed), sharing nothing that is written."""
        return self._map(lambda leaf: leaf.select(rows), lambda t: t.index_select(0, rows))

    def view(self, rows: Tensor) -> Self:
        """Like `select` without repeats, but caches may share storage with this state."""
        return self._map(lambda leaf: leaf.view(rows), lambda t: t.index_select(0, rows))

    def scatter(self, rows: Tensor, part: Self) -> Self:
        """This state with `rows` replaced by those of `part`, a descendant of `view(rows)`."""
        values = {
            f.name: _scatter(getattr(self, f.name), rows, getattr(part, f.name))
            for f in fields(self)
        }
        return type(self)(**values)

    def _map(self, on_state: Any, on_tensor: Any) -> Self:
        def apply(value: Any) -> Any:
            if isinstance(value, State):
                return on_state(value)
            if isinstance(value, tuple):
                return tuple(apply(v) for v in value)
            return on_tensor(value)

        return type(self)(**{f.name: apply(getattr(self, f.name)) for f in fields(self)})


def _scatter(old: Any, rows: Tensor, new: Any) -> Any:
    if isinstance(old, State):
        return old.scatter(rows, new)
    if isinstance(old, tuple):
        return tuple(_scatter(o, rows, n) for o, n in zip(old, new, strict=True))
    return old.index_copy(0, rows, new)
