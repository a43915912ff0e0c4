"""Writing text with any `ByteLM`: one call for one prompt or many, streamed or not.

Both functions run a `Generation`, which says how; `GenerateOptions` says what can be asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, Unpack, overload

from bytelm.errors import BytelmError
from bytelm.lm.constraint import Constraint
from bytelm.lm.decoding import Backend
from bytelm.lm.draft import Drafter
from bytelm.lm.generation import Generation
from bytelm.lm.options import GenerateKeywords, GenerateOptions
from bytelm.lm.protocol import ByteLM, ContextLike
from bytelm.lm.writer import Generated


def generate_batch(
    lm: ByteLM,
    prompts: Sequence[bytes],
    *,
    context: Sequence[ContextLike] | None = None,
    rows: int = 64,
    backend: Backend = "auto",
    **options: Unpack[GenerateKeywords],
) -> list[Generated]:
    """Continue every prompt, at most `rows` at a time, with the options of `GenerateOptions`.

    Row i uses the seed `seed + i`, so it writes what `generate(lm, prompts[i], seed=seed + i)`
    writes. context: one per prompt, as in `ByteLM.start`; backend as in `Generation`.

    >>> from bytelm.lm.ngram import NgramLM
    >>> lm = NgramLM.train([b"to be or not to be"], order=4)
    >>> [text.data for text in generate_batch(lm, [b"to", b"or"], max_bytes=4, temperature=0)]
    [b' be ', b' not']
    """
    chosen = GenerateOptions(**options)
    if isinstance(context, bytes | str):
        raise BytelmError("expected one context per prompt, not one for all: give a list of them")
    contexts = [None] * len(prompts) if context is None else list(context)
    if len(contexts) != len(prompts):
        raise BytelmError(f"{len(contexts)} contexts for {len(prompts)} prompts")
    run = Generation(lm, rows=rows, backend=backend)
    keys = [
        run.add(prompt, replace(chosen, seed=chosen.seed + i), context=given)
        for i, (prompt, given) in enumerate(zip(prompts, contexts, strict=True))
    ]
    for _ in run:
        pass
    return [run.result(key) for key in keys]


@overload
def generate(
    lm: ByteLM,
    prompt: bytes = ...,
    *,
    context: ContextLike = ...,
    stream: Literal[False] = ...,
    backend: Backend = ...,
    **options: Unpack[GenerateKeywords],
) -> bytes: ...
@overload
def generate(
    lm: ByteLM,
    prompt: bytes = ...,
    *,
    context: ContextLike = ...,
    stream: Literal[True],
    backend: Backend = ...,
    **options: Unpack[GenerateKeywords],
) -> Iterator[bytes]: ...
def generate(
    lm: ByteLM,
    prompt: bytes = b"",
    *,
    max_bytes: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[bytes] = (),
    seed: int = 0,
    utf8: bool = False,
    regex: str | bytes | None = None,
    constraint: Constraint | None = None,
    beams: int = 0,
    length_penalty: float = 0.0,
    draft: Drafter | None = None,
    draft_bytes: int = 32,
    context: ContextLike = None,
    stream: bool = False,
    backend: Backend = "auto",
) -> bytes | Iterator[bytes]:
    """The bytes that follow `prompt`; with stream=True an iterator over pieces of them, in whole
    characters.

    The options are those of `GenerateOptions`; `generate_batch` also says how each text ended.
    context: as in `ByteLM.start`; a sequence-to-sequence model reads it with its encoder. backend:
    as in `Generation`.

    >>> from bytelm.lm.ngram import NgramLM
    >>> lm = NgramLM.train([b"to be or not to be"], order=4)
    >>> generate(lm, b"to be or", max_bytes=7, temperature=0)
    b' not to'
    """
    options = GenerateOptions(
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=stop,
        seed=seed,
        utf8=utf8,
        regex=regex,
        constraint=constraint,
        beams=beams,
        length_penalty=length_penalty,
        draft=draft,
        draft_bytes=draft_bytes,
    )
    if beams and stream:
        raise BytelmError("nothing of a beam search is certain before its end: stream is no use")
    run = Generation(lm, rows=max(1, beams), backend=backend)
    found = pieces(run, run.add(prompt, options, context=context))
    return found if stream else b"".join(found)


def pieces(run: Generation, key: int) -> Iterator[bytes]:
    """The pieces of the run's only text; raises the error that ended it."""
    for _, piece, _ in run:
        if piece:
            yield piece
    run.result(key)
