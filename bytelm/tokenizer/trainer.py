"""Trains BPE merges on raw bytes by driving the compiled core.

Merges are found in bounded steps, so that progress can be shown, a checkpoint written and Ctrl-C
obeyed between them. How documents become pieces is in pieces.py, how they are laid out in memory in
training_corpus.py, the steps themselves in merge_core.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bytelm.errors import BytelmError
from bytelm.threads import thread_count
from bytelm.tokenizer import merge_core, merge_rebuild, merge_table, merge_threads
from bytelm.tokenizer.merge_threads import LargeMerges
from bytelm.tokenizer.pieces import PieceRules
from bytelm.tokenizer.training_corpus import FIXED_BYTES, TrainingCorpus

_STEP = 20_000_000  # positions read between two looks at the clock; about a third of a second
MAX_IDS = 1 << 24
_SHARED_IDS = (
    1 << 20
)  # beyond which the tallies of every further thread, 48 bytes an id, are too big


@dataclass(frozen=True)
class Merges:
    """What training found. Ids are internal: 0-255 the bytes, 256 + i the i-th merge."""

    merges: np.ndarray  # (M, 2) uint32
    counts: np.ndarray  # (M,) int64: occurrences when merged
    corpus_bytes: int
    corpus_pieces: int
    corpus_sha256: str


def train_merges(
    documents: Iterable[bytes],
    *,
    ids: int,
    rules: PieceRules | None = None,
    piece_length: int = 8192,
    max_token_length: int | None = None,
    min_frequency: int = 2,
    max_memory: int | None = None,
    start: np.ndarray | None = None,
    start_sha256: str | None = None,
    least_bytes: int = 0,
    threads: int | None = None,
    on_progress: Callable[[np.ndarray, str], None] | None = None,
) -> Merges:
    """BPE merges of the documents, in order, until there are `ids` ids (bytes included).

    Identical to Hugging Face `tokenizers` on the same pieces, ties included. Fewer merges come back
    if no pair occurs `min_frequency` times any more. `on_progress(merges so far, corpus_sha256)` is
    called every third of a second or so; what it raises ends training. `start` are merges to
    resume from (those beyond `ids` are left out), `start_sha256` the digest the corpus must have
    then. `least_bytes` is a known lower bound of the corpus, so that too much data is refused
    before it is read. The merges are the same for any number of `threads` (None = all cores).

    Raises `BytelmError` for settings out of range, an empty corpus, or more memory than
    `max_memory` (bytes; 80 % of what is free if None).
    """
    rules = rules or PieceRules(length=piece_length)
    _check(ids, max_token_length, min_frequency)
    if max_memory is not None and max_memory < FIXED_BYTES:
        raise BytelmError(f"max_memory must be at least {FIXED_BYTES >> 20} MiB")
    corpus = TrainingCorpus(documents, rules, ids, max_memory, max_token_length, least_bytes)
    if start_sha256 not in (None, corpus.sha256):
        raise BytelmError(
            "the checkpoint is of other data, or of other rules for pieces and tokens: "
            f"its digest is {start_sha256}, this corpus has {corpus.sha256}"
        )
    if start is not None:
        start = start[: ids - 256]
    core = corpus.core(max_token_length or corpus.bytes, start)

    def tell() -> None:
        if on_progress:
            on_progress(core.merges[256 : core.reg[merge_table.IDS]], corpus.sha256)

    _merge_all(
        core,
        ids=ids,
        first=max(min_frequency, 1),
        threads=thread_count(threads) if ids <= _SHARED_IDS else 1,
        tell=tell,
    )
    found = slice(256, int(core.reg[merge_table.IDS]))
    return Merges(
        core.merges[found].copy(),
        core.counts[found].copy(),
        corpus.bytes,
        corpus.pieces,
        corpus.sha256,
    )


def _merge_all(
    core: merge_table.Core, *, ids: int, first: int, threads: int, tell: Callable[[], None]
) -> None:
    """Merges until there are `ids` ids or no pair occurs `first` times; `tell` between steps."""
    theta = max(first, int(core.reg[merge_table.SLOTS]) // ids)
    large = merge_threads.large(threads)
    with LargeMerges(core, threads) as several:
        while True:
            merge_rebuild.rebuild(core, theta, threads=threads)
            several.rebuilt()
            status = merge_core.PAUSED
            while status in (merge_core.PAUSED, merge_core.LARGE):
                status = merge_core.merge_some(core, ids, _STEP, large)
                if status == merge_core.LARGE:
                    several.merge()
                tell()
            complete = core.reg[merge_table.THETA_PAIR] == merge_table.ANY_PAIR
            lowest = complete and core.reg[merge_table.THETA] == first
            if status == merge_core.COMPLETE or lowest:
                return
            theta = max(first, _next_threshold(core, ids))


def _next_threshold(core: merge_table.Core, ids: int) -> int:
    """Counts fall about as 1 / id: half of what the last merge should have, so that this recount is
    the last, as far as the lists fit."""
    reached = int(core.reg[merge_table.THETA])
    return min(reached * int(core.reg[merge_table.IDS]) // (2 * ids), reached // 2)


def _check(ids: int, max_token_length: int | None, min_frequency: int) -> None:
    if not 256 <= ids <= MAX_IDS:
        raise BytelmError(f"a vocabulary has between 256 and {MAX_IDS} byte tokens, not {ids}")
    if max_token_length is not None and max_token_length < 1:
        raise BytelmError(f"max_token_length must be at least 1 byte, not {max_token_length}")
    if min_frequency < 0:
        raise BytelmError(f"min_frequency cannot be negative: {min_frequency}")
