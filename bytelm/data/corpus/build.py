"""Build a corpus folder from sources: one pass, deterministic, all or nothing, and resumable.

Everything is written into a hidden sibling folder which is renamed at the end, so a build that is
interrupted leaves no half corpus. The same command, given again, goes on from the last mark of its
journal (journal.py); whatever the interruption, the result is the one an uninterrupted build gives.
Documents keep the order of their sources; a shard closes with the document that fills it, so
documents are never split. Nothing that differs between two runs (times, absolute paths of the
output) is stored: building twice gives the same bytes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from bytelm.data.corpus.journal import Chain, Mark, Say, Scratch
from bytelm.data.corpus.reader import DESCRIPTION, Corpus, PathLike
from bytelm.data.corpus.shards import ShardWriter, Table, documents_table, row_of
from bytelm.data.magic import identify
from bytelm.data.order import keys
from bytelm.data.sources import Document, Reading, open_source
from bytelm.errors import DataError

SHARD_BYTES = 256 << 20
MARK_SECONDS = 2.0  # between two marks to go on from: what a kill can cost
Progress = Callable[[int, int], None]  # (documents, bytes) so far


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build wrote."""

    path: Path
    documents: int
    bytes: int
    duplicates: int


def build(
    sources: object,
    path: PathLike,
    *,
    reading: Reading | None = None,
    deduplicate: bool = True,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Built:
    """Write the documents of `sources` (anything `open_source` takes) as a corpus at `path`.

    Documents whose bytes were seen before are left out if `deduplicate`. `say` is told when a
    build goes on from an interrupted one, and when it is interrupted itself. `DataError` if `path`
    exists (unless it is a corpus and `overwrite`), if another process is building it, or if the
    sources hold no document.
    """
    reading = reading or Reading()
    settings = {"deduplicate": deduplicate, "shard_bytes": shard_bytes, "reading": asdict(reading)}
    chain = Chain(open_source(sources, reading=reading).leaves())
    with (
        Scratch(Path(path), settings=settings, overwrite=overwrite, say=say) as scratch,
        _Work(scratch, settings=settings, names=[""], chain=chain) as work,
    ):
        work.run(lambda document: 0, progress=progress)
        if not work.parts[0].documents:
            scratch.journal.kept = False
            raise DataError(f"no document to write to {path}: the sources are empty")
        return work.finish()[0]


def build_split(
    sources: object,
    path: PathLike,
    *,
    heldout: float,
    seed: int = 0,
    reading: Reading | None = None,
    deduplicate: bool = True,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say | None = None,
) -> tuple[Built, Built]:
    """Two corpora, `path`/train and `path`/heldout: whole groups go to one of them.

    A group is held out with probability `heldout`, by a hash of its name and `seed`, so adding
    data later moves nothing. Duplicates are left out across both.
    """
    if not 0 < heldout < 1:
        raise DataError(f"the held-out share must be between 0 and 1, not {heldout}")
    reading = reading or Reading()
    settings = {
        **{"deduplicate": deduplicate, "shard_bytes": shard_bytes, "reading": asdict(reading)},
        **{"heldout": heldout, "seed": seed},
    }
    chain = Chain(open_source(sources, reading=reading).leaves())
    with (
        Scratch(Path(path), settings=settings, overwrite=overwrite, say=say) as scratch,
        _Work(scratch, settings=settings, names=["train", "heldout"], chain=chain) as work,
    ):
        work.run(lambda d: int(is_heldout(d, share=heldout, seed=seed)), progress=progress)
        train, held = (part.documents for part in work.parts)
        if not train or not held:
            scratch.journal.kept = False
            raise DataError(
                f"the split left {train} documents for training and {held} "
                f"held out: there are too few groups for a share of {heldout}"
            )
        first, second = work.finish()
        return first, second


def is_heldout(document: Document, *, share: float, seed: int) -> bool:
    """Whether a document's group falls into the held-out share."""
    (word,) = keys("heldout", seed, str(document.meta.get("group", "")), count=1)
    return int(word) < share * 2**64


class _Work:
    """One pass over the sources into one or more corpora, begun anew or gone on with."""

    def __init__(
        self, scratch: Scratch, *, settings: dict[str, Any], names: list[str], chain: Chain
    ):
        self._scratch, self._settings, self._chain = scratch, settings, chain
        self._names = names
        self._seen: set[bytes] = set()
        self._mark = scratch.journal.recover(chain, parts=len(names))
        if scratch.journal.kept and self._replay():
            done = sum(part.documents for part in self.parts)
            scratch.say(f"going on with the build of {scratch.path} after {done:,} documents")
        else:
            self._begin()

    def __enter__(self) -> "_Work":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self.parts:
            part.close()

    def _replay(self) -> bool:
        """Bring shards and memory to where the journal is; False if a shard is not as it says."""
        self.parts = self._writers()
        for number, row in self._scratch.journal.rows():
            self.parts[number].replay(row["length"])
            self._seen.add(bytes.fromhex(row["sha256"]))
        for part, duplicates in zip(self.parts, self._mark.duplicates, strict=True):
            part.duplicates = duplicates
        return all([part.cut() for part in self.parts])

    def _begin(self) -> None:
        if self._scratch.journal.found:
            self._scratch.say(
                f"nothing of an unfinished build of {self._scratch.path} can be used (its sources "
                "or settings have changed, or it had hardly begun): starting anew"
            )
        self._scratch.clear()
        self._seen.clear()
        self._mark = Mark(duplicates=[0] * len(self._names))
        self.parts = self._writers()

    def _writers(self) -> list[ShardWriter]:
        size = self._settings["shard_bytes"]
        return [ShardWriter(self._scratch.corpus / n, shard_bytes=size) for n in self._names]

    def run(self, choose: Callable[[Document], int], *, progress: Progress | None) -> None:
        """Read what is left of the sources; `choose` says which part a document goes to."""
        marked = time.monotonic()
        leaf, taken = self._mark.leaf, self._mark.taken
        for document, leaf, taken in self._documents():
            self._add(choose(document), document)
            if progress is not None:
                progress(
                    sum(part.documents for part in self.parts),
                    sum(part.bytes for part in self.parts),
                )
            if time.monotonic() - marked >= MARK_SECONDS:
                self._set_mark(leaf, taken)
                marked = time.monotonic()
        self._set_mark(leaf, taken)

    def _documents(self) -> Iterator[tuple[Document, int, int]]:
        """(document, its leaf's number, how many of that leaf's documents were taken by then)."""
        for leaf in range(self._mark.leaf, len(self._chain.leaves)):
            self._chain.upto(leaf)  # the stamp of what is read, so it is taken before
            skip = self._mark.taken if leaf == self._mark.leaf else 0
            rest = islice(self._chain.leaves[leaf], skip, None)
            for taken, document in enumerate(rest, start=skip + 1):
                yield document, leaf, taken

    def _add(self, number: int, document: Document) -> None:
        part, digest = self.parts[number], hashlib.sha256(document.data)
        if self._settings["deduplicate"] and digest.digest() in self._seen:
            part.duplicates += 1
            return
        self._seen.add(digest.digest())
        part.write(document.data)
        meta = {"media": identify(document.data).format, **document.meta}
        row = row_of(meta, length=len(document.data), sha256=digest.hexdigest())
        self._scratch.journal.add(number, row)

    def _set_mark(self, leaf: int, taken: int) -> None:
        for part in self.parts:
            part.flush()
        duplicates = [part.duplicates for part in self.parts]
        chain = self._chain.upto(leaf)
        mark = Mark(leaf=leaf, taken=taken, chain=chain, duplicates=duplicates)
        self._scratch.journal.mark(mark)

    def finish(self) -> list[Built]:
        """Write the indexes and put everything in place."""
        tables = [Table(self._scratch.corpus / name) for name in self._names]
        for number, row in self._scratch.journal.rows():
            tables[number].add(row)
        for table, part in zip(tables, self.parts, strict=True):
            table.close()
            part.describe(self._settings)
        self._scratch.put_in_place()
        return [
            Built(
                path=self._scratch.path / name,
                documents=part.documents,
                bytes=part.bytes,
                duplicates=part.duplicates,
            )
            for name, part in zip(self._names, self.parts, strict=True)
        ]


def open_documents(paths: list[str], *, reading: Reading) -> Iterator[Document]:
    """The documents of paths that may be built corpora or anything `open_source` takes."""
    for path in paths:
        if (Path(path) / DESCRIPTION).is_file():
            yield from stored_documents(path)
        else:
            yield from open_source(path, reading=reading)


def stored_documents(path: PathLike) -> Iterator[Document]:
    """The documents of a built corpus with the metadata they were stored with."""
    corpus = Corpus.open(path)
    for i, row in enumerate(documents_table(path)):
        yield Document(corpus.document(i).tobytes(), row)
