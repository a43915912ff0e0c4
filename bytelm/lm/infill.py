"""Filling a gap between a prefix and a suffix, with any `ByteLM`.

A model trained to infill is asked in its own format (`fim_templates.py`), chosen by the special
symbols the model has, or given.

Any other model is asked exactly: P(middle | prefix, suffix) is proportional to
P(prefix middle suffix), so middles sampled from the model as continuations of the prefix, cut at
every length, are compared by that joint probability. A longer middle pays for its bytes and a
shorter one for an improbable suffix; no length is favoured by hand. Comparing costs a forward over
prefix and suffix for each, so a middle is left out where log P(middle and one byte of the suffix),
which its joint cannot exceed, is already below the best joint found.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import get_args

import numpy as np
import torch

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.fim_templates import TEMPLATES as TEMPLATES
from bytelm.lm.fim_templates import Order, Template, family_of, read_template
from bytelm.lm.generate import generate
from bytelm.lm.protocol import ByteLM, ContextLike, require_possible
from bytelm.lm.sampling import Sampling
from bytelm.lm.utf8 import utf8_between
from bytelm.vocab import END

NO_TEMPLATE = (
    "the model has none of the formats for infilling, so middles sampled after the prefix are "
    'compared by their exact probability (template "none")'
)
NONE = "none"  # the name of no template: compare middles by their probability
SAMPLES = 16  # continuations of the prefix from which middles are cut
_ROUNDS = 16  # of comparing middles
_NEGLIGIBLE = 16.0  # nats: what is less probable by that much is not chosen at temperature 1


def find_template(lm: ByteLM) -> Template | None:
    """The format of the family that the model's special symbols are those of; None = of none. A
    model may have the symbols of its family without having been trained to infill."""
    found = family_of(lm.specials)
    return None if found is None else _for_model(found, lm)


def choose_template(lm: ByteLM, template: Template | str | None) -> Template | None:
    """The format in which `infill` asks the model; None = it compares middles.

    template: as in `infill`. `BytelmError` if it is unknown, names a symbol that the model does not
    have, or an end that does not end the model's texts.
    """
    if template is None:
        return find_template(lm)
    if template == NONE:
        return None
    chosen = template if isinstance(template, Template) else read_template(template)
    for symbol in sorted(chosen.symbols):
        if symbol not in lm.specials:
            raise BytelmError(
                f"template {chosen.name} does not fit this model: "
                + unknown_name("special symbol", symbol, lm.specials)
            )
    for name in chosen.ends_of(lm.specials):
        if lm.ends is not None and name not in lm.ends:
            raise BytelmError(
                f"template {chosen.name} ends a middle with {name!r}, which does not end the texts "
                f"of this model as it is loaded: load it with ends=[{name!r}]"
            )
    return _for_model(chosen, lm)


def _for_model(template: Template, lm: ByteLM) -> Template:
    """The template with the dummy blank of the model's tokenizer."""
    blank = lm.dummy_prefix if template.has_blank else b""
    return replace(template, blank=blank) if blank else template


def infill(
    lm: ByteLM,
    *,
    prefix: bytes = b"",
    suffix: bytes = b"",
    max_bytes: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    utf8: bool = False,
    context: ContextLike = None,
    template: Template | str | None = None,
    order: Order | None = None,
    candidates: int = 64,
    suffix_bytes: int = 256,
) -> bytes:
    """The bytes between `prefix` and `suffix`.

    A model without a format for infilling is asked by comparing middles, which is said by a
    `UserWarning`: template="none" asks for it.

    temperature, top_k, top_p, min_p, seed, utf8   as in `generate`
    context      what stands before the prefix, or the source that an encoder reads
    template     the format in which to ask: a family of `TEMPLATES`, a TOML file, a `Template`, or
                 "none" to compare middles; default: the family whose special symbols the model has
    order        psm or spm, for models trained to infill; default: the family's own
    candidates   for other models: how many middles are compared at a time by their exact joint
                 probability, until no other can be better, and at most 16 times;
                 `temperature` then applies to the choice among them (0 = the most probable)
    suffix_bytes for other models: they are compared by this much of the suffix, because each costs
                 a forward over it
    """
    if order is not None and order not in get_args(Order):
        raise BytelmError(unknown_name("order", order, get_args(Order)))
    (prefix, suffix), _ = lm.checked("prefix or suffix", [prefix, suffix], None)
    numbers = (candidates, suffix_bytes, max_bytes)
    whole = all(isinstance(number, Integral) for number in numbers)
    if not whole or candidates < 1 or suffix_bytes < 1 or max_bytes < 0:
        raise BytelmError(
            "candidates and suffix_bytes must be at least 1 and max_bytes at least 0, whole, not "
            f"{candidates}, {suffix_bytes} and {max_bytes}"
        )
    chosen = choose_template(lm, template)
    if chosen is None and order is not None:
        raise BytelmError(
            f"order={order!r} says how a format for infilling is filled, and none is used here: "
            "leave it out"
        )
    if chosen is None and suffix:
        if template is None:
            warnings.warn(NO_TEMPLATE, stacklevel=2)
        sampling = Sampling(temperature=temperature or 1.0, top_k=top_k, top_p=top_p, min_p=min_p)
        found = _propose(
            lm, prefix, suffix, max_bytes, sampling=sampling, seed=seed, utf8=utf8, context=context
        )
        compare = partial(score_middles, lm, prefix, suffix[:suffix_bytes], context=context)
        middles, scores = _compare(found, compare, candidates, temperature)
        return _choose(middles, scores, temperature, seed)
    prompt, constraint = prefix, None
    if chosen is not None:
        filled, prompt = chosen.fill(order, prefix=prefix, suffix=suffix)
        context = [*_parts(context), *filled]
        constraint = utf8_between(prefix, suffix) if utf8 else None
    return generate(
        lm,
        prompt,
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        utf8=utf8 and constraint is None,
        constraint=constraint,
        context=context,
    )


