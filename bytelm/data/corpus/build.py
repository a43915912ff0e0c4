"""Build a corpus folder from sources: one pass, deterministic, all or nothing, and resumable.

Everything is written into a hidden sibling folder which is renamed at the end, so a build that is
interrupted leaves no half corpus. The same command, given again, resumes at the last mark of its
journal (journal.py); whatever the interruption, the result is the one an uninterrupted build gives.
Documents keep the order of their sources; a shard closes with the document that fills it, so
documents are never split. Nothing that differs between two runs (times, absolute paths of the
output) is stored: building twice gives the same bytes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

from bytelm.data.corpus.build_folder import BuildFolder, Notify
from bytelm.data.corpus.format import PathLike
from bytelm.data.corpus.journal import Mark, SourceFingerprint
from bytelm.data.corpus.metadata import TableWriter, row_of
from bytelm.data.corpus.shards import ShardWriter
from bytelm.data.magic import identify
from bytelm.data.order import keys
from bytelm.data.sources import Document, Notes, Reading, open_source
from bytelm.errors import DataError

SHARD_BYTES = 256 << 20
MARK_SECONDS = 2.0  # between two marks to resume at: what a kill can cost
Progress = Callable[[int, int], None]  # (documents, bytes) so far


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build wrote: documents and bytes kept, duplicates left out."""

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
    notify: Notify | None = None,
) -> Built:
    """Write the documents of `sources` (anything `open_source` takes) as a corpus at `path`.

    Documents whose bytes were seen before are left out if `deduplicate`. `notify` is told when a
    build resumes an interrupted one, and when it is interrupted itself. `DataError` if `path`
    exists (unless it is a corpus and `overwrite`), if another process is building it, or if the
    sources hold no document.
    """
    reading = reading or Reading()
    settings = _settings(reading, deduplicate=deduplicate, shard_bytes=shard_bytes)
    fingerprint = SourceFingerprint(open_source(sources, reading=reading).leaves())
    with (
        BuildFolder(Path(path), settings=settings, overwrite=overwrite, notify=notify) as folder,
        Builder(
            folder, settings=settings, names=[""], sources=fingerprint, notes=reading.notes
        ) as builder,
    ):
        builder.run(lambda document: 0, progress=progress)
        if not builder.writers[0].documents:
            folder.journal.kept = False
            raise DataError(f"no document to write to {path}: the sources are empty")
        return builder.finish()[0]


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
    notify: Notify | None = None,
) -> tuple[Built, Built]:
    """Two corpora, `path`/train and `path`/heldout: whole groups go to one of them.

    A group is held out with probability `heldout`, by a hash of its name and `seed`, so adding
    data later moves nothing. Duplicates are left out across both. `DataError` as from `build`, and
    if one of the two would be empty.
    """
    if not 0 < heldout < 1:
        raise DataError(f"the held-out share must be between 0 and 1, not {heldout}")
    reading = reading or Reading()
    settings = {
        **_settings(reading, deduplicate=deduplicate, shard_bytes=shard_bytes),
        **{"heldout": heldout, "seed": seed},
    }
    fingerprint = SourceFingerprint(open_source(sources, reading=reading).leaves())
    names = ["train", "heldout"]
    with (
        BuildFolder(Path(path), settings=settings, overwrite=overwrite, notify=notify) as folder,
        Builder(
            folder, settings=settings, names=names, sources=fingerprint, notes=reading.notes
        ) as builder,
    ):
        builder.run(lambda d: int(is_heldout(d, share=heldout, seed=seed)), progress=progress)
        train, held = (writer.documents for writer in builder.writers)
        if not train or not held:
            folder.journal.kept = False
            raise DataError(
                f"the split left {train} documents for training and {held} "
                f"held out: there are too few groups for a share of {heldout}"
            )
        first, second = builder.finish()
        return first, second


def is_heldout(document: Document, *, share: float, seed: int) -> bool:
    """Whether a document's group falls into the held-out share."""
    (word,) = keys("heldout", seed, str(document.meta.get("group", "")), count=1)
    return int(word) < share * 2**64


def _settings(reading: Reading, *, deduplicate: bool, shard_bytes: int) -> dict[str, Any]:
    """What a build depends on besides its sources, as stored and compared on resuming."""
    how = {"deduplicate": deduplicate, "shard_bytes": shard_bytes}
    return {**how, "reading": reading.settings()}


