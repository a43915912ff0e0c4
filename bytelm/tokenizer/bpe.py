"""`BinaryBPE`: a byte-pair vocabulary for raw bytes, its ids, and its files.

Ids are laid out as in the published family: the special tokens first, then the 256 bytes, then the
merges in order. So every smaller vocabulary of one training run is the beginning of the larger
ones, with the same ids. No bytes ever encode to a special token, even those that spell its name.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

from bytelm.data.sources import Reading
from bytelm.errors import BytelmError, unknown_name
from bytelm.files import write_bytes
from bytelm.threads import in_order, thread_count
from bytelm.tokenizer import codec_core, files
from bytelm.tokenizer.codec import Codec
from bytelm.tokenizer.documents import documents_of, grouped, least_bytes
from bytelm.tokenizer.pieces import PieceRules
from bytelm.tokenizer.sentencepiece_model import sentencepiece_model
from bytelm.tokenizer.trainer import Merges, train_merges

SPECIAL_TOKENS = ("<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|cls|>", "<|sep|>", "<|mask|>")


@dataclass(frozen=True)
class EncodedCorpus:
    """Documents as one array of ids. Document d is ids[offsets[d]:offsets[d+1]] and stands for
    bytes byte_offsets[d] to byte_offsets[d+1] of the concatenated documents."""

    ids: np.ndarray  # uint16, or uint32 for vocabularies over 65,536
    offsets: np.ndarray  # (D+1,) int64
    byte_offsets: np.ndarray  # (D+1,) int64


class UnsupportedSizeError(BytelmError):
    """The data do not support the largest vocabulary that was asked for.

    largest    the size that they support
    supported  the vocabularies asked for that they do support, by size
    """

    def __init__(self, message: str, *, largest: int, supported: "dict[int, BinaryBPE]"):
        super().__init__(message)
        self.largest, self.supported = largest, supported


class BinaryBPE:
    """A trained vocabulary. Make one with `train` or `load`; it never changes afterwards.

    >>> bpe = BinaryBPE.train([b"abababab"], vocab_sizes=[265])[265]
    >>> bpe.encode(b"ababa").tolist(), bpe.decode([264, 104])
    ([264, 104], b'ababa')
    """

    def __init__(self, stored: files.Stored):
        self.codec = Codec(stored.merges)
        self._stored = stored
        self._ids = stored.file_ids.astype(np.uint32)

    # ---- making one -----------------------------------------------------------------------------

    @classmethod
    def from_merges(
        cls, merges: np.ndarray, *, special_tokens: Sequence[str] = SPECIAL_TOKENS
    ) -> "BinaryBPE":
        """From (M, 2) internal ids: 0-255 the bytes, 256 + i what merge i makes."""
        specials = {name: number for number, name in enumerate(special_tokens)}
        if len(specials) != len(special_tokens) or "" in specials:
            raise BytelmError(
                f"special tokens must differ, and each have a name: {', '.join(special_tokens)}"
            )
        ids = np.arange(len(specials), len(specials) + 256 + len(merges))
        return cls(files.Stored(np.asarray(merges, np.int64), ids, specials, {}))

    @classmethod
    def train(
        cls,
        paths: Iterable[str | os.PathLike[str] | bytes],
        vocab_sizes: Sequence[int] = (4096, 8192),
        *,
        piece_length: int = 8192,
        max_token_length: int | None = None,
        min_frequency: int = 2,
        sections: bool = False,
        entropy: tuple[float, float] | None = None,
        unique_pieces: bool = False,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        max_memory: int | None = None,
        start: "BinaryBPE | None" = None,
        start_sha256: str | None = None,
        threads: int | None = None,
        on_progress: Callable[[np.ndarray, str], None] | None = None,
        reading: Reading | None = None,
    ) -> "dict[int, BinaryBPE]":
        """One vocabulary per size, each the beginning of the next, from one run.

        `paths` are files, folders, archives, read as `reading` says, or documents as `bytes`.
        Sizes count the specials and the 256 bytes. `start` resumes from an earlier vocabulary of
        the same data and rules (checked if `start_sha256`, which `on_progress` told, is given).
        The merges are the same for any number of `threads` (None = all cores).
        Raises `UnsupportedSizeError` if the data do not support the largest size: nothing is made
        up to fill it, and the smaller vocabularies are with the error.
        """
        paths = list(paths)
        found = train_merges(
            documents_of(paths, reading=reading),
            ids=_largest(vocab_sizes, special_tokens) - len(special_tokens),
            rules=PieceRules(piece_length, sections, entropy, unique_pieces),
            least_bytes=least_bytes(paths, reading=reading),
            max_token_length=max_token_length,
            min_frequency=min_frequency,
            max_memory=max_memory,
            start=None if start is None else start.codec.merges,
            start_sha256=start_sha256,
            threads=threads,
            on_progress=on_progress,
        )
        return cls.family(found, vocab_sizes, special_tokens=special_tokens)

    @classmethod
    def family(
        cls,
        found: Merges,
        vocab_sizes: Sequence[int],
        *,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ) -> "dict[int, BinaryBPE]":
        """The vocabularies of the given sizes that one list of merges holds."""
        base = 256 + len(special_tokens)
        wanted, largest = _largest(vocab_sizes, special_tokens), base + len(found.merges)
        family = {
            size: cls.from_merges(found.merges[: size - base], special_tokens=special_tokens)
            for size in sorted(set(vocab_sizes))
            if size <= largest
        }
        if wanted > largest:
            raise UnsupportedSizeError(
                f"{found.corpus_bytes} bytes support a vocabulary of {largest}, not {wanted}: no "
                "pair occurs often enough any more. Ask for less, give more data, or lower "
                "min_frequency",
                largest=largest,
                supported=family,
            )
        return family

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, merges_only: bool = False) -> "BinaryBPE":
        """From a folder, a `tokenizer.json` or the same gzipped, in either published layout.

        Added tokens that are not special are text, and found first. `DataError` for a file whose
        ids are not those of its merges over all of a text (a pre-tokenizer that cuts it, a
        normaliser, ...), by name; merges_only leaves these parts out, for comparisons.
        """
        return cls(files.read(path, merges_only=merges_only))

    def truncate(self, vocab_size: int) -> "BinaryBPE":
        """The vocabulary of the first `vocab_size` ids, as if trained for that size."""
        specials = [name for name, _ in files.sorted_by_id(self.specials)]
        smallest = 256 + len(specials)
        if not smallest <= vocab_size <= self.vocab_size:
            raise BytelmError(
                f"a vocabulary of {self.vocab_size} can be cut to {smallest} or more, "
                f"not to {vocab_size}"
            )
        self._refuse_added("cut")
        merges = self.codec.merges[: vocab_size - smallest]
        return BinaryBPE.from_merges(merges, special_tokens=specials)

    # ---- what it holds --------------------------------------------------------------------------

    @property
    def specials(self) -> dict[str, int]:
        """Name -> id of each special token."""
        return dict(self._stored.specials)

    def special(self, name: str) -> int:
        """The id of a special token; `BytelmError` with the nearest match if there is none."""
        if name not in self._stored.specials:
            raise BytelmError(unknown_name("special token", name, self._stored.specials))
        return self._stored.specials[name]

    @cached_property
    def token_bytes(self) -> list[bytes | None]:
        """The bytes of each id; None for special tokens and unused ids."""
        table: list[bytes | None] = [None] * self.vocab_size
        for internal, number in enumerate(self._ids.tolist()):
            table[number] = self.codec.token(internal)
        for number, text in {**self._stored.unmerged, **self._stored.added}.items():
            table[number] = text
        return table

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        others = [*self._stored.specials.values(), *self._stored.unmerged, *self._stored.added]
        return max([int(self._ids.max()), *others]) + 1

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    # ---- encoding -------------------------------------------------------------------------------

    def encode(self, data: bytes, *, threads: int | None = None) -> np.ndarray:
        """(n,) uint32 ids of any bytes; never a special token. threads: None = all cores."""
        parts, threads = self._split(data), thread_count(threads)
        if len(parts) == 1:
            return self._numbered(self.codec.encode(data, threads=threads))
        ids = [
            np.array([self.added[part]], np.uint32)
            if number % 2
            else self._numbered(self.codec.encode(part, threads=threads))
            for number, part in enumerate(parts)
        ]
        return np.concatenate(ids)

    @cached_property
    def added(self) -> dict[bytes, int]:
        """The added tokens that are text, which are found before any merge -> their ids."""
        return {text: number for number, text in self._stored.added.items()}

    def _split(self, data: bytes) -> list[bytes]:
        """The data cut at its added tokens, which are every second part: the leftmost, and of
        those the longest."""
        if not self.added:
            return [data]
        longest_first = sorted(self.added, key=len, reverse=True)
        return re.split(b"(" + b"|".join(map(re.escape, longest_first)) + b")", data)

    def _refuse_added(self, what: str) -> None:
        if self.added:
            raise BytelmError(
                f"a vocabulary with added tokens that are text ({min(self.added)!r}) cannot be "
                f"{what}"
            )

    def encode_with_offsets(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """(n,) ids and (n+1,) int64 byte offsets: token i is data[offsets[i]:offsets[i+1]]."""
        if self.added:
            ids = self.encode(data)
            lengths = [len(self.token_bytes[number] or b"") for number in ids.tolist()]
        else:
            internal = self.codec.encode(data)
            ids, lengths = self._numbered(internal), self.codec.lengths[internal]
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return ids, offsets

    def _numbered(self, internal: np.ndarray) -> np.ndarray:
        """The file's ids of internal ones; usually all are moved by the number of specials."""
        if self._moved is not None:
            return internal + self._moved
        return np.take(self._ids, internal)

    @cached_property
    def _moved(self) -> np.uint32 | None:
        by = self._ids - np.arange(len(self._ids), dtype=np.uint32)
        return by[0] if (by == by[0]).all() else None

    def encode_batch(
        self, documents: Iterable[bytes], *, threads: int | None = None
    ) -> list[np.ndarray]:
        """`encode` of each, on that many threads (None = all cores), with the same ids as on one.

        Documents are taken as they are encoded, a few MiB ahead for each thread.
        """
        return list(self._encoded(documents, thread_count(threads)))

    def _encoded(self, documents: Iterable[bytes], threads: int) -> Iterator[np.ndarray]:
        self._encode_group([b""])  # builds the tables once, before threads would
        for group in in_order(self._encode_group, grouped(documents), threads=threads):
            yield from group

    def _encode_group(self, documents: list[bytes]) -> list[np.ndarray]:
        if self.added:
            return [self.encode(data, threads=1) for data in documents]
        return [self._numbered(ids) for ids in self.codec.encode_pieces(documents)]

    def encode_corpus(
        self, documents: Iterable[bytes], *, threads: int | None = None
    ) -> EncodedCorpus:
        """Whole documents as one compact array with token and byte offsets."""
        lengths = [0]

        def counted() -> Iterable[bytes]:
            for data in documents:
                lengths.append(len(data))
                yield data

        encoded = self._encoded(counted(), thread_count(threads))
        parts = [part.astype(self.dtype) for part in encoded]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        ids = np.concatenate(parts) if parts else np.zeros(0, self.dtype)
        return EncodedCorpus(ids, offsets, np.cumsum(lengths, dtype=np.int64))

    def decode(self, ids: Iterable[int] | np.ndarray, *, threads: int | None = None) -> bytes:
        """The bytes of any ids; special tokens stand for none. `BytelmError` for unknown ids.
        threads: None = all cores."""
        threads = thread_count(threads)
        given = ids if isinstance(ids, np.ndarray) else np.array(list(ids), np.int64)
        if not np.issubdtype(given.dtype, np.integer):
            raise BytelmError(f"ids must be integers, not {given.dtype}")
        if self._stored.unmerged or self.added:
            return b"".join(map(self._bytes_of, given.ravel().tolist()))
        given = np.ascontiguousarray(given.ravel())
        return self.codec.decode(given, internal=self._internal, threads=threads)

    def _bytes_of(self, number: int) -> bytes:
        text = self.token_bytes[number] if 0 <= number < self.vocab_size else None
        if text is None and number not in self._stored.specials.values():
            raise BytelmError(f"there is no id {number} in this vocabulary of {self.vocab_size}")
        return text or b""

    @cached_property
    def _internal(self) -> np.ndarray:
        table = np.full(self.vocab_size, codec_core.UNKNOWN, np.int64)
        table[list(self._stored.specials.values())] = codec_core.SPECIAL
        table[self._ids] = np.arange(len(self._ids))
        return table

    # ---- files ----------------------------------------------------------------------------------

    def to_json(self, *, layout: str = "byte-level") -> bytes:
        """The content of `tokenizer.json` in one of the two published layouts."""
        return files.dump(self._content(layout))

    def _content(self, layout: str) -> dict[str, Any]:
        spell = [self.codec.token(i) for i in range(len(self.codec))]
        return files.to_json(self._stored, spell, layout)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that this vocabulary is; the same however it was saved."""
        spell = [self.codec.token(i) for i in range(len(self.codec))]
        return sha256(files.identity(self._stored, spell)).hexdigest()

    def to_tiktoken(self) -> bytes:
        """tiktoken's ranks file: base64 token and rank a line; ranks are our ids without the
        specials. tiktoken has no file for a split rule: pass one that never splits your pieces."""
        self._refuse_added("written as ranks")
        if not self.codec.exact:
            raise BytelmError("tiktoken finds tokens by rank alone: it needs all to be reachable")
        return files.tiktoken_lines(self.codec.token(i) for i in range(len(self.codec)))

    def to_sentencepiece(self, *, unknown: str = "<|unk|>") -> bytes:
        """A sentencepiece `.model` with our ids, which encodes `sentencepiece_model.as_text(data)`.

        `BytelmError` if it cannot be the same: an unreachable token, ids with gaps or of tokens
        that no merge makes, or no special token `unknown`, which the format demands.
        """
        self._refuse_added("written for sentencepiece")
        if not self.codec.exact or self._stored.unmerged:
            raise BytelmError("sentencepiece merges by spelling: it needs all to be reachable")
        names = {number: name for name, number in self._stored.specials.items()}
        tokens = [names.get(i, text) for i, text in enumerate(self.token_bytes)]
        if None in tokens:
            raise BytelmError("sentencepiece numbers its pieces without gaps; these ids have some")
        self.special(unknown)
        rank = np.zeros(self.vocab_size, np.int64)
        rank[self._ids] = np.arange(len(self._ids))
        pieces = cast(list[bytes | str], tokens)
        return sentencepiece_model(pieces, rank.tolist(), unknown=unknown)

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        layout: str = "byte-level",
        compress: bool = False,
    ) -> Path:
        """Writes folder/tokenizer.json (or .json.gz, which only `load` reads); returns its path.

        Beside a plain one goes the tokenizer_config.json that `transformers.AutoTokenizer` reads.
        """
        content = self._content(layout)
        data = files.dump(content)
        path = Path(folder) / (files.NAME + (".gz" if compress else ""))
        write_bytes(path, files.compressed(data) if compress else data)
        if not compress:
            write_bytes(path.with_name(files.CONFIG), files.dump(files.config_of(content)) + b"\n")
        return path


def _largest(vocab_sizes: Sequence[int], special_tokens: Sequence[str]) -> int:
    smallest = 256 + len(special_tokens)
    if not vocab_sizes or min(vocab_sizes) < smallest:
        raise BytelmError(
            f"vocabulary sizes must be at least {smallest} (256 bytes and {len(special_tokens)} "
            f"special tokens): {', '.join(map(str, vocab_sizes)) or 'none given'}"
        )
    return max(vocab_sizes)
