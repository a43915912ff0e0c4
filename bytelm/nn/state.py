"""Immutable decode states: a tree of dataclasses whose rows can be selected, put back and joined.

A model's state nests its layers' states. Four operations on rows are all that decoding needs, and
they recurse over the fields, so no model writes them again: `select` (a copy of some rows, for
beams and finished rows), `view` (some rows, to be worked on and put back), `scatter` (put them
back) and `join` (the rows of several states, for rows that enter a running batch). In H-Net the
inner network works on a `view` of the rows that start a chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
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
        """This state with `rows` replaced by those of `part`: a descendant of `view(rows)`, or any
        state of the same model with that many rows."""
        values = {
            f.name: _scatter(getattr(self, f.name), rows, getattr(part, f.name))
            for f in fields(self)
        }
        return type(self)(**values)

    def join(self, others: Sequence[Self]) -> Self:
        """The rows of this state, then those of the others, all of one model. What is written to
        the joined state is not seen by its parts."""
        parts = [self, *others]
        values = {f.name: _join([getattr(p, f.name) for p in parts]) for f in fields(self)}
        return type(self)(**values)

    def _map(self, on_state: Any, on_tensor: Any) -> Self:
        def apply(value: Any) -> Any:
            if isinstance(value, State):
                return on_state(value)
            if isinstance(value, tuple):
                return tuple(apply(v) for v in value)
            return on_tensor(value)

        return type(self)(**{f.name: apply(getattr(self, f.name)) for f in fields(self)})


def extend_rows(
    extend: Callable[[Tensor, Tensor | None, Any], tuple[Tensor, Any]],
    x_BCD: Tensor,
    counts: Tensor,
    state: State,
) -> tuple[Tensor, Any]:
    """Feed counts[b] >= 0 of the positions x (B, C, D) to the rows that have any, at least one; ->
    (outputs (B, C, D), those of other rows 0; the new state). `extend` takes rows with at least one
    position each, as the `extend` of stacks does; its outputs may have another width."""
    rows = counts.nonzero().squeeze(1)
    assert len(rows), "no row has a position"
    some = counts[rows]
    given = None if x_BCD.shape[1] == 1 else some
    if len(rows) == len(x_BCD):
        return extend(x_BCD, given, state)
    out, part = extend(x_BCD[rows], given, state.view(rows))
    z = out.new_zeros(len(x_BCD), *out.shape[1:]).index_copy(0, rows, out)
    return z, state.scatter(rows, part)


def _scatter(old: Any, rows: Tensor, new: Any) -> Any:
    if isinstance(old, State):
        return old.scatter(rows, new)
    if isinstance(old, tuple):
        return tuple(_scatter(o, rows, n) for o, n in zip(old, new, strict=True))
    return old.index_copy(0, rows, new)


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, State):
        return first.join(values[1:])
    if isinstance(first, tuple):
        return tuple(_join(list(parts)) for parts in zip(*values, strict=True))
    return torch.cat(values)
