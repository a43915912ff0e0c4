"""`bytelm train`: train a recipe, then say how good the result is.

Training leaves the run directory; the closing report is made from that directory alone, as any
other command would make it, and its figures are kept in it as evaluation.json. It says what the
objective says of the held-out data; of a model of bytes bits per byte beside general compressors, a
sample, and where a hierarchical model cuts. Bits per byte take a quarter of the training time at
most: what does not fit is sampled, and said to be.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.common import check_device, complete_devices, complete_recipes
from bytelm.cli.output import note, printable_bytes
from bytelm.cli.progress import progress
from bytelm.errors import BytelmError, unknown_name

if TYPE_CHECKING:
    import torch

    from bytelm.evaluate.bits import Scores
    from bytelm.lm.protocol import ByteLM
    from bytelm.recipe import Recipe
    from bytelm.run import Run

PROMPT_BYTES, SAMPLE_BYTES, PICTURE_BYTES = 64, 240, 400
_EVALUATION_SHARE = 0.25  # of the training time that the closing evaluation takes at most
_SHORTEST_EVALUATION = 10.0  # seconds it may take after however short a training


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    # what looks like an unknown option is an override with dashes, and is told so
    app.command(context_settings={"ignore_unknown_options": True})(train)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A name (hnet-tiny) or a path to a .toml file.", autocompletion=complete_recipes
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value changes, as train.steps=100")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory; default: the first free runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint, if there is one.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to compute: auto, cpu, cuda, mps; the same as train.device=...",
            autocompletion=complete_devices,
            callback=check_device,
        ),
    ] = None,
) -> None:
    """Train a model; the last line printed is the run directory.

    Progress goes to stderr. Ctrl-C and SIGTERM save a checkpoint first; --resume continues from it.
    """
    # Spinning OpenMP threads lose up to tenfold on shared cores; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from bytelm.recipe import Recipe

    _refuse_dashes([recipe, *(overrides or ())])
    changes = [*(overrides or ()), *([f"train.device={device}"] if device else [])]
    settings = Recipe.load(recipe, overrides=changes)  # mistakes show before torch loads
    from bytelm.training import train as run_training

    path = run_training(settings, run_dir=run, resume=resume)
    if os.environ.get("RANK", "0") == "0":
        _report(path)
        print(path)


def _refuse_dashes(words: list[str]) -> None:
    """`BytelmError` for a word that looks like an option and is none of this command."""
    for word in words:
        name = word.lstrip("-")
        if word.startswith("-") and ("=" in name or "." in name):
            raise BytelmError(f"{word}: a setting has no dashes in front; write {name}")
        if word.startswith("-"):
            options = ["--run", "--resume", "--device", "--help"]
            raise BytelmError(unknown_name("option", word, options))


def _report(run: Path) -> None:
    """The closing report on stdout, computed where training was; nothing without held-out data or
    with evaluate.final off."""
    from bytelm.device import choose_device
    from bytelm.run import Run

    recipe = Run(run).recipe()
    if not recipe.data.heldout or not recipe.evaluate.final:
        return
    device = choose_device(recipe.train.device)
    note(f"evaluating all held-out data on {device} (evaluate.final=false leaves this out)")
    if recipe.objective_class.family == "causal":
        _report_bytes(run, recipe, device=device)
        return
    from bytelm.evaluate.figures import judge
    from bytelm.training.data import reading_of

    with progress("evaluating", unit="windows") as shown:
        how = reading_of(recipe.data)
        judgement = judge(run, recipe.data.heldout, reading=how, device=device, on_progress=shown)
    Run(run).write_evaluation(judgement.to_dict())
    print(f"held-out data\n{judgement.text()}\n")
    if judgement.source is not None:
        from bytelm.loading import load_run

        _report_sample(load_run(run, device=device), b"", source=judgement.source, temperature=0.0)


def _report_bytes(run: Path, recipe: "Recipe", *, device: "torch.device") -> None:
    """Bits per byte beside compressors, a sample, and chunks: of a model that is a `ByteLM`."""
    from bytelm.lm.decoder import DecoderLM
    from bytelm.loading import load_run
    from bytelm.training.data import documents_of, open_data, reading_of

    documents = documents_of(open_data(recipe.data.heldout, reading=reading_of(recipe.data)))
    if not documents:
        return
    lm = load_run(run, device=device)
    if isinstance(lm, DecoderLM):
        _report_figures(lm, run, documents, name=str(run))
    else:  # the exact byte distribution takes a model row per byte: `bytelm eval` when it is wanted
        _report_figures(lm.tokens, run, documents, name=f"{run}, canonical tokens")
    text = max(documents, key=len)
    _report_sample(lm, text[:PROMPT_BYTES], temperature=0.8, seed=recipe.seed)
    _report_chunks(lm, text[:PICTURE_BYTES])


def _report_figures(lm: "Scores", run: Path, documents: list[bytes], *, name: str) -> None:
    from bytelm.evaluate.compressors import compressed_bits_per_byte
    from bytelm.evaluate.report import table
    from bytelm.evaluate.sampled import evaluate_bits_within
    from bytelm.run import Run

    seconds = _longest_evaluation(Run(run))
    with progress("evaluating", unit="bytes") as shown:
        result = evaluate_bits_within(lm, documents, seconds=seconds, on_progress=shown)
    if result.sampled_from is not None:
        note(
            f"all held-out data would have taken longer than {seconds:.0f} s, a quarter of the "
            f"training time; for the whole figure: bytelm eval {run} DATA"
        )
    with progress("compressing the same bytes", unit="compressors") as shown:
        figures = compressed_bits_per_byte(b"".join(documents), on_progress=shown)
    Run(run).write_evaluation({**result.to_dict(), **figures})
    print(f"held-out data\n{table(result, name=name, compressors=figures)}\n")


def _longest_evaluation(run: "Run") -> float:
    """Seconds: a share of the training time, and enough for small data after short trainings."""
    from bytelm.training.metrics import read_metrics

    trained = [row["seconds"] for row in read_metrics(run.metrics) if "seconds" in row]
    return max(_SHORTEST_EVALUATION, _EVALUATION_SHARE * trained[-1] if trained else 0.0)


def _report_sample(
    lm: "ByteLM",
    prompt: bytes,
    *,
    temperature: float,
    seed: int = 0,
    source: bytes | None = None,
) -> None:
    from bytelm.lm.generate import generate

    sample = generate(
        lm,
        prompt,
        context=source,
        max_bytes=SAMPLE_BYTES,
        temperature=temperature,
        seed=seed,
    )
    word, before = ("after", prompt) if source is None else ("for", source)
    print(f"a sample, {word} {printable_bytes(before)!r}\n{printable_bytes(sample)}\n")


def _report_chunks(lm: "ByteLM", text: bytes) -> None:
    from bytelm.arch.base import Hierarchical
    from bytelm.evaluate.chunks import terminal_text
    from bytelm.lm.native import NativeLM

    if not isinstance(lm, NativeLM) or not isinstance(lm.model, Hierarchical):
        return
    stages = [stage.tolist() for stage in lm.chunk_boundaries(text)]
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    picture = terminal_text(text, stages, colour=colour, encoding=sys.stdout.encoding or "ascii")
    print(f"where it cuts\n{picture}\n")
