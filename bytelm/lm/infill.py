"""Filling a gap between a prefix and a suffix, with any `ByteLM`.

A model trained to infill is asked in its own format: the formats are data (`TEMPLATES`), chosen by
the special symbols the model has. Special symbols are contexts, never text, so no prefix or suffix
can forge one.

Any other model is asked exactly: P(middle | prefix, suffix) is proportional to
P(prefix middle suffix), so middles sampled from the model as continuations of the prefix, cut at
every length, are compared by that joint probability. A longer middle pays for its bytes and a
shorter one for an improbable suffix; no length is favoured by hand. Comparing costs a forward over
prefix and suffix for each, so a middle is left out where log P(middle and one byte of the suffix),
which its joint cannot exceed, is already below the best joint found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.generate import generate
from bytelm.lm.protocol import ByteLM, ContextLike, require_possible
from bytelm.lm.sampling import Sampling
from bytelm.lm.utf8 import utf8_between
from bytelm.vocab import END

Order = Literal["psm", "spm"]
PREFIX, SUFFIX = "{prefix}", "{suffix}"
SAMPLES = 16  # continuations of the prefix from which middles are cut
_ROUNDS = 16  # of comparing middles
_NEGLIGIBLE = 16.0  # nats: what is less probable by that much is not chosen at temperature 1


@dataclass(frozen=True)
class Template:
    """One model family's format. PREFIX and SUFFIX stand for the texts, everything else names a
    special symbol; what follows is the middle. In `spm` the prefix comes last and runs on into the
    middle; None where the family was not trained on it."""

    psm: tuple[str, ...]
    spm: tuple[str, ...] | None

    @property
    def symbols(self) -> set[str]:
        """The special symbols a model needs to know this format."""
        return set(self.psm) - {PREFIX, SUFFIX}

    def fill(
        self, order: Order, *, prefix: bytes, suffix: bytes
    ) -> tuple[list[bytes | str], bytes]:
        """(context, prompt) after which the middle follows."""
        parts = self.psm if order == "psm" else self.spm
        if parts is None:
            raise BytelmError("this model's family was not trained on the order spm: use psm")
        prompt = b""
        if parts[-1] == PREFIX:
            parts, prompt = parts[:-1], prefix
        texts: dict[str, bytes] = {PREFIX: prefix, SUFFIX: suffix}
        return [texts.get(part, part) for part in parts], prompt


def _template(pre: str, suf: str, mid: str, *, spm: bool) -> Template:
    """PRE prefix SUF suffix MID; spm: PRE SUF suffix MID prefix (Bavarian et al. 2022, SPM2)."""
    swapped = (pre, suf, SUFFIX, mid, PREFIX) if spm else None
    return Template((pre, PREFIX, suf, SUFFIX, mid), swapped)


TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "bytelm": _template("fim_prefix", "fim_suffix", "fim_middle", spm=True),
        "codellama": _template("▁<PRE>", "▁<SUF>", "▁<MID>", spm=True),
        "starcoder": _template("<fim_prefix>", "<fim_suffix>", "<fim_middle>", spm=True),
        "deepseek": _template("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", spm=False),
        "qwen": _template("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", spm=False),
    }
)


def find_template(lm: ByteLM) -> Template | None:
    """The format the model was trained to infill in, by its special symbols; None = in none."""
    return next((t for t in TEMPLATES.values() if t.symbols <= lm.specials.keys()), None)


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
    order: Order = "psm",
    candidates: int = 64,
    suffix_bytes: int = 256,
) -> bytes:
    """The bytes between `prefix` and `suffix`.

    temperature, top_k, top_p, min_p, seed, utf8   as in `generate`
    context      what stands before the prefix, or the source that an encoder reads
    order        psm or spm, for models trained to infill
    candidates   for other models: how many middles are compared at a time by their exact joint
                 probability, until no other can be better, and at most 16 times;
                 `temperature` then applies to the choice among them (0 = the most probable)
    suffix_bytes for other models: they are compared by this much of the suffix, because each costs
                 a forward over it
    """
    if order not in get_args(Order):
        raise BytelmError(unknown_name("order", order, get_args(Order)))
    (prefix, suffix), _ = lm.checked("prefix or suffix", [prefix, suffix], None)
    numbers = (candidates, suffix_bytes, max_bytes)
    whole = all(isinstance(number, Integral) for number in numbers)
    if not whole or candidates < 1 or suffix_bytes < 1 or max_bytes < 0:
        raise BytelmError(
            "candidates and suffix_bytes must be at least 1 and max_bytes at least 0, whole, not "
            f"{candidates}, {suffix_bytes} and {max_bytes}"
        )
    template = find_template(lm)
    if template is None and suffix:
        sampling = Sampling(temperature=temperature or 1.0, top_k=top_k, top_p=top_p, min_p=min_p)
        found = _propose(
            lm, prefix, suffix, max_bytes, sampling=sampling, seed=seed, utf8=utf8, context=context
        )
        compare = partial(score_middles, lm, prefix, suffix[:suffix_bytes], context=context)
        middles, scores = _compare(found, compare, candidates, temperature)
        return _choose(middles, scores, temperature, seed)
    prompt, constraint = prefix, None
    if template is not None:
        filled, prompt = template.fill(order, prefix=prefix, suffix=suffix)
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
