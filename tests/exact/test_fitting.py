"""Texts longer than a converted model's context are scored in the widest windows that fit."""

import json

import pytest
from typer.testing import CliRunner

import bytelm
from bytelm.cli.app import app
from bytelm.exact.fitting import fit_to_context
from bytelm.lm.sliding_context import SlidingContext

pytest.importorskip("transformers")
from tests.exact.test_huggingface import TEXT, llama, tokenizer
from tests.exact.test_starts import bigram_llama
from tests.exact.test_starts import tokenizer as byte_tokenizer

DATA = (TEXT * 2).encode()


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_a_text_that_fits_is_read_whole_and_a_longer_one_in_windows(mode):
    lm = bytelm.convert(llama(), tokenizer(), mode=mode, beam=2, epsilon=0.1)  # 128 tokens
    assert fit_to_context(lm, [DATA[:126]]) is lm  # a token per byte fits
    assert fit_to_context(lm, [DATA[:250]]) is lm  # its tokens fit
    fitted = fit_to_context(lm, [DATA[:100], DATA])
    assert (fitted.window, fitted.stride) == (252, 126)  # two bytes per token of 126
    assert fitted.score(DATA[:300]).isfinite().all()


def test_the_window_follows_the_densest_text():
    lm = bytelm.convert(llama(), tokenizer(), mode="canonical")
    dense = bytes(range(256)) * 2
    assert fit_to_context(lm, [DATA, dense]).window == 126
    assert fit_to_context(lm, [dense]).score(dense).isfinite().all()


def test_without_a_tokenizer_and_with_one_every_window_fits_the_worst_text():
    """One token per byte: the context is filled to the last token and never beyond."""
    words = byte_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    lm = bytelm.convert(bigram_llama(258, {}), words)
    fitted = fit_to_context(lm, [(DATA * 2)[:600]])
    assert (fitted.window, fitted.stride) == (254, 127)
    sliding = SlidingContext(fitted.window, fitted.stride)
    assert max(hi - s for s, _, hi in sliding.segments(0, 600)) == 254
    assert fitted.score((DATA * 2)[:600]).isfinite().all()
    assert fitted.start((DATA * 2)[:600]).logprob == pytest.approx(
        float(fitted.score((DATA * 2)[:600]).sum())
    )


def test_eval_and_score_take_long_texts_and_say_how_they_read_them(tmp_path):
    """Reproduction d6."""
    words = byte_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    bigram_llama(258, {}).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    text = tmp_path / "text"
    text.write_bytes((DATA * 2)[:600])
    for command in ("eval", "score"):
        arguments = [command, str(tmp_path / "model"), str(text)]
        found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
        assert (found["window"], found["stride"]) == (254, 127)
        assert "context at most 254 bytes, stride 127" in " ".join(
            CliRunner().invoke(app, arguments).stdout.split()
        )
        given = CliRunner().invoke(app, [*arguments, "--json", "--window", "100"])
        assert json.loads(given.stdout)["window"] == 100
