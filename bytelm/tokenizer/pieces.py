"""How documents become the pieces that a vocabulary is trained on.

A piece is one BPE word; nothing merges across its ends. Pieces of 8 KiB cost nothing (the trainer
does not depend on their length) and bound the longest token.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bytelm.data.inspect import entropy
from bytelm.errors import BytelmError
from bytelm.tokenizer.formats import section_starts


@dataclass(frozen=True)
class PieceRules:
    """How documents become pieces.

    `length` in bytes; `sections` also cuts where a section of an executable starts; `entropy` keeps
    pieces between two values in bits per byte; `unique` counts repeated pieces once. Raises
    `BytelmError` for a length below 1 and for entropies that are not 0 <= low < high <= 8.
    """

    length: int = 8192
    sections: bool = False
    entropy: tuple[float, float] | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise BytelmError(f"piece_length must be at least 1 byte, not {self.length}")
        if self.entropy and not 0 <= self.entropy[0] < self.entropy[1] <= 8:
            raise BytelmError(f"entropy must be two values, 0 <= low < high <= 8: {self.entropy}")

    @property
    def selective(self) -> bool:
        """Whether any piece may be left out."""
        return self.unique or self.entropy is not None

    def spans(self, data: bytes) -> Iterator[bytes]:
        """The stretches of a document that are cut into pieces from their beginning."""
        starts = sorted({0, *(section_starts(data) if self.sections else ())})
        for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
            if end > start:
                yield data[start:end]

    def kept(self, data: bytes, seen: set[bytes]) -> bytes:
        """`data` without the pieces that are to be left out; only the last piece may be short."""
        if not self.selective:
            return data
        pieces = (data[i : i + self.length] for i in range(0, len(data), self.length))
        return b"".join(piece for piece in pieces if self._keeps(piece, seen))

    def _keeps(self, piece: bytes, seen: set[bytes]) -> bool:
        if self.entropy and not self.entropy[0] <= byte_entropy(piece) <= self.entropy[1]:
            return False
        if self.unique:
            digest = hashlib.blake2b(piece, digest_size=16).digest()
            if digest in seen:
                return False
            seen.add(digest)
        return True


def byte_entropy(data: bytes) -> float:
    """Order-0 entropy in bits per byte: 0 for one repeated byte, 8 for uniform ones.

    >>> byte_entropy(bytes(range(256)))
    8.0
    """
    return entropy(np.bincount(np.frombuffer(data, np.uint8), minlength=256))
