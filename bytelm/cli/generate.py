"""`bytelm generate` and `infill`: writing bytes.

They go to stdout as they come; what concerns the person at the terminal goes to stderr.
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bytelm.cli.common import (
    Json,
    Model,
    ModelOptions,
    complete_models,
    open_model,
    with_model_options,
)
from bytelm.cli.inputs import (
    ContextFile,
    ContextText,
    Prompt,
    PromptFile,
    given_text,
    prompt_and_context,
    read_input,
    require_one_stdin,
)
from bytelm.cli.output import json_of_bytes, note, print_json, write_bytes
from bytelm.errors import BytelmError, CheckpointError
from bytelm.model_paths import require_model

if TYPE_CHECKING:
    from bytelm.lm.constraint import Constraint
    from bytelm.lm.draft import PromptLookup
    from bytelm.lm.fim_templates import Template
    from bytelm.lm.model_draft import ModelDrafter
    from bytelm.lm.options import GenerateKeywords
    from bytelm.lm.protocol import ContextLike

MaxBytes = Annotated[int, typer.Option(min=0, help="Write at most this many bytes.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 = always the most probable byte.")]
OwnTemperature = Annotated[
    float | None, typer.Option(min=0.0, help="0 = always the most probable byte; default: 0.8.")
]
TopK = Annotated[int, typer.Option(min=0, help="Choose among the k most probable bytes; 0 = all.")]
TopP = Annotated[float, typer.Option(help="Choose among bytes of this total probability.")]
MinP = Annotated[float, typer.Option(help="Drop bytes less probable than this share of the best.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same text.")]
Utf8 = Annotated[bool, typer.Option("--utf8", help="Write well-formed UTF-8 only.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(help=r"End before this text; \n, \t and \xNN are understood; may be repeated."),
]
_LOOKUP = "ngram"  # the draft that needs no model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(generate)
    app.command()(infill)


@with_model_options
def generate(
    model: Model,
    prompt: Prompt = None,
    prompt_file: PromptFile = None,
    context: ContextText = None,
    context_file: ContextFile = None,
    max_bytes: MaxBytes = 200,
    temperature: OwnTemperature = None,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    utf8: Utf8 = False,
    stop: Stop = None,
    regex: Annotated[
        str | None,
        typer.Option(help=r"What is written must match this; (?a)\d is an ASCII digit."),
    ] = None,
    regex_bytes: Annotated[
        str | None, typer.Option(help=r"The same as a pattern over bytes, e.g. \x00[\x80-\xff]*.")
    ] = None,
    json_schema: Annotated[
        Path | None,
        typer.Option(help="Write JSON that obeys the JSON Schema in this file; {} is any JSON."),
    ] = None,
    beams: Annotated[
        int,
        typer.Option(min=0, help="Write the most probable text that so wide a search finds."),
    ] = 0,
    length_penalty: Annotated[
        float, typer.Option(help="Of --beams: above 0, longer texts are ranked higher.")
    ] = 0.0,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="The prompt is a user's message: answer it, by the model's template."
        ),
    ] = False,
    special: Annotated[
        list[str] | None,
        typer.Option(help="A special symbol that stands before the prompt; may be repeated."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            help="Who proposes bytes, so that one call of the model checks several: ngram (what "
            "followed the same words before) or a small MODEL.",
            autocompletion=complete_models,
        ),
    ] = None,
    draft_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes proposed at once at most; default: 32.")
    ] = None,
    backend: Annotated[
        Literal["auto", "eager", "compiled"],
        typer.Option(
            help="What decodes: torch (eager), compiled kernels (of native models on a CPU), or "
            "what pays for as many bytes as are wanted."
        ),
    ] = "auto",
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on stderr how fast the prompt was read and so on.")
    ] = False,
    json: Json = False,
    *,
    options: ModelOptions,
) -> None:
    """Write what follows a prompt: raw bytes on stdout, streamed, without the prompt.

    Without --prompt and --prompt-file, what is piped into the command is the prompt. A terminal is
    shown escapes in place of bytes that it could obey; a file or a pipe gets every byte as it is.
    """
    from bytelm.lm.options import GenerateOptions

    wanted: GenerateKeywords = {
        "max_bytes": max_bytes,
        "temperature": (1.0 if beams else 0.8) if temperature is None else temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "stop": _stops(stop),
        "seed": seed,
        "utf8": utf8,
        "regex": _pattern(regex, regex_bytes),
        "constraint": _schema(json_schema),
        "beams": beams,
        "length_penalty": length_penalty,
    }
    lookup = _check_draft(draft, draft_bytes)
    if lookup is not None:
        wanted["draft"] = lookup
        if draft_bytes is not None:
            wanted["draft_bytes"] = draft_bytes
    GenerateOptions(**wanted)  # mistakes show before torch loads
    begin, before = prompt_and_context(prompt, prompt_file, context, context_file)
    from bytelm.lm.generate import pieces
    from bytelm.lm.generation import Generation

    if chat:
        options, begin = _chat(model, options, begin, idle=bool(special or before))
    lm = open_model(model, options)
    if draft is not None and draft != _LOOKUP:
        wanted["draft"] = _drafting_model(Path(draft), options)
    given: ContextLike = [before or b"", *special] if special else before
    run = Generation(lm, rows=max(1, beams), backend=backend)
    texts = pieces(run, run.add(begin, GenerateOptions(**wanted), context=given))
    if json:
        print_json(json_of_bytes(b"".join(texts)))
    else:
        write_bytes(texts)
    if stats:
        typer.echo("\n".join(run.stats.lines()), err=True)


def _check_draft(draft: str | None, draft_bytes: int | None) -> "PromptLookup | None":
    """A drafter in the place of the one that --draft asks for; `BytelmError` if it cannot be."""
    if draft is None:
        if draft_bytes is not None:
            raise BytelmError("--draft-bytes needs a draft: add --draft ngram, or --draft MODEL")
        return None
    from bytelm.lm.draft import PromptLookup

    if draft != _LOOKUP:
        try:
            require_model(Path(draft))
        except CheckpointError as error:
            near = difflib.get_close_matches(draft, [_LOOKUP], n=1)
            hint = f"did you mean {near[0]}?" if near else f"{_LOOKUP} or a model"
            raise BytelmError(f"--draft: {error} ({hint})") from None
    return PromptLookup()


def _drafting_model(path: Path, options: ModelOptions) -> "ModelDrafter":
    """The model at `path` as a drafter, on the device of the other."""
    from bytelm.lm.model_draft import ModelDrafter
    from bytelm.loading import load

    return ModelDrafter(load(path, device=options.device))


def _chat(
    model: Path, options: ModelOptions, message: bytes, *, idle: bool
) -> tuple[ModelOptions, bytes]:
    """The options and the prompt with which MODEL answers a message."""
    from bytelm.exact.chat import chat_ids

    if idle or options.start is not None or options.more:
        raise BytelmError(
            "--chat says all that stands before the answer, of one model: leave out "
            "--special, --context, --start and --model"
        )
    ids = chat_ids(model, message)
    return replace(options, start=",".join(map(str, ids))), b""


@with_model_options
def infill(
    model: Model,
    prefix_file: Annotated[Path, typer.Option(help="What stands before the gap; - is stdin.")],
    suffix_file: Annotated[Path, typer.Option(help="What stands after it; - is stdin.")],
    context: ContextText = None,
    context_file: ContextFile = None,
    max_bytes: MaxBytes = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    utf8: Utf8 = False,
    template: Annotated[
        str | None,
        typer.Option(
            help="The format to ask in: a family (see docs/exact.md), a TOML file, or none to "
            "compare middles; default: by the model's special symbols."
        ),
    ] = None,
    order: Annotated[
        Literal["psm", "spm"] | None,
        typer.Option(
            help="Which of prefix and suffix comes first; for models trained to infill. Default: "
            "the family's own."
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Middles to compare; for models not trained to infill.")
    ] = 64,
    json: Json = False,
    *,
    options: ModelOptions,
) -> None:
    """Write what belongs between two texts: raw bytes on stdout, the middle alone."""
    from bytelm.lm.sampling import Sampling

    Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)  # before torch loads
    require_one_stdin(prefix_file, suffix_file, context_file)
    prefix, suffix = read_input(prefix_file), read_input(suffix_file)
    before = given_text("context", context, context_file) or b""
    from bytelm.lm.fim_templates import read_template

    asked = None if template in (None, "none") else read_template(str(template))
    from bytelm.lm.infill import NO_TEMPLATE, NONE, choose_template
    from bytelm.lm.infill import infill as fill

    lm = open_model(model, _with_ends(model, options, asked))
    chosen = choose_template(lm, template if asked is None else asked)
    if chosen is None and template is None and suffix:
        note(NO_TEMPLATE)
    middle = fill(
        lm,
        prefix=prefix,
        suffix=suffix,
        context=before,
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        utf8=utf8,
        template=chosen or NONE,
        order=order,
        candidates=candidates,
    )
    if json:
        print_json({**json_of_bytes(middle), "template": chosen.name if chosen else None})
    else:
        write_bytes([middle])


def _with_ends(model: Path, options: ModelOptions, template: "Template | None") -> ModelOptions:
    """The options with the ends of a template of the user's own, where the model takes ends: those
    of the families are known to every loader."""
    from bytelm.lm.fim_templates import TEMPLATES
    from bytelm.loading import options_of

    if template is None or template.name in TEMPLATES or "ends" not in options_of(model):
        return options
    return replace(options, end=[*(options.end or ()), *template.ends])


def _pattern(text: str | None, over_bytes: str | None) -> str | bytes | None:
    """What --regex or --regex-bytes gives."""
    if text is not None and over_bytes is not None:
        raise BytelmError("give --regex or --regex-bytes, not both")
    return text if over_bytes is None else os.fsencode(over_bytes)


def _schema(file: Path | None) -> "Constraint | None":
    """The constraint of --json-schema."""
    if file is None:
        return None
    from bytelm.lm.grammar import json_schema

    return json_schema(read_input(file))


def _stops(texts: Iterable[str] | None) -> list[bytes]:
    """Stop strings with \\n, \\t, \\\\ and \\xNN read as escapes."""
    import codecs

    try:
        return [codecs.escape_decode(os.fsencode(text))[0] for text in texts or ()]  # type: ignore[attr-defined]
    except ValueError as error:
        raise BytelmError(
            f"--stop {texts!r} is not readable: {error}; write \\\\ for a backslash"
        ) from None
