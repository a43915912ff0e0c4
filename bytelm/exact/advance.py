"""`advance`: beams of many texts read known bytes, with as few calls of the model as possible.

A call costs about the same for one row as for a hundred, so what reading the bytes will ask for is
prefetched: the canonical token prefixes, which the tokenizer alone tells, and then, for a beam over
all encodings, what it evaluates besides, which dry runs find a few at a time. Token prefixes hold
neither their children nor their distributions, so what was prefetched is kept alive by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.logs import logaddexp, logsumexp
from bytelm.exact.possible import predict
from bytelm.exact.reactivation import dry_run, fall_back, reactivate, reseed_canonical
from bytelm.exact.text_beam import TextBeam, strongest
from bytelm.exact.token_tree import Distribution, TokenPrefix, evaluate
from bytelm.lm.scored import scored

_ROWS_PER_CALL = 256  # rows of a known text evaluated together: bounds the logits held at once
_DRY_RUNS = 6  # rounds of looking for what else a beam will evaluate in a known text
_PREFETCH_FROM = 8  # shortest known text whose canonical prefixes are prefetched in mode "all"


def advance(
    beams: Sequence[TextBeam],
    data: Sequence[bytes],
    *,
    traces: Sequence[list[float]] = (),
    visited: Sequence[list[TextBeam]] = (),
) -> list[TextBeam]:
    """Feed data[b] to beam b, all in step; traces[b] collects its log-prob after each byte,
    visited[b] the beam itself, which then has its prediction."""
    beams = list(beams)
    longest = max(map(len, data), default=0)
    size = max(_ROWS_PER_CALL // max(len(beams), 1), 1)
    for start in range(0, longest, size):
        chunks = [piece[start : start + size] for piece in data]
        least = 2 if visited else _PREFETCH_FROM
        paths = [_frontiers(beam, chunk, least) for beam, chunk in zip(beams, chunks, strict=True)]
        keep_alive = _prefetch(beams, chunks, paths, to_end=bool(visited))
        for i in range(max(map(len, chunks))):
            active = [b for b, chunk in enumerate(chunks) if i < len(chunk)]
            predict([beams[b] for b in active])
            for b in active:
                beams[b] = push(beams[b], chunks[b][i], paths[b][i + 1] if paths[b] else None)
                if traces:
                    traces[b].append(beams[b].logprob)
                if visited:
                    visited[b].append(beams[b])
            scored(len(active) if traces else 0)
        if visited:
            predict(beams)
        del keep_alive
    return beams


def push(beam: TextBeam, byte: int, frontier: CanonicalFrontier | None = None) -> TextBeam:
    """The beam after `byte`. `frontier`: the next canonical frontier, if it is known already."""
    prediction = beam.expanded()
    hypotheses = beam.after(byte)
    lower = logsumexp([hypothesis.logmass for hypothesis in hypotheses])
    logprob = -math.inf
    if prediction.norm > -math.inf:
        logprob = beam.logprob + prediction.predict(byte, lower) - prediction.norm
    log_dropped = logaddexp(beam.log_dropped, prediction.log_pruned)
    if frontier is None and beam.frontier is not None:
        frontier = beam.frontier.push(byte)
    deferred, canonical, pruning = beam.deferred, beam.canonical, beam.pruning
    if pruning is not None:
        follows = prediction.predict_deferred(byte, lower)
        deferred = deferred.push(byte, prediction.pruned, follows)
        if frontier is not None and beam.frontier is not None:
            anchor = frontier.anchor()
            canonical = canonical if anchor is beam.frontier.anchor() else anchor
    if pruning is not None and deferred.weight > -math.inf:
        if hypotheses:
            found, deferred = reactivate(deferred, pruning, hypotheses, lower)
        else:
            found, deferred = fall_back(deferred, pruning)
        hypotheses += found
        if canonical is not None and frontier is not None and canonical.end < frontier.end:
            found, deferred = reseed_canonical(deferred, pruning, hypotheses, canonical, frontier)
            hypotheses += found
            canonical = None  # once for each anchor
    if not hypotheses:
        logprob = -math.inf
    kept, lost = strongest(hypotheses, pruning)
    return TextBeam(
        kept,
        pruning=pruning,
        frontier=frontier,
        logprob=logprob,
        log_lower=logsumexp([hypothesis.logmass for hypothesis in kept]),
        log_dropped=logaddexp(log_dropped, lost),
        deferred=deferred,
        canonical=canonical,
        zeros=beam.zeros,
        ahead=tuple(e for e in (each.after(byte) for each in beam.ahead) if e),
    )


def _frontiers(beam: TextBeam, chunk: bytes, least: int) -> list[CanonicalFrontier]:
    """The canonical frontiers before, between and after the bytes of a chunk; empty where they are
    not worth it (mode "all" fed fewer than `least` bytes) or there is no tokenizer."""
    few = beam.pruning is not None and len(chunk) < least
    if beam.frontier is None or few or not chunk:
        return []
    path = [beam.frontier]
    for byte in chunk:
        path.append(path[-1].push(byte))
    return path


def _prefetch(
    beams: Sequence[TextBeam],
    chunks: Sequence[bytes],
    paths: Sequence[list[CanonicalFrontier]],
    *,
    to_end: bool,
) -> list[tuple[TokenPrefix, Distribution]]:
    """Evaluate what reading the chunks will ask for, in few calls; to_end: and what predicting
    after them will. It lives as long as the list that is returned."""
    asked = paths if to_end else [path[:-1] for path in paths]
    wanted = [prefix for path in asked for frontier in path for prefix, _ in frontier.here()]
    keep_alive = list(zip(wanted, evaluate(wanted), strict=True))
    pruned = [b for b, path in enumerate(paths) if path and beams[b].pruning is not None]
    for _ in range(_DRY_RUNS if pruned else 0):
        wanted = [prefix for b in pruned for prefix in dry_run(beams[b], chunks[b])]
        if not wanted:
            break
        keep_alive += zip(wanted, evaluate(wanted), strict=True)
    return keep_alive
