"""`bytelm eval`: bits per byte of a model on files, beside general compressors.

A run that is no `ByteLM`, such as a classifier, is judged by the figures of its own objective.
"""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.common import Json, Model, ModelOptions, open_model, with_model_options
from bytelm.cli.output import print_json
from bytelm.cli.progress import progress, scoring_progress
from bytelm.cli.reading import ReadingOptions, tell, with_reading_options
from bytelm.data.bundled import find_data
from bytelm.errors import BytelmError

if TYPE_CHECKING:
    from bytelm.data import Reading
    from bytelm.lm.protocol import ByteLM
    from bytelm.lm.subword import TokenScores


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("eval")(evaluate)


@with_model_options
@with_reading_options
def evaluate(
    model: Model,
    data: Annotated[
        list[str],
        typer.Argument(help="Files, folders, archives, JSON lines, built corpora, -."),
    ],
    canonical_tokens: Annotated[
        bool,
        typer.Option(
            "--canonical-tokens",
            help="Of a run over tokens: the code length of the tokens its tokenizer writes (fast; "
            "the exact byte distribution adds the other spellings and needs less).",
        ),
    ] = False,
    primed: Annotated[
        str | None, typer.Option(help="Also xz and ppmd primed with this training text.")
    ] = None,
    json: Json = False,
    *,
    options: ModelOptions,
    reading: ReadingOptions,
) -> None:
    """Bits per byte of MODEL on DATA, beside gzip, xz, zstd and ppmd on the same bytes.

    Of a classifier accuracy and a confusion table, of a sequence-to-sequence run what its pairs
    cost; DATA then has labels or pairs where the training data had them.

    A run over tokens (a recipe with data.tokenizer) is read as its exact byte distribution, one
    model row per byte; --canonical-tokens is quicker and scores the tokens its tokenizer writes.
    """
    from bytelm.evaluate.documents import read_documents

    how = reading.reading()
    if _is_judged_by_its_objective(model):
        _refuse_idle(
            model,
            *(name for name in options.loading_options() if name != "device"),
            *(["canonical-tokens"] * canonical_tokens),
            *(["primed"] * (primed is not None)),
            *(["model"] * bool(options.more)),
        )
        _judge(model, data, how, json=json, device=options.device)
        return
    # mistaken paths show before torch loads
    documents = read_documents([find_data(path) for path in data], reading=how)
    before = [find_data(primed)] if primed else []
    training = b"".join(read_documents(before, reading=how))
    tell(how)
    from bytelm.evaluate.bits import evaluate_bits
    from bytelm.evaluate.compressors import compressed_bits_per_byte, primed_bits_per_byte
    from bytelm.evaluate.report import table
    from bytelm.exact.fitting import fit_to_context

    lm = fit_to_context(open_model(model, options), documents)
    joined = b"".join(documents)
    with scoring_progress("evaluating", total=len(joined)):
        result = evaluate_bits(_tokens(lm, model) if canonical_tokens else lm, documents)
    with progress("compressing the same bytes", unit="compressors") as report:
        figures = compressed_bits_per_byte(joined, on_progress=report)
        primed_figures = primed_bits_per_byte(joined, training) if training else {}
    if json:
        named = {f"{name}_primed": figure for name, figure in primed_figures.items()}
        told = how.notes.report()
        scored = "canonical tokens" if canonical_tokens else "bytes"
        print_json({**result.to_dict(), "scored": scored, **figures, **named, **told})
    else:
        name = f"{model}, canonical tokens" if canonical_tokens else str(model)
        print(table(result, name=name, compressors=figures, primed=primed_figures))


def _refuse_idle(model: Path, *options: str) -> None:
    """`BytelmError` if there are options without effect on a run of another family."""
    if options:
        names = [name.replace("_", "-") for name in options]
        raise BytelmError(
            f"--{' and --'.join(names)} mean nothing here: {model} is judged by the figures of "
            "its own objective, not by bits per byte"
        )


def _is_judged_by_its_objective(model: Path) -> bool:
    """Whether MODEL is a run of another family than the one that predicts each next byte; read
    from its config.json as it stands, without torch. What is wrong with that file, `load` tells."""
    try:
        stored = json_module.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and "arch" in stored and stored.get("family") != "causal"


def _judge(model: Path, data: list[str], how: "Reading", *, json: bool, device: str | None) -> None:
    from bytelm.device import choose_device
    from bytelm.evaluate.figures import judge

    with progress("evaluating", unit="windows") as report:
        place = choose_device(device or "cpu")
        judgement = judge(model, data, reading=how, device=place, on_progress=report)
    tell(how)
    if json:
        print_json({**judgement.to_dict(), **how.notes.report()})
    else:
        print(f"{model}\n{judgement.text()}")


def _tokens(lm: "ByteLM", model: Path) -> "TokenScores":
    """The token scores of a subword run; an error for any other model."""
    from bytelm.lm.subword import SubwordLM

    if not isinstance(lm, SubwordLM):
        raise BytelmError(f"--canonical-tokens is for runs with data.tokenizer; {model} is none")
    return lm.tokens
