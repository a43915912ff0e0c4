"""The canonicalised model keeps a bounded window of text, also where nothing else ends one."""

import numpy as np
import pytest
import torch

from bytelm.exact import TabularLM
from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.canonical import CanonicalLM
from tests.exact.tiny import TOKENIZERS

TEXTS = {
    "zeros": lambda n: b"a" * n,
    "repeats": lambda n: (b"abcab" * n)[:n],
    # without c: "abca" and "ccc" have two best unigram encodings, equal but for rounding
    "random": lambda n: bytes(np.random.default_rng(3).choice([97, 98], n).tolist()),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_window_is_bounded_and_the_probabilities_are_those_of_the_whole(
    make, text, monkeypatch
):
    vocab, encoder = make()
    rng = np.random.default_rng(1)
    law = rng.dirichlet(np.ones(len(vocab) + 1))

    def converter() -> ByteConverter:
        lm = TabularLM(lambda h: law, [*vocab, None], eos_ids={len(vocab)})
        return ByteConverter(lm, encoder, mode="canonicalised", beam=1, epsilon=0)

    windows: list[int] = []
    find = CanonicalLM._find_valid

    def counted(self, window, tokens):
        windows.append(len(window))
        return find(self, window, tokens)

    monkeypatch.setattr(CanonicalLM, "_find_valid", counted)
    found = converter().score_with_end(text(60))
    converter().score_with_end(text(240))
    longest = max(map(len, vocab))
    assert max(windows) <= 2 * longest + 12
    monkeypatch.setattr(CanonicalLM, "_settled", lambda self, window: 0)
    torch.testing.assert_close(found, converter().score_with_end(text(60)), atol=1e-10, rtol=0)