class Builder:
    """One pass over the sources into one or more corpora, from the start or resumed."""

    def __init__(
        self,
        folder: BuildFolder,
        *,
        settings: dict[str, Any],
        names: list[str],
        sources: SourceFingerprint,
        notes: Notes,
    ):
        self._notes, self._listed = notes, dict(notes.counts)  # listing files noted those already
        self._folder, self._settings, self._sources = folder, settings, sources
        self._names, self._columns = names, settings["reading"].get("columns", ())
        self._seen: set[bytes] = set()
        self._noted: list[list[Any]] = []
        self._mark = folder.journal.recover(sources, corpora=len(names))
        if folder.journal.kept and self._replay():
            done = sum(writer.documents for writer in self.writers)
            folder.notify(f"resuming the build of {folder.path} after {done:,} documents")
        else:
            self._begin()

    def __enter__(self) -> "Builder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self.writers:
            writer.close()

    def _replay(self) -> bool:
        """Bring shards and memory to where the journal is; False if a shard is not as it says."""
        self.writers = self._new_writers()
        for number, row in self._folder.journal.rows():
            self.writers[number].replay(row["length"])
            self._seen.add(bytes.fromhex(row["sha256"]))
        for writer, duplicates in zip(self.writers, self._mark.duplicates, strict=True):
            writer.duplicates = duplicates
        whole = all([writer.cut() for writer in self.writers])
        if whole:
            self._notes.restore(self._mark.noted)
        return whole

    def _begin(self) -> None:
        if self._folder.journal.found:
            self._folder.notify(
                f"nothing of an unfinished build of {self._folder.path} can be used (its sources "
                "or settings have changed, or it had hardly begun): starting from scratch"
            )
        self._folder.clear()
        self._seen.clear()
        self._mark = Mark(duplicates=[0] * len(self._names))
        self.writers = self._new_writers()

    def _new_writers(self) -> list[ShardWriter]:
        size = self._settings["shard_bytes"]
        return [ShardWriter(self._folder.corpus / n, shard_bytes=size) for n in self._names]

    def run(self, choose: Callable[[Document], int], *, progress: Progress | None) -> None:
        """Read what is left of the sources; `choose` gives the number of a document's corpus."""
        marked = time.monotonic()
        leaf, taken = self._mark.leaf, self._mark.taken
        for document, leaf, taken in self._documents():
            self._add(choose(document), document)
            if progress is not None:
                progress(
                    sum(writer.documents for writer in self.writers),
                    sum(writer.bytes for writer in self.writers),
                )
            if time.monotonic() - marked >= MARK_SECONDS:
                self._set_mark(leaf, taken)
                marked = time.monotonic()
        self._set_mark(leaf, taken)

    def _documents(self) -> Iterator[tuple[Document, int, int]]:
        """(document, its leaf's number, how many of that leaf's documents were taken by then)."""
        leaves = self._sources.leaves
        for leaf in range(self._mark.leaf, len(leaves)):
            self._sources.upto(leaf)  # the stamp of what is read, so it is taken before
            self._noted = self._notes.since(self._listed)  # this leaf notes its own when resumed
            skip = self._mark.taken if leaf == self._mark.leaf else 0
            rest = islice(leaves[leaf], skip, None)
            for taken, document in enumerate(rest, start=skip + 1):
                yield document, leaf, taken

    def _add(self, number: int, document: Document) -> None:
        writer, blocks = self.writers[number], document.blocks()
        head, second = next(blocks, b""), next(blocks, None)
        digest, length = hashlib.sha256(head), len(head)

        def hashed(more: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal length
            for block in more:
                digest.update(block)
                length += len(block)
                yield block

        def keep() -> bool:
            return not (self._settings["deduplicate"] and digest.digest() in self._seen)

        before = writer.documents
        if second is not None:  # too long to be held until it is known whether it is a duplicate
            writer.write_blocks(chain([head], hashed(chain([second], blocks))), keep=keep)
        elif keep():
            writer.write(head)
        if writer.documents == before:
            writer.duplicates += 1
            return
        self._seen.add(digest.digest())
        meta = {"media": identify(head).format, **document.meta}
        row = row_of(meta, length=length, sha256=digest.hexdigest(), columns=self._columns)
        self._folder.journal.add(number, row)

    def _set_mark(self, leaf: int, taken: int) -> None:
        for writer in self.writers:
            writer.flush()
        duplicates = [writer.duplicates for writer in self.writers]
        fingerprint = self._sources.upto(leaf)
        mark = Mark(
            leaf=leaf,
            taken=taken,
            fingerprint=fingerprint,
            duplicates=duplicates,
            noted=self._noted,
        )
        self._folder.journal.mark(mark)

    def finish(self) -> list[Built]:
        """Write the indexes and put everything in place."""
        folders = [self._folder.corpus / name for name in self._names]
        tables = [TableWriter(folder, columns=self._columns) for folder in folders]
        for number, row in self._folder.journal.rows():
            tables[number].add(row)
        for table, writer in zip(tables, self.writers, strict=True):
            table.close()
            writer.describe(self._settings)
        self._folder.put_in_place()
        return [
            Built(
                path=self._folder.path / name,
                documents=writer.documents,
                bytes=writer.bytes,
                duplicates=writer.duplicates,
            )
            for name, writer in zip(self._names, self.writers, strict=True)
        ]
