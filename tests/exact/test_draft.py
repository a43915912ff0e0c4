"""Filling calls up with likely rows saves calls and changes no number."""

import numpy as np
import pytest
import torch

from bytelm.exact import TabularLM
from bytelm.exact.converter import ByteConverter
from bytelm.exact.draft import prefetch_likely
from bytelm.exact.token_lm import extend_trees
from bytelm.exact.tokenizers.encoders import GreedyEncoder
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

VOCAB = [b"a", b"b", b"c", b"ab", b"abcab", b"caabbc", b"cabcab", b"abcabca"]
LAW = np.array([1, 1, 60, 100, 400, 400, 196, 1, 10]) / 1169
TEXT = b"abcabcaabbccabcabababcab"


class Counting(TabularLM):
    """Says how many rows its calls may have, and counts them."""

    def __init__(self, rows_per_call):
        super().__init__(
            lambda history: np.roll(LAW, len(history) % 2), [*VOCAB, None], eos_ids={8}
        )
        self.rows_per_call, self.calls, self.rows = rows_per_call, 0, 0

    def extend_trees(self, requests):
        self.calls += 1
        self.rows += sum(len(rows) for _, rows in requests)
        plain = TabularLM(self.distribution, self.vocab_bytes, eos_ids=self.eos_ids)
        return extend_trees(plain, requests)


def steps(mode, rows_per_call):
    lm = Counting(rows_per_call)
    encoder = GreedyEncoder(PrefixTrie(VOCAB))
    converter = ByteConverter(lm, encoder, mode=mode, beam=4, epsilon=0.02)
    state, found = converter.start(), []
    for byte in TEXT:
        found.append(state.logprobs())
        state = state.feed(bytes([byte]))
    return torch.stack(found), lm


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_drafted_rows_save_calls_and_change_nothing(mode):
    plain, one = steps(mode, 1)
    drafted, many = steps(mode, 12)
    torch.testing.assert_close(drafted, plain, rtol=0, atol=1e-13)
    assert many.calls < one.calls
    assert many.rows <= 12 * many.calls


def test_what_was_drafted_wrongly_is_dropped_with_the_next_byte():
    encoder = GreedyEncoder(PrefixTrie(VOCAB))
    lm = ByteConverter(Counting(12), encoder, mode="canonical", beam=4, epsilon=0)
    state = lm.start(b"a")
    (beam,) = state.batch.beams
    held = prefetch_likely([beam])
    assert held and beam.ahead
    for letter in b"abc":
        (after,) = state.feed(bytes([letter])).batch.beams
        assert {each.data for each in after.ahead} == {
            each.data[1:] for each in beam.ahead if each.data[0] == letter
        }
