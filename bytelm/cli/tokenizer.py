"""`bytelm tokenizer train|encode|decode|inspect|evaluate|unpack`: byte-pair vocabularies."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bytelm.cli.common import Json
from bytelm.cli.inputs import read_input
from bytelm.cli.output import note, print_json
from bytelm.cli.output import write_bytes as to_stdout
from bytelm.cli.progress import progress
from bytelm.cli.reading import ReadingOptions, tell, with_reading_options
from bytelm.data.settings import to_bytes
from bytelm.errors import BytelmError

if TYPE_CHECKING:
    from bytelm.data.sources import Reading

tokenizer = typer.Typer(no_args_is_help=True, help="Train and use Binary BPE vocabularies.")


def _find(path: Path) -> Path:
    """A bundled tokenizer may be named as in the repository, from anywhere."""
    from bytelm.data.bundled import find_data

    return Path(find_data(str(path)))


Tokenizer = Annotated[
    Path, typer.Argument(help="Folder or file of a trained tokenizer.", callback=_find)
]
Layout = Annotated[
    Literal["byte-level", "latin-1"],
    typer.Option(help="How the file spells bytes: see docs/binary-bpe.md."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads, for the same result; all cores if absent.")
]
_EXPORTS = {"sentencepiece": "tokenizer.model", "tiktoken": "tokenizer.tiktoken"}


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.add_typer(tokenizer, name="tokenizer")


@tokenizer.command()
@with_reading_options
def train(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, wheels, .deb, archives.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; one folder per size in it.")],
    vocab_size: Annotated[str, typer.Option(help="One size, or several: 4096,8192.")] = "4096,8192",
    piece_length: Annotated[int, typer.Option(help="Bytes; nothing merges across pieces.")] = 8192,
    max_token_length: Annotated[int | None, typer.Option(help="Bytes; no cap if absent.")] = None,
    min_frequency: Annotated[int, typer.Option(help="Least occurrences of a merged pair.")] = 2,
    max_memory: Annotated[
        str | None, typer.Option(help="Such as 2GiB; 80 % of what is free.")
    ] = None,
    sections: Annotated[
        bool, typer.Option("--sections", help="Also cut where a section of an executable begins.")
    ] = False,
    entropy: Annotated[
        str | None, typer.Option(help="Keep pieces between LOW,HIGH bits per byte.")
    ] = None,
    unique_pieces: Annotated[
        bool, typer.Option("--unique-pieces", help="Count repeated pieces once.")
    ] = False,
    layout: Layout = "byte-level",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the checkpoint an interrupted run left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tokenizers and checkpoints in --out.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Train vocabularies of one or several sizes, each the beginning of the next.

    Nothing that was found is lost: an interruption, or a size that the data do not support, leaves
    a checkpoint in --out, from which --resume continues and from which any supported size is made.
    """
    from bytelm.tokenizer.training_folder import train_into

    sizes = _numbers(vocab_size, int)
    how = reading.reading()
    with progress("training", unit="merges") as show:
        try:
            written = train_into(
                out,
                paths,
                sizes,
                layout=layout,
                resume=resume,
                overwrite=overwrite,
                on_progress=lambda found: show(found, max(sizes)),
                notify=note,
                piece_length=piece_length,
                max_token_length=max_token_length,
                min_frequency=min_frequency,
                max_memory=to_bytes(max_memory) if max_memory else None,
                sections=sections,
                entropy=_window(entropy) if entropy else None,
                unique_pieces=unique_pieces,
                threads=threads,
                reading=how,
            )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    tell(how)
    paths_written = [str(path) for path in written.values()]
    if json:
        print_json({"files": paths_written, "vocab_sizes": list(written), **how.notes.report()})
    else:
        print("\n".join(paths_written))


