"""Make `data/formats/*.parquet`: what the recipe `encoder-tiny` learns from and is judged on.

Run it as `python benchmarks/fetch/make_formats.py`; it needs the other samples in `data/` only. A
row is a document: `label` is its class, a language (named after its script) or a format of
executables, `text` its bytes and `path` a name.

No byte is in both files. Languages: of each text the first four fifths (by lines) are for
training, one document per language; the rest is held out, cut at line ends into documents of about
`SECTION` bytes. Executables: the package that is held out elsewhere is held out here, whole files;
of the WebAssembly modules, which are one package, `json` and `toml`. Of each training file only the
first `PIECE` bytes and as many from its middle are kept, so that no class is a hundred times as
large as another, and its first `SECTION` bytes, by which a file is judged, `HEADS` times more.
"""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

DATA = Path(__file__).resolve().parents[2] / "data"
SECTION = 512  # bytes of a held-out text, at least (the last one of a language: any number)
PIECE = 16 << 10
HEADS = 8
FORMATS = {".so": {"manylinux": "elf", "macosx": "mach-o"}, ".pyd": {"win": "pe"}}
HELDOUT_WASM = ("json.wasm", "toml.wasm")


def languages() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Class/name -> content of the training and of the held-out texts."""
    train, heldout = {}, {}
    for path in sorted((DATA / "scripts").glob("*-*.txt")):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = _first_share(lines, 0.8)
        train[f"{path.stem}/train.txt"] = b"".join(lines[:kept])
        for number, section in enumerate(_sections(lines[kept:])):
            heldout[f"{path.stem}/{number:02}.txt"] = section
    return train, heldout


def executables() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Class/name -> content of the training pieces and of the held-out files."""
    train, heldout = {}, {}
    for path in sorted((DATA / "executables").rglob("*")):
        if (label := _format(path)) is None:
            continue
        name = f"{label}/{path.parent.name}-{path.name}"
        data = path.read_bytes()
        if path.parent.name.startswith("heldout") or path.name in HELDOUT_WASM:
            heldout[name] = data
            continue
        middle = max(PIECE, len(data) // 2)
        train[name] = data[:PIECE]
        train |= {f"{name}.head{i}": data[:SECTION] for i in range(HEADS)}
        if len(data) > PIECE:
            train[f"{name}.middle"] = data[middle : middle + PIECE]
    return train, heldout


def _format(path: Path) -> str | None:
    if path.suffix == ".wasm":
        return "wasm"
    platforms = FORMATS.get(path.suffix, {})
    return next((label for start, label in platforms.items() if path.name.startswith(start)), None)


def _first_share(lines: list[bytes], share: float) -> int:
    """How many lines hold that share of all bytes."""
    total, seen = sum(map(len, lines)), 0
    for number, line in enumerate(lines):
        seen += len(line)
        if seen >= share * total:
            return number + 1
    return len(lines)


def _sections(lines: list[bytes]) -> list[bytes]:
    """The lines in documents of at least `SECTION` bytes; what is left at the end is one, too."""
    sections, open_section = [], b""
    for line in lines:
        open_section += line
        if len(open_section) >= SECTION:
            sections.append(open_section)
            open_section = b""
    return [*sections, open_section] if open_section else sections


def write(path: Path, documents: dict[str, bytes]) -> None:
    """A Parquet file of the documents, in the order of their names."""
    names = sorted(documents)
    table = pa.table(
        {
            "label": [name.partition("/")[0] for name in names],
            "path": names,
            "text": pa.array([documents[name] for name in names], pa.binary()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, compression="zstd", compression_level=19)


def main() -> None:
    """Write both files."""
    for name, *parts in zip(("train", "heldout"), languages(), executables(), strict=True):
        documents = {key: data for part in parts for key, data in part.items()}
        path = DATA / "formats" / f"{name}.parquet"
        write(path, documents)
        classes = len({key.partition("/")[0] for key in documents})
        print(
            f"{path.name}: {len(documents)} documents, {classes} classes, {path.stat().st_size} B"
        )


if __name__ == "__main__":
    main()
