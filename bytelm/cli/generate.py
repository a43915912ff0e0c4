"""`bytelm generate`, `score`, `next`, `infill` and `chunks`: using a model on one text.

`generate` and `infill` write raw bytes to stdout as they come; what concerns the person at the
terminal goes to stderr.
"""

import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.common import (
    Model,
    ModelOptions,
    Threads,
    open_model,
    read_bytes,
    with_model_options,
)
from bytelm.cli.output import note, print_json
from bytelm.errors import BytelmError, DataError

if TYPE_CHECKING:
    from bytelm.lm.options import GenerateKeywords

MaxBytes = Annotated[int, typer.Option(min=0, help="Write at most this many bytes.")]
Temperature = Annotated[float, typer.Option(help="0 = always the most probable byte.")]
OwnTemperature = Annotated[
    float | None, typer.Option(help="0 = always the most probable byte; default: 0.8.")
]
TopK = Annotated[int, typer.Option(help="Choose among the k most probable bytes; 0 = all.")]
TopP = Annotated[float, typer.Option(help="Choose among bytes of this total probability.")]
MinP = Annotated[float, typer.Option(help="Drop bytes less probable than this share of the best.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same text.")]
Utf8 = Annotated[bool, typer.Option("--utf8", help="Write well-formed UTF-8 only.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(help=r"End before this text; \n, \t and \xNN are understood; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Prompt = Annotated[str | None, typer.Option(help="The text to begin with.")]
PromptFile = Annotated[Path | None, typer.Option(help="The same from a file; - is stdin.")]
ContextText = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="What stands before the text; the source that an encoder-decoder reads.",
    ),
]
ContextFile = Annotated[Path | None, typer.Option(help="The same from a file; - is stdin.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(generate)
    app.command()(score)
    app.command("next")(next_bytes)
    app.command()(infill)
    app.command()(chunks)


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
    regex: Annotated[str | None, typer.Option(help="What is written must match this.")] = None,
    beams: Annotated[
        int,
        typer.Option(min=0, help="Write the most probable text that so wide a search finds."),
    ] = 0,
    length_penalty: Annotated[
        float, typer.Option(help="Of --beams: above 0, longer texts are ranked higher.")
    ] = 0.0,
    *,
    options: ModelOptions,
) -> None:
    """Write what follows a prompt: raw bytes on stdout, streamed, without the prompt."""
    from bytelm.lm.generate import generate as write

    begin = _text("prompt", prompt, prompt_file)
    given = _text("context", context, context_file)
    lm = open_model(model, options)
    wanted: GenerateKeywords = {
        "max_bytes": max_bytes,
        "temperature": (1.0 if beams else 0.8) if temperature is None else temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "stop": _stops(stop),
        "seed": seed,
        "utf8": utf8,
        "regex": regex,
        "beams": beams,
        "length_penalty": length_penalty,
    }
    if beams:
        _write([write(lm, begin, context=given, **wanted)])
    else:
        _write(write(lm, begin, context=given, stream=True, **wanted))


@with_model_options
def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The file to score; - is stdin.")],
    context: ContextText = None,
    context_file: ContextFile = None,
    json: Json = False,
    *,
    options: ModelOptions,
) -> None:
    """The log probability of a file: in all, per byte, and where the model was surprised."""
    data = read_bytes(file)
    if not data:
        raise DataError(f"{file} is empty: there is nothing to score")
    given = _text("context", context, context_file)
    lm = open_model(model, options)
    scores = lm.score_with_end(data, context=given)
    bits = (-scores / math.log(2)).tolist()
    report = {
        "logprob": float(scores[:-1].sum()),
        "bits_per_byte": sum(bits[:-1]) / len(data),
        "bytes": len(data),
        "end_bits": bits[-1],
        "window": lm.window,
        "stride": lm.stride,
    }
    if not math.isfinite(report["logprob"]):
        raise DataError(
            f"the model gives a byte of {file} probability zero (offset "
            f"{bits.index(math.inf)}): its score is infinite"
        )
    if json:
        print_json({**report, "bits": bits[:-1]})
        return
    print(f"log P       {report['logprob']:.4f} nats")
    print(f"bits/byte   {report['bits_per_byte']:.4f} over {len(data):,} bytes")
    print(f"end         {bits[-1]:.4f} bits")
    print("most surprising:")
    worst = sorted(range(len(data)), key=lambda i: -bits[i])[:5]
    for i in sorted(worst):
        before = ascii(data[max(0, i - 20) : i])[2:-1]
        print(f"  {bits[i]:7.2f} bits  offset {i}: {before} >>{ascii(data[i : i + 1])[2:-1]}<<")


