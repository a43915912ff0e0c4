"""The rules of ensembles against their formulas, computed the long way."""

import itertools
import math

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.ngram import NgramLM
from tests.lm.contract import SHELLS, ngram, transformer

PROSE = NgramLM.train([b"by the sea shore she sells sea shells"] * 3, order=3)
DIGITS = NgramLM.train([b"0123456789" * 4], order=2)


def probabilities(lm, text: bytes) -> torch.Tensor:
    return lm.start(text).logprobs().double().exp()


def test_a_mixture_is_the_weighted_mean_of_probabilities():
    lm = Ensemble([PROSE, DIGITS], "mixture", weights=[3, 1])
    expected = 0.75 * probabilities(PROSE, b"se") + 0.25 * probabilities(DIGITS, b"se")
    torch.testing.assert_close(probabilities(lm, b"se"), expected)


def test_a_product_is_the_normalised_geometric_mean():
    lm = Ensemble([PROSE, DIGITS], "product", weights=[0.5, 2.0])
    raw = probabilities(PROSE, b"se") ** 0.5 * probabilities(DIGITS, b"se") ** 2
    torch.testing.assert_close(probabilities(lm, b"se"), raw / raw.sum())


def test_proxy_tuning_multiplies_the_base_by_the_ratio_of_experts():
    base = ngram()
    lm = Ensemble([base, PROSE, DIGITS], "proxy", weights=[1.5])
    ratio = probabilities(PROSE, b"s") / probabilities(DIGITS, b"s")
    raw = probabilities(base, b"s") * ratio**1.5
    torch.testing.assert_close(probabilities(lm, b"s"), raw / raw.sum())


def test_a_bayesian_ensemble_is_the_mixture_of_distributions_over_whole_texts():
    lm = Ensemble([PROSE, DIGITS], "bayes", weights=[1, 3])
    for text in (b"", b"s", b"sea 01", SHELLS):
        whole = [float(m.score_with_end(text).sum()) for m in (PROSE, DIGITS)]
        expected = math.log(0.25 * math.exp(whole[0]) + 0.75 * math.exp(whole[1]))
        assert float(lm.score_with_end(text).sum()) == pytest.approx(expected, abs=1e-9)


def test_bayesian_weights_are_the_posterior_and_contexts_count():
    lm = Ensemble([PROSE, DIGITS], "bayes")
    a, b = PROSE.start(b"1234").logprob, DIGITS.start(b"1234").logprob
    expected = 1 / (1 + math.exp(a - b))
    for state in (lm.start_batch([b"1234"]), lm.start_batch([b"34"], context=[[b"12"]])):
        assert float(lm.posterior(state)[0, 1]) == pytest.approx(expected, rel=1e-9)


def test_bayes_is_never_worse_than_the_best_member_by_more_than_the_prior():
    text = b"sea 0123456789012345 shells by the shore"
    best = max(float(m.score(text).sum()) for m in (PROSE, DIGITS))
    assert float(Ensemble([PROSE, DIGITS], "bayes").score(text).sum()) >= best - math.log(2)


def by_hand(text: bytes, prior: list[float], rate: float) -> tuple[float, list[float]]:
    """log P of a text and the next weights under fixed share: the sum over every way to switch."""
    steps = [m.score(text).tolist() for m in (PROSE, DIGITS)]
    alive = {(): 1.0}
    for n in range(len(text)):
        grown = {}
        for path, p in alive.items():
            for k in (0, 1):
                move = prior[k] if not path else rate * prior[k] + (1 - rate) * (path[-1] == k)
                grown[*path, k] = p * move * math.exp(steps[k][n])
        alive = grown
    total = sum(alive.values())
    last = [sum(p for path, p in alive.items() if path[-1] == k) / total for k in (0, 1)]
    return math.log(total), [(1 - rate) * last[k] + rate * prior[k] for k in (0, 1)]


def test_switching_sums_over_every_sequence_of_members():
    lm = Ensemble([PROSE, DIGITS], "switch", weights=[1, 3], rate=0.2)
    text = b"sea 0123"
    logprob, weights = by_hand(text, [0.25, 0.75], 0.2)
    assert float(lm.score(text).sum()) == pytest.approx(logprob, abs=1e-9)
    for state in (
        lm.start_batch([text]),
        lm.start_batch([b""]).feed([text[:1]]).feed([text[1:4]]).feed([text[4:]]),
    ):
        assert float(state.logprob[0]) == pytest.approx(logprob, abs=1e-9)
        assert lm.posterior(state)[0].tolist() == pytest.approx(weights, abs=1e-9)
    given = lm.start_batch([text[4:]], context=[[text[:4]]])
    assert lm.posterior(given)[0].tolist() == pytest.approx(weights, abs=1e-9)