@tokenizer.command()
def encode(
    model: Tokenizer,
    file: Annotated[Path, typer.Argument(help="Any file; - is stdin.")],
    out: Annotated[
        Path | None, typer.Option(help="A .npy file of ids; without it they are printed.")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Encode a file: ids on stdout, or as a NumPy array in a file."""
    import io

    import numpy as np

    from bytelm.files import write_bytes
    from bytelm.tokenizer import BinaryBPE

    bpe, data = BinaryBPE.load(model), read_input(file)
    ids = bpe.encode(data, threads=threads).astype(bpe.dtype)
    if out is not None:
        buffer = io.BytesIO()
        np.save(buffer, ids)
        write_bytes(out, buffer.getvalue())
    if json:
        facts = {"bytes": len(data), "tokens": len(ids), "dtype": ids.dtype.name}
        print_json(facts if out else {**facts, "ids": ids.tolist()})
    elif out is None:
        print(" ".join(map(str, ids.tolist())))
    else:
        note(f"{len(data)} bytes, {len(ids)} tokens, {out}")


@tokenizer.command()
def decode(
    model: Tokenizer,
    file: Annotated[Path, typer.Argument(help="A .npy file of ids, or ids as text; - is stdin.")],
    out: Annotated[Path | None, typer.Option(help="File to write; stdout if absent.")] = None,
    threads: Threads = None,
) -> None:
    """Decode ids back to the bytes they stand for."""
    import io

    import numpy as np

    from bytelm.files import write_bytes
    from bytelm.tokenizer import BinaryBPE

    bpe = BinaryBPE.load(model)
    given = read_input(file)
    if given.startswith(b"\x93NUMPY"):
        data = bpe.decode(np.load(io.BytesIO(given), allow_pickle=False), threads=threads)
    elif re.fullmatch(rb"[\d\s]*", given):
        data = bpe.decode([int(word) for word in given.split()], threads=threads)
    else:
        raise BytelmError(f"{file} holds neither a NumPy array nor decimal ids")
    if out is None:
        to_stdout([data])
    else:
        write_bytes(out, data)


@tokenizer.command()
@with_reading_options
def inspect(
    model: Tokenizer,
    files: Annotated[list[str] | None, typer.Argument(help="Files to look at through it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a hex view.")] = None,
    view_bytes: Annotated[int, typer.Option(help="Bytes of each file in the hex view.")] = 4096,
    nested: Annotated[
        list[Path] | None, typer.Option(help="Smaller vocabularies this one should begin with.")
    ] = None,
    top: Annotated[int, typer.Option(help="Tokens to list.")] = 20,
    json: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Token lengths, known patterns, the commonest tokens by where they occur, nesting."""
    from bytelm.files import write_bytes
    from bytelm.tokenizer import BinaryBPE
    from bytelm.tokenizer.page import page
    from bytelm.tokenizer.patterns import (
        holds_nested,
        known_tokens,
        length_histogram,
        token_uses,
    )

    bpe = BinaryBPE.load(model)
    how = reading.reading()
    documents = _documents(files or [], how)
    tell(how)
    uses = token_uses(bpe, [(kind, data) for _, kind, data in documents])
    report: dict[str, Any] = {
        "vocab_size": bpe.vocab_size,
        "specials": bpe.specials,
        "fast_encoder": bpe.codec.exact,
        "tokens_by_length": length_histogram(bpe),
        "known_patterns": {str(i): meaning for i, meaning in known_tokens(bpe).items()},
        "nested": {str(path): holds_nested(bpe, BinaryBPE.load(path)) for path in nested or []},
        "commonest": [
            {"id": use.number, "hex": use.text[:32].hex(), "kind": use.kind, "counts": use.counts}
            for use in uses[:top]
        ],
    }
    if html:
        views = [(name, data[:view_bytes]) for name, _, data in documents]
        write_bytes(html, page(bpe, str(model), views).encode())
        note(f"wrote {html}")
    if json:
        print_json({**report, **how.notes.report()})
        return
    print(f"{bpe.vocab_size} ids, {len(bpe.specials)} special; tokens by length in bytes:")
    print("  " + ", ".join(f"{n}: {count}" for n, count in report["tokens_by_length"].items()))
    for path, holds in report["nested"].items():
        print(f"{path}: {'nested' if holds else 'NOT nested'}")
    for number, meaning in report["known_patterns"].items():
        print(f"  {number:>6} {(bpe.token_bytes[int(number)] or b'').hex(' '):32} {meaning}")
    for row in report["commonest"]:
        where = ", ".join(f"{kind} {count}" for kind, count in row["counts"].items())
        print(f"  {row['id']:>6} {row['hex']:32} {row['kind']:24} {where}")


@tokenizer.command()
@with_reading_options
def evaluate(
    model: Tokenizer,
    paths: Annotated[list[str], typer.Argument(help="Files, folders, archives: held-out data.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Other byte-level tokenizers, such as a text one: their merges, over all bytes, "
            "without the rule that cuts text."
        ),
    ] = None,
    json: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Bytes per token by format and instruction set, and how much of the vocabulary is used."""
    from bytelm.tokenizer import BinaryBPE
    from bytelm.tokenizer.usage import usage_by_class

    how = reading.reading()
    documents = [(kind, data) for _, kind, data in _documents(paths, how)]
    tell(how)
    report = {
        str(path): usage_by_class(BinaryBPE.load(path, merges_only=path != model), documents)
        for path in [model, *(against or [])]
    }
    if json:
        print_json({"tokenizers": report, "raw_bytes": 1.0, **how.notes.report()})
        return
    kinds = list(next(iter(report.values()))["classes"])
    width = max(map(len, [*kinds, "vocabulary used"]))
    print(f"{'bytes per token':{width}}  raw bytes  " + "  ".join(report))
    for kind in kinds:
        cells = [
            f"{usage['classes'][kind]['bytes_per_token'] or 0:.3f}" for usage in report.values()
        ]
        print(f"{kind:{width}}  1.000      " + "  ".join(cells))
    total = [f"{usage['bytes_per_token'] or 0:.3f}" for usage in report.values()]
    print(f"{'all':{width}}  1.000      " + "  ".join(total))
    print(
        f"{'tokens used':{width}}             " + "  ".join(str(u["used"]) for u in report.values())
    )


@tokenizer.command()
def unpack(
    model: Tokenizer,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; its own if absent.")] = None,
    layout: Layout = "byte-level",
    vocab_size: Annotated[int | None, typer.Option(help="Cut to this size.")] = None,
    format: Annotated[
        Literal["json", "sentencepiece", "tiktoken"],
        typer.Option(help="Of Hugging Face tokenizers and this command; of another library."),
    ] = "json",
) -> None:
    """Write the plain tokenizer.json other libraries read, from a gzipped or any other one; or the
    model of sentencepiece, or the ranks of tiktoken."""
    from bytelm.files import write_bytes
    from bytelm.tokenizer import BinaryBPE

    bpe = BinaryBPE.load(model)
    bpe = bpe.truncate(vocab_size) if vocab_size else bpe
    folder = out or (model if model.is_dir() else model.parent)
    if format == "json":
        print(bpe.save(folder, layout=layout))
        return
    path = folder / _EXPORTS[format]
    write_bytes(path, bpe.to_sentencepiece() if format == "sentencepiece" else bpe.to_tiktoken())
    print(path)


# ---- reading options and files ------------------------------------------------------------------


def _documents(paths: list[str], how: "Reading") -> list[tuple[str, str, bytes]]:
    """(name, class of file, bytes) of every document."""
    from bytelm.data.magic import identify
    from bytelm.data.sources import open_source
    from bytelm.tokenizer.formats import executable_class

    found = []
    for document in open_source(paths, reading=how):
        name = str(document.meta.get("path") or document.meta.get("source") or "")
        data = document.data
        kind = executable_class(data) or identify(data).format
        found.append((name, kind, data))
    return found


def _numbers(text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise BytelmError(f"expected numbers separated by commas, not {text!r}") from None


def _window(text: str) -> tuple[float, float]:
    values = _numbers(text, float)
    if len(values) != 2:
        raise BytelmError(f"expected LOW,HIGH in bits per byte, not {text!r}")
    return values[0], values[1]