@with_model_options
def next_bytes(
    model: Model,
    prompt: Prompt = None,
    prompt_file: PromptFile = None,
    context: ContextText = None,
    context_file: ContextFile = None,
    top: Annotated[int, typer.Option(min=1, max=257, help="How many outcomes.")] = 10,
    json: Json = False,
    *,
    options: ModelOptions,
) -> None:
    """The most probable next bytes after a prompt."""
    begin = _text("prompt", prompt, prompt_file)
    given = _text("context", context, context_file)
    lm = open_model(model, options)
    logprobs = lm.start(begin, context=given).logprobs().double()
    best = logprobs.sort(descending=True, stable=True)
    outcomes = best.indices[:top].tolist()
    if json:
        rows = [{"outcome": o, "probability": float(logprobs[o].exp())} for o in outcomes]
        print_json({"next": rows})
        return
    for outcome in outcomes:
        label = "end" if outcome == 256 else ascii(bytes([outcome]))[1:]
        print(f"{float(logprobs[outcome].exp()):10.6f}  {outcome:3d}  {label}")


@with_model_options
def infill(
    model: Model,
    prefix_file: Annotated[Path, typer.Option(help="What stands before the gap.")],
    suffix_file: Annotated[Path, typer.Option(help="What stands after it.")],
    context: ContextText = None,
    context_file: ContextFile = None,
    max_bytes: MaxBytes = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    utf8: Utf8 = False,
    order: Annotated[str, typer.Option(help="psm or spm; for models trained to infill.")] = "psm",
    candidates: Annotated[
        int, typer.Option(min=1, help="Middles to compare; for models not trained to infill.")
    ] = 64,
    *,
    options: ModelOptions,
) -> None:
    """Write what belongs between two texts: raw bytes on stdout, the middle alone."""
    from bytelm.lm.infill import infill as fill

    prefix, suffix = read_bytes(prefix_file), read_bytes(suffix_file)
    given = _text("context", context, context_file)
    lm = open_model(model, options)
    middle = fill(
        lm,
        prefix=prefix,
        suffix=suffix,
        context=given,
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        utf8=utf8,
        order=order,  # type: ignore[arg-type]
        candidates=candidates,
    )
    _write([middle])


def chunks(
    run: Annotated[Path, typer.Argument(help="The run directory of a hierarchical model.")],
    file: Annotated[Path, typer.Argument(help="The file to cut; - is stdin.")],
    html: Annotated[Path | None, typer.Option(help="Also write a standalone page.")] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Show at most this many bytes.")] = 4000,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show where a hierarchical model cuts a file: coloured text, an HTML page."""
    from bytelm.evaluate.chunks import html_page, terminal_text
    from bytelm.files import write_text
    from bytelm.lm.native import NativeLM

    data = read_bytes(file)[:max_bytes]
    if not data:
        raise DataError(f"{file} is empty: there is nothing to cut")
    lm = open_model(run, ModelOptions(threads=threads))
    if not isinstance(lm, NativeLM):
        raise BytelmError(f"{run} is not a run over bytes: only native hierarchical models cut")
    stages = [stage.tolist() for stage in lm.chunk_boundaries(data)]
    if not stages:
        raise BytelmError(f"the model in {run} has no chunking stage: it reads byte by byte")
    if html:
        write_text(html, html_page(data, stages, title=f"{file.name} as cut by {run.name}"))
        note(f"wrote {html}")
    counts = [sum(stage) for stage in stages]
    if json:
        positions = [[i for i, cut in enumerate(stage) if cut] for stage in stages]
        lengths = [len(data) / max(count, 1) for count in counts]
        print_json({"bytes": len(data), "boundaries": positions, "bytes_per_chunk": lengths})
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(terminal_text(data, stages, colour=colour, encoding=sys.stdout.encoding or "ascii"))
    for s, count in enumerate(counts):
        note(f"stage {s}: {count:,} chunks, {len(data) / max(count, 1):.2f} bytes per chunk")


def _text(name: str, text: str | None, file: Path | None) -> bytes:
    """What --NAME or --NAME-file gives."""
    if text is not None and file is not None:
        raise BytelmError(f"give --{name} or --{name}-file, not both")
    if file is not None:
        return read_bytes(file)
    return os.fsencode(text or "")


def _stops(texts: Iterable[str] | None) -> list[bytes]:
    """Stop strings with \\n, \\t, \\\\ and \\xNN read as escapes."""
    import codecs

    return [codecs.escape_decode(os.fsencode(text))[0] for text in texts or ()]  # type: ignore[attr-defined]


def _write(pieces: Iterable[bytes]) -> None:
    """Raw bytes to stdout as they come; a reader that has seen enough is no error."""
    try:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        if sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
