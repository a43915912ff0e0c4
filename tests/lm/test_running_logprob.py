"""log P of what was fed: the right number, and a cost that does not grow with the text before."""

import pytest
import torch

from bytelm.lm.ensemble import Ensemble
from bytelm.lm.native import NativeLM
from bytelm.lm.protocol import ByteLM, ByteState
from bytelm.lm.running_logprob import POSITIONS_PER_STEP
from tests.lm.contract import hnet, ngram, t5, transformer

TEXT = b"she sells sea shells by the sea shore; " * 12


class Counted:
    """Counts the positions that a native model reads."""

    def __init__(self, lm: NativeLM, monkeypatch: pytest.MonkeyPatch):
        self.positions = 0
        for name in ("forward", "prefill", "step"):
            monkeypatch.setattr(lm.model, name, self._counting(getattr(lm.model, name), name))

    def _counting(self, call, name):
        def counted(batch, *rest):
            ids = batch if isinstance(batch, torch.Tensor) else batch.ids
            self.positions += ids.shape[1] if ids.ndim == 2 and name != "step" else 1
            return call(batch, *rest)

        return counted


def fed_in_turns(lm: ByteLM, text: bytes, size: int) -> ByteState:
    """Feed pieces of `size` bytes and ask for log P after each."""
    state = lm.start()
    for i in range(0, len(text), size):
        state = state.feed(text[i : i + size])
        assert state.logprob < 0
    return state


@pytest.mark.parametrize("size", [2, 5, 17])
@pytest.mark.parametrize("how", [None, "mixture", "switch"])
def test_feeding_and_asking_in_turns_costs_a_bounded_multiple_of_the_text(monkeypatch, size, how):
    native = transformer(layers=1, window=len(TEXT), stride=8)
    lm = native if how is None else Ensemble([native, ngram()], how)
    count = Counted(native, monkeypatch)
    state = fed_in_turns(lm, TEXT, size)
    # rescoring the whole each time would read size of these multiples, len(TEXT) / 2 / size
    assert count.positions < (POSITIONS_PER_STEP + 4) * len(TEXT)
    torch.testing.assert_close(
        torch.tensor(state.logprob, dtype=torch.float64), lm.score(TEXT).sum(), atol=1e-8, rtol=0
    )


MAKE = {
    "transformer": transformer,
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "seq2seq": t5,
    "mixture": lambda: Ensemble([transformer(), ngram()]),
    "product": lambda: Ensemble([transformer(), ngram()], "product"),
    "switch": lambda: Ensemble([transformer(), ngram()], "switch"),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_forks_that_ask_in_any_order_agree_with_scoring(make):
    lm = make()
    rng = torch.Generator().manual_seed(1)
    states, texts = [lm.start(TEXT[:50])], [TEXT[:50]]
    for i in range(12):
        parent = int(torch.randint(len(states), (), generator=rng))
        piece = TEXT[i : i + 1 + int(torch.randint(4, (), generator=rng))]
        states.append(states[parent].feed(piece))
        texts.append(texts[parent] + piece)
        if i % 3 == 0:
            assert states[parent].logprob < 0
    for i in torch.randperm(len(states), generator=rng).tolist():
        expected = lm.score(texts[i]).sum()
        found = torch.tensor(states[i].logprob, dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_only_the_first_of_several_unasked_pieces_keeps_a_state_alive():
    lm = transformer()
    state = lm.start(b"she")
    assert state.logprob < 0
    for i in range(0, 60, 3):
        state = state.feed(TEXT[i : i + 3])
    (row,) = state.batch._rows
    assert sum(block.before is not None for block in row.running.unscored) == 1
    assert state.logprob < 0
    assert all(block.before is None for block in row.running.unscored)