def test_switching_beats_every_member_on_a_mixed_text_and_costs_little_on_a_pure_one():
    mixed = (b"she sells sea shells by the sea shore" + b"01234567890123456789") * 4
    switching = Ensemble([PROSE, DIGITS], "switch")
    members = [m.bits_per_byte(mixed) for m in (PROSE, DIGITS)]
    assert switching.bits_per_byte(mixed) < min(members) - 0.1
    assert Ensemble([PROSE, DIGITS], "bayes").bits_per_byte(mixed) > min(members) - 1e-9
    pure = b"0123456789" * 40
    loss = float(DIGITS.score(pure).sum() - switching.score(pure).sum()) / math.log(2)
    assert 0 < loss <= 1 + len(pure) * math.log2(512 / 511) + 1e-9


@pytest.mark.parametrize("how", ["mixture", "bayes", "switch", "product"])
def test_copies_of_one_model_are_that_model(how):
    lm = transformer()
    torch.testing.assert_close(
        Ensemble([lm, lm, lm], how).score_with_end(SHELLS), lm.score_with_end(SHELLS)
    )


def test_the_order_of_the_members_does_not_matter():
    for how in ("mixture", "bayes", "switch", "product"):
        scores = [
            Ensemble(members, how).score_with_end(b"sea 12")
            for members in itertools.permutations([PROSE, DIGITS, ngram()])
        ]
        for other in scores[1:]:
            torch.testing.assert_close(other, scores[0])


def test_symbols_are_those_every_member_knows():
    assert Ensemble([transformer(), PROSE]).specials == {}
    assert "fim_prefix" in Ensemble([transformer(), transformer()]).specials


def test_a_pinned_context_conditions_native_members_together():
    lm = Ensemble([transformer(), transformer(layers=1)], "bayes")
    context = ["fim_prefix", b"a", "fim_suffix", b"b", "fim_middle"]
    scores = [m.score_with_end(b"xyz", context=context) for m in lm.members]
    expected = (torch.stack(scores).sum(1)).logsumexp(0) - math.log(2)
    assert float(lm.score_with_end(b"xyz", context=context).sum()) == pytest.approx(float(expected))
    assert lm.start(b"xyz", context=context).logprob == pytest.approx(
        float(lm.score(b"xyz", context=context).sum())
    )


@pytest.mark.parametrize(
    ("members", "how", "weights", "message"),
    [
        (2, "bayse", None, "did you mean 'bayes'"),
        (0, "mixture", None, "at least one"),
        (2, "proxy", None, "base, expert and anti-expert"),
        (2, "mixture", [1], "expected 2"),
        (2, "mixture", [0, 0], "all be zero"),
        (2, "product", [1, -1], "finite numbers"),
        (2, "bayes", [1, math.nan], "finite numbers"),
    ],
)
def test_wrong_ensembles_are_explained(members, how, weights, message):
    with pytest.raises(BytelmError, match=message):
        Ensemble([PROSE, DIGITS][:members], how, weights=weights)


def test_a_rate_of_switching_belongs_to_switch():
    with pytest.raises(BytelmError, match="how='bayes'"):
        Ensemble([PROSE, DIGITS], "bayes", rate=0.1)
    with pytest.raises(BytelmError, match="rate=1.5"):
        Ensemble([PROSE, DIGITS], "switch", rate=1.5)


def test_members_that_exclude_each_other_cannot_be_multiplied():
    def certain(byte: int):
        lm = NgramLM.train([b"x"], order=0)
        logprobs = torch.full((257,), -math.inf, dtype=torch.float64)
        logprobs[byte] = 0.0
        lm._logprobs = lambda contexts, outcome: logprobs.numpy()[outcome]
        return lm

    with pytest.raises(BytelmError, match="contradict"):
        Ensemble([certain(97), certain(98)], "product").start().logprobs()
    half = Ensemble([certain(97), certain(98)], "mixture").start().logprobs().exp()
    assert float(half[97]) == float(half[98]) == 0.5
