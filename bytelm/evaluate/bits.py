"""Bits per byte: THE definition, used by every command, card and benchmark.

    bits per byte = sum over every raw byte of every document of -log2 P / number of raw bytes

Each document is scored from its beginning, with BOS in front and context carried in overlapping
windows (`NativeLM`), whose stride is reported. The end symbol of each document is summed apart
(`end_bits`) and not part of the figure. No byte is dropped or counted twice, there is no padding
and no special symbol: a model that says nothing about 257 outcomes scores log2(257) = 8.006.

What scores may also be the tokens of a subword model (`SubwordLM.tokens`): then the figure is the
code length of the one token string its tokenizer writes, per byte, and is reported as that.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from torch import Tensor

from bytelm.data.grouping import in_groups
from bytelm.errors import DataError

# documents are scored in groups of about this many bytes: bounds memory, changes no figure
_GROUP_BYTES = 1 << 20


class Scores(Protocol):
    """What can be measured: every `ByteLM`, and the token scores of a subword model."""

    @property
    def window(self) -> int | None:
        """Bytes of context at most; None: no limit."""

    @property
    def stride(self) -> int | None:
        """Bytes by which an overlapping window moves; None: no window."""

    def score_batch_with_end(self, texts: Sequence[bytes]) -> list[Tensor]:
        """(n + 1,) natural-log probabilities of each text of n bytes, the end last."""


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """The measurement of one model on some documents.

    bits, end_bits    sums over all bytes, and over all end symbols
    bytes, documents  what was measured
    seconds           wall time of the model alone
    window, stride    how long texts were read, in bytes; None = the model sets no limit
    standard_error    of bits per byte, where only a random sample was measured (`sampled.py`)
    sampled_from      bytes of all documents in that case; None: all were measured
    """

    bits: float
    end_bits: float
    bytes: int
    documents: int
    seconds: float
    window: int | None
    stride: int | None
    standard_error: float | None = None
    sampled_from: int | None = None

    @property
    def bits_per_byte(self) -> float:
        """`bits` divided by the number of raw bytes; ends are not in it."""
        return self.bits / self.bytes

    def to_dict(self) -> dict[str, float | int | None]:
        """What `--json` reports."""
        speed = self.bytes / self.seconds if self.seconds > 0 else None
        return {"bits_per_byte": self.bits_per_byte, "bytes_per_second": speed, **asdict(self)}


def evaluate_bits(lm: Scores, documents: Iterable[bytes]) -> BitsPerByte:
    """Score every document.

    `DataError` without a single byte, or where the model holds one of the bytes impossible (then
    bits per byte are infinite).

    >>> from bytelm.lm.ngram import NgramLM
    >>> result = evaluate_bits(NgramLM.train([b"abab" * 50], order=2), [b"abab", b"ab"])
    >>> result.bytes, result.documents, result.bits_per_byte < 1
    (6, 2, True)
    """
    nats, end_nats, size, count, seconds = [], [], 0, 0, 0.0
    for group in in_groups(documents, least=_GROUP_BYTES):
        began = time.perf_counter()
        for document, scores in zip(group, lm.score_batch_with_end(group), strict=True):
            total, end = float(scores[:-1].sum()), float(scores[-1])
            if total == -math.inf:
                place = int(scores.isinf().nonzero()[0])
                raise DataError(
                    f"document {count} holds a byte the model gives probability zero (byte "
                    f"{document[place]:#04x} at offset {place}): its bits per byte are infinite"
                )
            nats.append(total)
            end_nats.append(end)
            size += len(document)
            count += 1
        seconds += time.perf_counter() - began
    if not size:
        raise DataError(f"{count} documents with 0 bytes in all: there is nothing to measure")
    return BitsPerByte(
        bits=-math.fsum(nats) / math.log(2),
        end_bits=-math.fsum(end_nats) / math.log(2),
        bytes=size,
        documents=count,
        seconds=seconds,
        window=lm.window,
        stride=lm.stride,
    )
