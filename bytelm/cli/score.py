"""`bytelm score` and `next`: what a model thinks of a text, and of what comes after it."""

import math
from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Json, Model, ModelOptions, open_model, with_model_options
from bytelm.cli.inputs import (
    ContextFile,
    ContextText,
    Prompt,
    PromptFile,
    given_text,
    note_packed,
    prompt_and_context,
    read_input,
    require_one_stdin,
)
from bytelm.cli.output import print_json
from bytelm.cli.progress import scoring_progress
from bytelm.errors import DataError


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(score)
    app.command("next")(next_bytes)


@with_model_options
def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The file to score, as it stands; - is stdin.")],
    context: ContextText = None,
    context_file: ContextFile = None,
    json: Json = False,
    *,
    options: ModelOptions,
) -> None:
    """The log probability of a file: in all, per byte, and where the model was surprised."""
    require_one_stdin(file, context_file)
    data = read_input(file)
    note_packed(file, data)
    if not data:
        raise DataError(f"{file} is empty: there is nothing to score")
    before = given_text("context", context, context_file) or b""
    from bytelm.exact.fitting import fit_to_context

    lm = fit_to_context(open_model(model, options), [before + data])
    with scoring_progress("scoring", total=len(data)):
        scores = lm.score_with_end(data, context=before)
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
    if lm.window is not None:
        print(f"context     at most {lm.window:,} bytes, stride {lm.stride:,}")
    print("most surprising:")
    worst = sorted(range(len(data)), key=lambda i: -bits[i])[:5]
    for i in sorted(worst):
        left = ascii(data[max(0, i - 20) : i])[2:-1]
        print(f"  {bits[i]:7.2f} bits  offset {i}: {left} >>{ascii(data[i : i + 1])[2:-1]}<<")


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
    """The most probable next bytes after a prompt, which may be piped into the command."""
    from bytelm.lm.protocol import require_possible

    begin, before = prompt_and_context(prompt, prompt_file, context, context_file)
    lm = open_model(model, options)
    logprobs = lm.start(begin, context=before).logprobs().cpu().double()
    require_possible(lm, logprobs, begin, before)
    best = logprobs.sort(descending=True, stable=True)
    outcomes = best.indices[:top].tolist()
    if json:
        rows = [{"outcome": o, "probability": float(logprobs[o].exp())} for o in outcomes]
        print_json({"next": rows})
        return
    for outcome in outcomes:
        label = "end" if outcome == 256 else ascii(bytes([outcome]))[1:]
        print(f"{float(logprobs[outcome].exp()):10.6f}  {outcome:3d}  {label}")