def score_middles(
    lm: ByteLM,
    prefix: bytes,
    suffix: bytes,
    middles: Sequence[bytes],
    *,
    context: ContextLike = None,
) -> list[float]:
    """log P(middle + suffix | prefix) of each middle in nats: the exact joint, up to a constant.

    context: what stands before the prefix, or the source that an encoder reads.
    """
    texts, skipped = [middle + suffix for middle in middles], 0
    if lm.context_is_text:  # a context that all share is read once by models that can
        context = [*_parts(context), prefix]
    else:
        texts, skipped = [prefix + text for text in texts], len(prefix)
    scores = lm.score_batch_with_end(texts, context=[context] * len(texts))
    return [float(score[skipped:-1].sum()) for score in scores]


def _parts(context: ContextLike) -> Sequence[bytes | str]:
    """A context as a sequence."""
    if not context:
        return ()
    return [context] if isinstance(context, bytes) else context


def _propose(
    lm: ByteLM,
    prefix: bytes,
    suffix: bytes,
    max_bytes: int,
    *,
    sampling: Sampling,
    seed: int,
    utf8: bool,
    context: ContextLike,
) -> dict[bytes, _Promise]:
    """Different middles: all beginnings of sampled continuations of the prefix. Row 0 is the greedy
    one."""
    state = lm.start_batch([prefix], context=[context])
    require_possible(lm, state.logprobs()[0], prefix, context)
    state = state.select([0] * SAMPLES)
    random = np.random.Generator(np.random.Philox(seed))
    texts, gained = [b""] * SAMPLES, torch.zeros(SAMPLES, dtype=torch.float64)
    found: dict[bytes, _Promise] = {}
    greedy = True  # whether the first row is the greedy one
    for step in range(max_bytes + 1):
        logprobs_BO = state.logprobs().cpu().double()
        for text, before, after in zip(
            texts, gained.tolist(), logprobs_BO[:, suffix[0]].tolist(), strict=True
        ):
            found[text] = _Promise(before + after, after)
        logprobs_BO[:, END] = -math.inf  # a suffix is still to come
        going_B = ~logprobs_BO.amax(-1).isneginf()
        if step == max_bytes or not bool(going_B.any()):
            break
        going = going_B.nonzero()[:, 0].tolist()
        drawn = random.random(len(texts))[going]
        outcomes = sampling.choose(logprobs_BO[going], drawn)
        if going[0] == 0 and greedy:
            outcomes[0] = int(logprobs_BO[0].argmax())
        greedy = greedy and going[0] == 0
        gained = gained[going] + logprobs_BO[going, outcomes]
        texts = [texts[b] + bytes([byte]) for b, byte in zip(going, outcomes, strict=True)]
        if len(going) < state.rows:
            state = state.select(going)
        state = state.feed([bytes([byte]) for byte in outcomes])
    if utf8:
        joins = utf8_between(prefix, suffix)
        found = {middle: promise for middle, promise in found.items() if joins.accepts(middle)}
        if not found:
            raise BytelmError(
                "no sampled middle makes well-formed UTF-8 between this prefix and suffix"
            )
    return found


@dataclass(frozen=True, slots=True)
class _Promise:
    """What sampling already tells of a middle, in nats.

    bound   log P(middle and the first byte of the suffix): its joint is at most that
    fit     log P(that byte after the middle)
    """

    bound: float
    fit: float


def _compare(
    found: Mapping[bytes, _Promise],
    joint: Callable[[Sequence[bytes]], list[float]],
    count: int,
    temperature: float,
) -> tuple[list[bytes], list[float]]:
    """Middles and their joints, `count` at a time: those of the highest bounds, and as many after
    which the suffix begins best, since short middles alone have high bounds. It ends where no other
    can come near the best: nearer than matters at this temperature."""
    by_bound = sorted(found, key=lambda middle: -found[middle].bound)
    by_fit = sorted(found, key=lambda middle: -found[middle].fit)
    order = list(dict.fromkeys(m for both in zip(by_bound, by_fit, strict=True) for m in both))
    middles: list[bytes] = []
    scores: list[float] = []
    for _ in range(_ROUNDS):
        middles += order[:count]
        scores += joint(order[:count])
        least = max(scores) - temperature * _NEGLIGIBLE
        order = [middle for middle in order[count:] if found[middle].bound > least]
        if not order:
            break
    return middles, scores


def _choose(
    middles: Sequence[bytes], scores: Sequence[float], temperature: float, seed: int
) -> bytes:
    """One middle with probability proportional to exp(score / temperature)."""
    joint = np.array(scores)
    if joint.max() == -math.inf:
        raise BytelmError(
            "the model gives the suffix probability zero after every middle that was sampled: "
            "raise max_bytes, or check that its vocabulary can write the suffix"
        )
    if temperature == 0:
        return middles[int(joint.argmax())]
    weights = np.exp((joint - joint.max()) / temperature)
    random = np.random.Generator(np.random.Philox(seed + 1))
    return middles[int(random.choice(len(middles), p=weights / weights.sum()))]
