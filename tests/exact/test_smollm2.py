"""A real trained model out of a Python package: golden figures, costs, and the command line."""

import math
import time

import pytest
import torch

from benchmarks.exact_packages import package_file
from bytelm.exact import ByteConverter, load_token_model
from bytelm.exact.continuation import continue_tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXT = (
    b"The quick brown fox jumps over the lazy dog. In 1969, Neil Armstrong became the first man "
    b"to walk on the"
)
BREAK = b"# Title\n\nA paragraph of a few words.\n\nAnother one begins here.\n\n- a list\n"


@pytest.fixture(scope="module")
def loaded() -> ByteConverter:
    return load_token_model(package_file("smollm2"))


def mode_of(lm, mode, beam=8, epsilon=1e-3) -> ByteConverter:
    return ByteConverter(
        lm.lm, lm.encoder, mode=mode, beam=beam, epsilon=epsilon, specials=lm.specials
    )


@pytest.mark.parametrize("mode", ["all", "canonical"])
def test_golden_bits_and_next_word(loaded, mode):
    lm = mode_of(loaded, mode)
    assert lm.bits_per_byte(TEXT) == pytest.approx(0.7034, abs=5e-4)
    state = lm.start(TEXT)
    assert state.logprobs()[ord(" ")].exp().item() > 0.99
    assert state.feed(b" m").feed(b"oo").logprobs()[ord("n")].exp().item() > 0.98


def test_canonical_costs_a_row_per_byte_and_the_beam_fewer(loaded, monkeypatch):
    monkeypatch.setattr(loaded.lm, "rows_per_call", 1)  # none evaluated in advance
    rows = {}
    for mode in ("canonical", "all"):
        lm = mode_of(loaded, mode)
        state = lm.start()
        loaded.lm.rows_evaluated = 0
        for byte in TEXT:
            state = state.feed(bytes([byte]))
            state.logprobs()
        rows[mode] = loaded.lm.rows_evaluated / len(TEXT)
    assert rows["canonical"] <= 1.05
    assert rows["all"] <= 0.7


def test_rows_evaluated_in_advance_save_calls(loaded, monkeypatch):
    calls, inner = 0, loaded.lm.forward

    def counted(ids, groups):
        nonlocal calls
        calls += 1
        return inner(ids, groups)

    monkeypatch.setattr(loaded.lm, "forward", counted)
    found = {}
    for rows in (1, 8):
        monkeypatch.setattr(loaded.lm, "rows_per_call", rows)
        state, calls = mode_of(loaded, "all").start(), 0
        for byte in TEXT:
            state.logprobs()
            state = state.feed(bytes([byte]))
        found[rows] = calls, state.logprob
    assert found[8][0] < 0.75 * found[1][0]
    assert found[8][1] == pytest.approx(found[1][1], abs=1e-3)


def test_canonical_bounds_all_encodings_closely_even_at_paragraph_breaks(loaded):
    canonical = mode_of(loaded, "canonical").start(BREAK)
    beam = mode_of(loaded, "all", beam=32, epsilon=1e-5).start(BREAK)
    lower, everything = canonical.batch.log_lower.item(), beam.batch.log_lower.item()
    assert lower <= everything + beam.batch.log_dropped.exp().item() + 1e-3
    assert abs(lower - everything) / math.log(2) / len(BREAK) < 0.02


def test_scoring_a_known_text_costs_about_an_ordinary_forward(loaded):
    lm = mode_of(loaded, "canonical")
    text = (TEXT + b" moon. ") * 2
    lm.score(text)
    loaded.lm.rows_evaluated = 0
    began = time.process_time()
    lm.score(text)
    ours = time.process_time() - began
    rows = loaded.lm.rows_evaluated
    ids = torch.randint(20, 40_000, (1, rows))
    with torch.inference_mode():
        began = time.process_time()
        loaded.lm.model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    assert ours < 2 * (time.process_time() - began)  # 1.3 when the machine is quiet


def test_specials_in_text_are_text_and_tokens_continue_a_broken_word(loaded):
    assert torch.isfinite(loaded.score(b"a<|endoftext|>b")).all()
    text = b"".join(continue_tokens(loaded, TEXT[:-3] + b"the mo", max_tokens=3, seed=1))
    assert text.startswith(b"on")


def test_a_context_beyond_the_model_is_named(loaded):
    loaded.lm.limit = 64
    try:
        with pytest.raises(ValueError, match="context is 64"):
            loaded.score(b"a b c d " * 40)
    finally:
        loaded.lm.limit = 8192
