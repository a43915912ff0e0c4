"""Which source reads a file: the name says whether it is opened, the content says how.

A name that claims a container or records (a.zip, b.txt.gz, c.parquet) is only a hint: if the
content is another format that a source knows, that source reads it, and if it is none, the file is
one document as it stands, which is noted. Names that claim nothing (report.docx, which is a zip
file) are never opened, except by the magic numbers of sources of other packages.
"""

from collections.abc import Sequence
from pathlib import Path

from bytelm.data.sources.archives import format_of, is_archive
from bytelm.data.sources.base import Reading, Source
from bytelm.data.sources.look import Look

Kind = type[Source]


def kind_of(path: Path, kinds: Sequence[Kind], *, reading: Reading) -> Kind | None:
    """The registered source that reads the file at `path`; None: it is taken as it stands.

    `DataError` under `Reading.strict` for a file that is not what its name says.
    """
    if reading.raw:
        return None
    try:
        return _kind_of(path, kinds, reading=reading)
    except OSError:
        return None  # reading it says why it cannot be read


def _kind_of(path: Path, kinds: Sequence[Kind], *, reading: Reading) -> Kind | None:
    name = path.name.lower()
    claiming = [kind for kind in kinds if kind.suffixes and name.endswith(kind.suffixes)]
    if not claiming:
        return _by_magic(path, kinds)
    look = Look.of_path(path)
    if not look.head and not name.endswith(".json"):
        return claiming[0]  # no container is empty: reading it says so
    for kind in claiming:
        if kind.fits(look, reading=reading):
            return kind
    found, _ = format_of(look, [kind for kind in kinds if is_archive(kind)], reading=reading)
    if found is None and not name.endswith(".json"):  # most .json files are one value
        suffix = max((s for k in claiming for s in k.suffixes if name.endswith(s)), key=len)
        reading.note("misnamed file", str(path), why=f"its content is not what {suffix} says")
    return found


def _by_magic(path: Path, kinds: Sequence[Kind]) -> Kind | None:
    marked = [kind for kind in kinds if kind.magic]
    if not marked:
        return None
    with path.open("rb") as stream:
        head = stream.read(max(at + len(text) for kind in marked for at, text in kind.magic))
    return next((k for k in marked if any(head.startswith(text, at) for at, text in k.magic)), None)
