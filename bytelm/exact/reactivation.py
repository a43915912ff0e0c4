"""How pruned token prefixes come back into a beam.

When a surprising byte takes the mass of the live hypotheses down, so that by its estimate a
deferred prefix has an `epsilon` of the mass after all, it is evaluated and catches up
(`reactivate`); where nothing else can follow the byte, all of them do (`fall_back`). With a
tokenizer the canonical hypothesis is never lost for long (`reseed_canonical`). Each function
returns hypotheses of the text as it now stands, and what stays deferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bytelm.exact.deferred import At, Deferred
from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.hypothesis import Hypothesis, Pruning
from bytelm.exact.logs import log, logsumexp
from bytelm.exact.text_beam import Candidate, TextBeam, strongest
from bytelm.exact.token_tree import Distribution, TokenPrefix, evaluate

_FALLBACK_BEAM = 64

Found = tuple[list[Hypothesis], Deferred]


def reactivate(
    deferred: Deferred, pruning: Pruning, live: Sequence[Hypothesis], lower: float
) -> Found:
    """Hypotheses of what is deferred and weighs enough to be evaluated beside the `live` ones of
    log mass `lower`, as far as the beam has room."""
    least = lower + log(pruning.epsilon)
    room = pruning.beam - sum(hypothesis.logmass > least for hypothesis in live)
    taken = deferred.heaviest(least, max(room, 0))
    if not taken:
        return [], deferred
    found = _catch_up(deferred, taken, replace(pruning, epsilon=0.0), least)
    return found, deferred.without(taken)


def fall_back(deferred: Deferred, pruning: Pruning) -> Found:
    """Hypotheses for a beam that has none left, from the pruned prefixes nearest to its end. They
    follow the bytes since with nothing dropped for being improbable. Empty if no token string
    spells the text."""
    wide = Pruning(max(pruning.beam, _FALLBACK_BEAM), 0.0)
    for i in reversed(range(len(deferred.positions))):
        taken = [(i, prefix) for prefix in deferred.positions[i].prefixes[:_FALLBACK_BEAM]]
        found = _catch_up(deferred, taken, wide)
        deferred = deferred.without(taken)
        if found:
            return found, deferred
    return [], deferred


def catch_up_all(
    deferred: Deferred, pruned: Sequence[TokenPrefix], pruning: Pruning
) -> list[TextBeam]:
    """Beams at the end of the text of all that is deferred, and of what is `pruned` there, as
    `fall_back` would find them: not expanded."""
    wide = Pruning(max(pruning.beam, _FALLBACK_BEAM), 0.0)
    found = []
    if pruned:
        here = tuple((prefix, True) for prefix in pruned[:_FALLBACK_BEAM])
        found.append(TextBeam(initial=here, pruning=wide))
    for i, position in enumerate(deferred.positions):
        taken = [(i, prefix) for prefix in position.prefixes[:_FALLBACK_BEAM]]
        hypotheses = _catch_up(deferred, taken, wide)
        if hypotheses:
            found.append(TextBeam(tuple(hypotheses), pruning=wide))
    return found


def reseed_canonical(
    deferred: Deferred,
    pruning: Pruning,
    live: Sequence[Hypothesis],
    canonical: TokenPrefix,
    frontier: CanonicalFrontier,
) -> Found:
    """The hypotheses that stand on the `canonical` token prefix, the anchor of `frontier`, if no
    `live` one does. A text that begins oddly has an unlikely canonical beginning; but models know
    canonical text best, and it may be what predicts the rest."""
    position = len(deferred.positions) - (frontier.end - canonical.end)
    if position < 0 or any(h.prefix.starts_with(canonical) for h in live):
        return [], deferred
    least = logsumexp([hypothesis.logmass for hypothesis in live]) + log(pruning.epsilon)
    deferred = deferred.without_relatives(canonical)
    at = [(position, canonical)]
    return _catch_up(deferred, at, replace(pruning, epsilon=0.0), least), deferred


def dry_run(beam: TextBeam, data: bytes, least: Sequence[float] | None = None) -> list[TokenPrefix]:
    """Token prefixes that a beam over the known bytes `data` would evaluate but which are not
    evaluated yet, as far as can be told without them. Nothing is evaluated and `beam` is left as it
    is. least[i]: log probability below which none is evaluated after byte i."""
    missing: list[TokenPrefix] = []
    copy = TextBeam(
        beam.hypotheses, initial=beam.initial, pruning=beam.pruning, log_lower=beam.log_lower
    )
    copy.prediction = beam.prediction
    for i, byte in enumerate(data):
        if copy.prediction is None:
            kept, pruned = copy.candidates()
            known = [(prefix, may_end, prefix.current()) for prefix, may_end in kept]
            missing += [prefix for prefix, _, distribution in known if distribution is None]
            ready = [(prefix, may_end, d) for prefix, may_end, d in known if d is not None]
            copy.expand([(p, may_end) for p, may_end, _ in ready], [d for *_, d in ready], pruned)
        copy = _replay(copy, byte, least[i] if least else -math.inf)
        if not copy.hypotheses:
            break
    return missing


def _replay(beam: TextBeam, byte: int, least: float) -> TextBeam:
    """The beam after a byte of the past: hypotheses only, nothing deferred."""
    hypotheses, _ = strongest(beam.after(byte), beam.pruning)
    lower = logsumexp([hypothesis.logmass for hypothesis in hypotheses])
    return TextBeam(hypotheses, pruning=beam.pruning, log_lower=lower, least_logprob=least)


def _catch_up(
    deferred: Deferred, taken: Sequence[At], pruning: Pruning, least: float = -math.inf
) -> list[Hypothesis]:
    """Evaluate deferred prefixes where they were pruned and follow the bytes since; what follows
    from them is evaluated if it, too, weighs `least` by the estimate of `deferred`. Calls are few:
    each evaluates, at all positions, what the dry run over the bytes finds missing."""
    together: dict[int, list[Candidate]] = {}
    for i, prefix in taken:
        together.setdefault(i, []).append((prefix, True))
    bounds = [*deferred.least_logprobs(least), -math.inf]
    replays = [
        (TextBeam(initial=tuple(initial), pruning=pruning), deferred.data[i:], bounds[i + 1 :])
        for i, initial in together.items()
    ]
    keep_alive: list[tuple[TokenPrefix, Distribution]] = []
    while wanted := [prefix for replay in replays for prefix in dry_run(*replay)]:
        keep_alive += zip(wanted, evaluate(wanted), strict=True)
    found: list[Hypothesis] = []
    for beam, data, ahead in replays:
        for byte, bound in zip(data, ahead, strict=True):
            beam = _replay(beam, byte, bound)
        found += beam.hypotheses
    return found
