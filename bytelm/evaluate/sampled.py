"""Bits per byte in the time there is: everything, or a random sample with its standard error.

The documents are cut into the stretches that a sliding context scores together (`SlidingContext`);
a stretch with its context in front is a text of its own with the scores it has in the whole. They
are scored in random order until all are done, which gives exactly the figure of `evaluate_bits`, or
the time is over, which gives the ratio of sums over a sample without replacement. Its standard
error is that of a ratio estimate (Cochran, Sampling Techniques, 3rd ed., eq. 6.4), and is honest
only for what varies between stretches of these documents. Token scores, whose pieces are no bytes,
are sampled by documents.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bytelm.errors import DataError
from bytelm.evaluate.bits import BitsPerByte, Scores
from bytelm.lm.decoder import DecoderLM
from bytelm.lm.sliding_context import SlidingContext

_BATCH_BYTES = 1 << 14  # bytes read between two looks at the clock


@dataclass(frozen=True)
class _Stretch:
    """`text` of which the last `count` bytes count, and the end of its document if `ends`."""

    text: bytes
    count: int
    ends: bool


def evaluate_bits_within(
    lm: Scores,
    documents: Sequence[bytes],
    *,
    seconds: float,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BitsPerByte:
    """`evaluate_bits` of as many stretches as `seconds` allow, at least one batch of them.

    seed         of the order in which stretches are taken
    on_progress  called with bytes scored and bytes in all

    `DataError` without a single byte, or where the model holds one of the bytes impossible.
    """
    stretches = _stretches(lm, documents)
    size = sum(map(len, documents))
    if not size:
        raise DataError(f"{len(documents)} documents with 0 bytes in all: nothing to measure")
    order = np.random.default_rng(seed).permutation(len(stretches))
    began, at = clock(), 0
    rows: list[tuple[float, int]] = []
    end_nats = 0.0
    slowest = 0.0
    while at < len(order) and (at == 0 or clock() - began + slowest < seconds):
        before = clock()
        batch: list[_Stretch] = []
        read = 0
        while at < len(order) and (not batch or read < _BATCH_BYTES):
            batch.append(stretches[order[at]])
            read += len(batch[-1].text)
            at += 1
        with torch.inference_mode():
            scored = lm.score_batch_with_end([stretch.text for stretch in batch])
        for stretch, scores in zip(batch, scored, strict=True):
            own = scores[len(scores) - 1 - stretch.count : -1]
            total = float(own.sum())
            if total == -math.inf:
                raise DataError("the model gives a byte of the data probability zero")
            rows.append((total, stretch.count))
            end_nats += float(scores[-1]) if stretch.ends else 0.0
        slowest = max(slowest, clock() - before)
        on_progress(sum(count for _, count in rows), size)
    return BitsPerByte(
        bits=-math.fsum(nats for nats, _ in rows) / math.log(2),
        end_bits=-end_nats / math.log(2),
        bytes=sum(count for _, count in rows),
        documents=len(documents),
        seconds=clock() - began,
        window=lm.window,
        stride=lm.stride,
        standard_error=_standard_error(rows, len(stretches)),
        sampled_from=size if at < len(order) else None,
    )


def _standard_error(rows: Sequence[tuple[float, int]], of: int) -> float | None:
    """Of bits per byte, from (nats, bytes) of a sample of the stretches; None of all of them, and
    of a single one, which tells nothing of the others."""
    n = len(rows)
    if n == of or n < 2:
        return None
    nats, sizes = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    residuals = nats - nats.sum() / sizes.sum() * sizes
    variance = (1 - n / of) / n * (residuals**2).sum() / (n - 1)
    return float(math.sqrt(variance) / sizes.mean() / math.log(2))


def _stretches(lm: Scores, documents: Sequence[bytes]) -> list[_Stretch]:
    """Every byte of the documents in exactly one stretch."""
    if not isinstance(lm, DecoderLM) or lm.window is None:
        return [_Stretch(document, len(document), True) for document in documents]
    found = []
    for document in documents:
        n = len(document)
        # position n is the end; it belongs to the stretch of its context
        for start, low, high in SlidingContext.of(lm.window, lm.stride).segments(0, n):
            last = min(high + 1, n)
            found.append(_Stretch(document[start:last], last - low, high == n))
    return found
