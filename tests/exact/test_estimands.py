"""Every mode against enumeration of all token strings of a finite-horizon model.

The reference lists token strings and adds up decoded texts; it knows nothing of covers, token
prefixes or ranges. Where theory says equal the agreement is asked to 1e-10; where it says lower
bound, it must be one, and strictly so somewhere.
"""

import math

import numpy as np
import pytest

from bytelm.exact import TabularLM
from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.canonical import CanonicalLM
from tests.exact.tiny import (
    TOKENIZERS,
    canonical_prefixes,
    prefix_mass,
    random_lm,
    strings,
    texts,
)

HORIZON = 4
EVERYTHING = {"beam": 10**9, "epsilon": 0.0}
PREFIXES = list(strings(b"abc", 4))


def converter(lm, encoder, mode, *, beam=10**9, epsilon=0.0) -> ByteConverter:
    return ByteConverter(lm, encoder, mode=mode, beam=beam, epsilon=epsilon)


def canonicalised(lm: TabularLM, prefixes: set[tuple[int, ...]]) -> TabularLM:
    """The reference for `canonicalised`: mask what is no prefix of an encoding, renormalise. The
    text may end wherever an encoding may, and with these tokenizers that is everywhere."""
    (end,) = lm.eos_ids

    def distribution(history):
        p = np.array(lm.distribution(history))
        keep = [i for i in range(len(p)) if i == end or (*history, i) in prefixes]
        masked = np.zeros(len(p))
        masked[keep] = p[keep]
        return masked / masked.sum()

    return TabularLM(distribution, lm.vocab_bytes, eos_ids={end})


@pytest.fixture(scope="module", params=TOKENIZERS)
def case(request):
    vocab, encoder = TOKENIZERS[request.param]()
    lm = random_lm(vocab, horizon=HORIZON)
    return lm, encoder, canonical_prefixes(encoder, b"abc", 8)


def check_law(lm: ByteConverter, reference: dict[bytes, float]) -> None:
    """Prefix probabilities, next-byte distributions and ends all agree with the reference."""
    for prefix in PREFIXES:
        expected = prefix_mass(reference, prefix)
        state = lm.start(prefix)
        assert state.logprob == pytest.approx(math.log(expected), abs=1e-10)
        assert state.batch.log_lower[0].item() == pytest.approx(math.log(expected), abs=1e-10)
        p = state.logprobs().exp()
        for letter in b"abc":
            following = prefix_mass(reference, prefix + bytes([letter]))
            assert p[letter].item() == pytest.approx(following / expected, abs=1e-10)
        assert p[256].item() == pytest.approx(reference.get(prefix, 0.0) / expected, abs=1e-10)
        assert p.sum().item() == pytest.approx(1, abs=1e-12)


def test_all_encodings_is_the_law_of_sampled_and_decoded_tokens(case):
    lm, encoder, _ = case
    reference = texts(lm)
    assert sum(reference.values()) == pytest.approx(1, abs=1e-12)
    check_law(converter(lm, encoder, "all"), reference)
    check_law(converter(lm, None, "all"), reference)  # needs no tokenizer


def test_canonicalised_is_exact_in_every_sense(case):
    lm, encoder, prefixes = case
    reference = texts(canonicalised(lm, prefixes))
    check_law(converter(lm, encoder, "canonicalised"), reference)
    check_law(converter(CanonicalLM(lm, encoder), encoder, "all"), reference)


def canonical_mass(lm: TabularLM, prefixes: set, text: bytes, *, last: bool) -> float:
    """Sum over covers of `text` whose token prefix (and, with `last`, last token) is canonical."""
    (end,) = lm.eos_ids
    total, stack = 0.0, [((), b"", 1.0)]
    while stack:
        history, spelled, weight = stack.pop()
        p = np.asarray(lm.distribution(history))
        for token in np.flatnonzero(p):
            if token == end:
                continue
            longer = (*history, int(token))
            data = spelled + lm.vocab_bytes[token]
            if data.startswith(text):
                total += weight * p[token] * (not last or longer in prefixes)
            elif text.startswith(data) and longer in prefixes:
                stack.append((longer, data, weight * p[token]))
    return total


def test_canonical_sums_covers_on_canonical_prefixes_and_bounds_all_from_below(case):
    lm, encoder, prefixes = case
    reference = texts(lm)
    free = converter(lm, encoder, "canonical")
    strict = converter(CanonicalLM(lm, encoder, renormalise=False), encoder, "canonical")
    invalid_last = invalid_prefix = 0
    for prefix in PREFIXES[1:]:
        everything = prefix_mass(reference, prefix)
        lower = free.start(prefix).batch.log_lower.exp().item()
        stricter = strict.start(prefix).batch.log_lower.exp().item()
        assert lower == pytest.approx(canonical_mass(lm, prefixes, prefix, last=False), rel=1e-10)
        assert stricter == pytest.approx(canonical_mass(lm, prefixes, prefix, last=True), rel=1e-10)
        assert stricter <= lower * (1 + 1e-12) and lower <= everything * (1 + 1e-12)
        invalid_last += stricter < lower * 0.99
        invalid_prefix += lower < everything * 0.99
    assert min(invalid_last, invalid_prefix) > len(PREFIXES) // 8


@pytest.mark.parametrize("beam, epsilon", [(1, 0.0), (2, 0.1), (4, 1e-2), (8, 1e-3)])
def test_a_beam_is_a_lower_bound_and_says_how_much_it_may_miss(case, beam, epsilon):
    lm, encoder, _ = case
    reference = texts(lm)
    pruned = converter(lm, encoder, "all", beam=beam, epsilon=epsilon)
    missed = 0.0
    for prefix in PREFIXES:
        everything = prefix_mass(reference, prefix)
        batch = pruned.start(prefix).batch
        lower, dropped = batch.log_lower.exp().item(), batch.log_dropped.exp().item()
        assert lower <= everything * (1 + 1e-12)
        assert everything <= (lower + dropped) * (1 + 1e-12)
        assert batch.logprobs().exp().sum().item() == pytest.approx(1, abs=1e-12)
        missed = max(missed, everything - lower)
    assert missed > 1e-6  # the beam did prune, so the bound was tested


def test_a_wider_beam_never_finds_less(case):
    lm, encoder, _ = case
    for prefix in PREFIXES[-40:]:
        found = [
            converter(lm, encoder, "all", beam=beam).start(prefix).batch.log_lower.item()
            for beam in (1, 2, 4, 8, 64)
        ]
        assert found[-1] == max(found)
        assert found[0] <= found[-1]


def test_prefix_probabilities_never_grow_and_any_encoding_is_part_of_the_sum(case):
    lm, encoder, _ = case
    everything = converter(lm, encoder, "all")
    for prefix in PREFIXES[1:]:
        total = everything.start(prefix).logprob
        assert total <= everything.start(prefix[:-1]).logprob + 1e-12
        weight, history = 0.0, ()
        for token in encoder.encode(prefix):
            weight += math.log(lm.distribution(history)[token])
            history = (*history, token)
        assert weight <= total + 1e-12
