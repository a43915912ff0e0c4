"""Training vocabularies into a folder, so that no work is lost and nothing is replaced unasked.

Merges are found one after the other, so those for a large vocabulary are those for a smaller one
and more. Whatever ends training early (an interruption, data that do not support the size asked
for, a full disk) leaves the merges found so far in the folder's checkpoint, and every size that
they do support can be written from it without training again.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.errors import BytelmError
from bytelm.tokenizer import files
from bytelm.tokenizer.bpe import SPECIAL_TOKENS, BinaryBPE, UnsupportedSizeError
from bytelm.tokenizer.checkpoint import Checkpoints


def train_into(
    folder: Path,
    paths: Iterable[Any],
    vocab_sizes: Sequence[int],
    *,
    layout: str = "byte-level",
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int], None] | None = None,
    notify: Callable[[str], None] | None = None,
    **settings: Any,
) -> dict[int, Path]:
    """Train vocabularies of these sizes and write each one's tokenizer.json; -> size: its path.

    folder     of the one size, or of one folder per size
    resume     from the checkpoint that an earlier call left there
    overwrite  whether tokenizers and a checkpoint that are there may be replaced
    on_progress, notify  called with the number of merges so far; with a sentence for a person
    settings   those of `BinaryBPE.train`, to which `special_tokens` belongs

    Raises `BytelmError` before anything is read if the folder holds results that may not be
    replaced. Where the data do not support the largest size, the supported ones are written and the
    error says what to do. `KeyboardInterrupt` passes through once the checkpoint is written.
    """
    notify = notify or (lambda message: None)
    checkpoints = Checkpoints(folder)
    places = _places(folder, vocab_sizes)
    _refuse_to_replace(checkpoints, places.values(), resume=resume, overwrite=overwrite)
    specials = settings.get("special_tokens", SPECIAL_TOKENS)
    start, digest = checkpoints.load() if resume else (None, None)
    checkpoints.keep(start, digest)

    def report(merges: np.ndarray, corpus_sha256: str) -> None:
        checkpoints.report(merges, corpus_sha256)
        if on_progress is not None:
            on_progress(len(merges))

    def write(family: dict[int, BinaryBPE]) -> dict[int, Path]:
        return {size: bpe.save(places[size].parent, layout=layout) for size, bpe in family.items()}

    try:
        found = BinaryBPE.train(
            paths,
            vocab_sizes,
            start=None if start is None else BinaryBPE.from_merges(start, special_tokens=specials),
            start_sha256=digest,
            on_progress=report,
            **settings,
        )
        written = write(found)
    except UnsupportedSizeError as error:
        saved = checkpoints.save()
        written = write(error.supported)
        raise BytelmError(_unsupported(error, saved, written)) from None
    except BaseException as error:
        if saved := checkpoints.save():
            told = "interrupted" if isinstance(error, KeyboardInterrupt) else "training stopped"
            notify(f"{told}; what was found is in {saved}: resume with --resume")
        elif isinstance(error, KeyboardInterrupt):
            notify("interrupted before anything was found")
        raise
    if start is not None and len(start) + 256 + len(specials) > max(vocab_sizes):
        notify(f"{checkpoints.path} holds more merges than these sizes need, and is kept")
    else:
        checkpoints.remove()
    return written


def _places(folder: Path, vocab_sizes: Sequence[int]) -> dict[int, Path]:
    sizes = sorted(set(vocab_sizes))
    alone = len(sizes) == 1
    return {size: (folder if alone else folder / str(size)) / files.NAME for size in sizes}


def _refuse_to_replace(
    checkpoints: Checkpoints, places: Iterable[Path], *, resume: bool, overwrite: bool
) -> None:
    if overwrite:
        return
    for place in places:
        for file in (place, place.with_name(f"{place.name}.gz")):
            if file.exists():
                raise BytelmError(f"{file} exists: choose another --out, or add --overwrite")
    if checkpoints.path.exists() and not resume:
        raise BytelmError(
            f"{checkpoints.path} holds the merges of a run that was not finished: add --resume to "
            "continue it, or --overwrite to train again from the start"
        )


def _unsupported(error: UnsupportedSizeError, saved: Path | None, written: dict[int, Path]) -> str:
    """What the data support, what was written, and how to get the rest without training again."""
    text = str(error)
    if written:
        text += f". The sizes that are supported were written: {_list(written.values())}"
    if saved:
        text += (
            f". The merges are kept in {saved}: the same command with --resume and --vocab-size "
            f"{error.largest} writes the largest vocabulary without training again"
        )
    return text


def _list(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)
