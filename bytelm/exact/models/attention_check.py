"""How far a transformers model attends, and the comparison of an adapter with the model's own
forward that every new model goes through.

A window of 4,096 tokens cannot be crossed at every loading, so both sides are compared twice: as
the model is, and with its windows, chunks and selections cut to a few tokens. Where cutting changes
nothing in the model itself, its window is out of reach or unused, and nobody can tell which: then
texts are limited to what lies inside it. So are texts of a model whose positions are scaled by the
length of the longest text of a call, which would make a text depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.token_lm import Node, PendingParent, TokenLM, extend_trees

CHECKED = 24  # tokens of each text that is compared
_ROWS = 512  # rows that a call may hold (tree_lm.ROWS_PER_FORWARD)
_CUT = 4  # tokens that are left of a window while it is compared
_SPANS = (
    "sliding_window", "sliding_window_size", "window_size", "attention_window_size",
    "attention_chunk_size", "local_attention", "index_topk", "floor_scale",
)  # fmt: skip
_SCALED_BY_LENGTH = ("dynamic", "longrope")


@dataclass(frozen=True)
class Span:
    """A limit on how far attention reaches: attribute `name` of a configuration or a module."""

    owner: Any
    name: str
    value: int


@dataclass(frozen=True, order=True)
class Limit:
    """Up to how many tokens an adapter is exact, and why not beyond."""

    tokens: int
    reason: str


def spans_of(model: Any) -> list[Span]:
    """Every window, chunk and selection of the model that a short text does not cross."""
    owners = [model.config, *_parts(model.config), *model.modules()]
    found = []
    for owner in {id(owner): owner for owner in owners}.values():
        for name in _SPANS:
            value = vars(owner).get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > CHECKED // 2:
                found.append(Span(owner, name, value))
    return found


def _parts(config: Any) -> list[Any]:
    parts = [getattr(config, name) for name in getattr(config, "sub_configs", {})]
    return [part for part in parts if part is not None]


def length_limits(model: Any) -> list[Limit]:
    """Up to how many tokens positions do not depend on the length of the longest text of a call."""
    config = model.config.get_text_config()
    given = getattr(config, "rope_parameters", None) or {}
    kinds = [given] if "rope_type" in given else [v for v in given.values() if isinstance(v, dict)]
    longest = getattr(config, "max_position_embeddings", None)
    limits = [
        (kind.get("original_max_position_embeddings") or longest, kind["rope_type"])
        for kind in kinds
        if kind.get("rope_type") in _SCALED_BY_LENGTH
    ]
    return [Limit(int(n), f"positions scaled by length ({kind})") for n, kind in limits if n]


def check(model: Any, lm: TokenLM) -> Limit | None:
    """Compare `lm`, the adapter of `model`, with the model's own forward over texts of `CHECKED`
    ordinary tokens (fewer if its context is shorter); -> to how many tokens texts must be limited,
    None for no limit.

    `BytelmError` if they differ as the model is. Where they differ, or may differ, with a window
    cut, texts are limited to what lies inside it, or refused if that is less than one call holds.
    """
    texts = _texts(model, lm)
    whole = _own(model, lm, texts)
    difference = _difference(model, _ours(lm, texts), whole)
    if not difference < 1:
        raise BytelmError(
            f"{name_of(model)} cannot be read exactly: what it computes for a tree of texts "
            f"differs from its own forward ({difference:.3g} times what rounding allows): it does "
            "not attend through the interface of transformers, or does not continue from its state "
            "as it reads a whole text; wrap it in your own TokenLM"
        )
    spans: dict[str, list[Span]] = {}
    for span in spans_of(model):
        spans.setdefault(span.name, []).append(span)
    limits = [
        Limit(min(span.value for span in group) - 1, f"its {name}")
        for name, group in spans.items()
        if not _crossed(model, lm, texts, whole, group)
    ]
    for limit in limits:
        if limit.tokens < _ROWS:  # a call holds more rows than that, whatever the texts
            raise BytelmError(
                f"{name_of(model)} cannot be read exactly: whether {limit.reason} "
                f"({limit.tokens + 1}) is kept in a tree of texts cannot be checked; wrap it in "
                "your own TokenLM"
            )
    return min([*limits, *length_limits(model)], default=None)


def _crossed(
    model: Any, lm: TokenLM, texts: list[list[int]], whole: Tensor, spans: Sequence[Span]
) -> bool:
    """Whether the two agree also where texts are longer than the spans."""
    with _cut(spans):
        try:
            cut = _own(model, lm, texts)
            effective = bool((cut != whole).any())
            return effective and _difference(model, _ours(lm, texts), cut) < 1
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False


@torch.inference_mode()
def _own(model: Any, lm: TokenLM, texts: list[list[int]]) -> Tensor:
    """(texts, length, V) log-probabilities after each token, by the model's own forward."""
    ids = torch.tensor([[*lm.start_ids, *text] for text in texts], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, len(lm.start_ids) :]
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


@torch.inference_mode()
def _ours(lm: TokenLM, texts: list[list[int]]) -> Tensor:
    """The same by the adapter: one tree, forked where the texts part, in two calls."""
    cache = lm.open()
    root, _ = lm.root(cache)
    nodes: dict[tuple[int, ...], Node] = {(): root}
    known: dict[tuple[int, ...], Tensor] = {}
    size = len(texts[0])
    for lengths in (range(1, size // 2 + 1), range(size // 2 + 1, size + 1)):
        new = list(dict.fromkeys(tuple(text[:n]) for n in lengths for text in texts))
        place = {prefix: i for i, prefix in enumerate(new)}
        rows = [
            (PendingParent(place[p[:-1]]) if p[:-1] in place else nodes[p[:-1]], p[-1]) for p in new
        ]
        ((found, logprobs),) = extend_trees(lm, [(cache, rows)])
        nodes.update(zip(new, found, strict=True))
        known.update(zip(new, logprobs, strict=True))
    return torch.stack(
        [torch.stack([known[tuple(text[:n])] for n in range(1, size + 1)]) for text in texts]
    )


def _difference(model: Any, ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of what rounding may cause: 1e-3 nats in float32; of
    probabilities 0.1 in less, where improbable tokens move by much."""
    exact = model.dtype in (torch.float32, torch.float64)
    if not exact:
        ours, theirs = ours.exp(), theirs.exp()
    distance = torch.where(ours == theirs, 0.0, (ours - theirs).abs())
    return float(distance.nan_to_num(torch.inf).max()) / (1e-3 if exact else 0.1)


def name_of(model: Any) -> str:
    """The class and the model type, for messages."""
    return f"{type(model).__name__} (model type {model.config.model_type!r})"


def _texts(model: Any, lm: TokenLM) -> list[list[int]]:
    """Two texts that share their first third, of tokens from all over the vocabulary."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit.tokens for limit in length_limits(model)]
    limits += [longest] if isinstance(longest, int) and longest > 0 else []
    size = max(2, min([CHECKED, *(limit - len(lm.start_ids) for limit in limits)]))
    ordinary = [i for i, data in enumerate(lm.vocab_bytes) if data is not None]
    step = max(1, len(ordinary) // (2 * size))
    tokens = [ordinary[(i * step) % len(ordinary)] for i in range(2 * size)]
    shared = size // 3
    return [tokens[:size], [*tokens[:shared], *tokens[size + shared :]]]


@contextmanager
def _cut(spans: Sequence[Span]) -> Iterator[None]:
    for span in spans:
        setattr(span.owner, span.name, _CUT)
    try:
        yield
    finally:
        for span in spans:
            setattr(span.owner, span.name, span.value)
