"""Decoding in place writes what immutable states write, byte for byte, whoever comes and goes."""

import random

import pytest
import torch

from bytelm.lm.decoding import Immutable, InPlace, decoding
from bytelm.lm.generation import Generation
from bytelm.lm.options import GenerateOptions
from tests.lm.contract import SHELLS, encdec, hnet, ngram, transformer

MODELS = {
    "transformer, window 1": lambda: transformer(window=1, stride=1),
    "transformer, window 8": lambda: transformer(window=8, stride=3),
    "transformer, window 200": lambda: transformer(window=200, stride=100),
    "mambabyte": lambda: hnet(["m2"]),
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "hnet, two stages": lambda: hnet(["m1", ["t1", ["T1m1"], "t1"], "M1"]),
    "hnet, spaces": lambda: hnet(["m1", ["T1"], "m1"], boundaries="space"),
    "encoder-decoder": encdec,
}


def run(lm, seed):
    """A random run with rows that enter, end and are cancelled; -> what each text came to."""
    draw, generation, keys = random.Random(seed), Generation(lm, rows=3), []

    def add():
        begin = draw.randint(0, 30)
        options = GenerateOptions(
            max_bytes=draw.randint(1, 40),
            temperature=draw.choice([0, 1.0]),
            seed=draw.randint(0, 9),
            stop=draw.choice([(), (b"e",)]),
        )
        if draw.random() < 0.15:
            options = GenerateOptions(max_bytes=6, beams=2)
        keys.append(generation.add(SHELLS[begin : begin + draw.randint(0, 25)], options))

    for _ in range(4):
        add()
    for n, _ in enumerate(generation):
        if len(keys) < 12 and n % 7 == 0:
            add()
        if n % 31 == 30:
            generation.cancel(keys[-1])
    return [generation.result(key) for key in keys]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_in_place_writes_what_immutable_states_write(name, seed, monkeypatch):
    lm = MODELS[name]()
    found = run(lm, seed)
    monkeypatch.setattr("bytelm.lm.generation.decoding", lambda state, forks: Immutable(state))
    for text, expected in zip(found, run(lm, seed), strict=True):
        assert (text.data, text.finish) == (expected.data, expected.finish)
        assert text.logprob == pytest.approx(expected.logprob, abs=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_taken_at_any_time_equals_the_immutable_one(name):
    lm = MODELS[name]()
    first = lm.start_batch([b"sea", b"", SHELLS[:14]])
    running, expected = decoding(first), first
    assert isinstance(running, InPlace)
    for t in range(24):
        pieces = [SHELLS[t : t + 1], b"s", b"" if t == 5 else SHELLS[9 + t : 10 + t]]
        pieces[0] += b"two" if t == 11 else b""
        running.feed(pieces)
        expected = expected.feed(pieces)
        torch.testing.assert_close(running.logprobs(), expected.logprobs(), rtol=0, atol=1e-9)
        if t % 4 == 3:
            state = running.state()
            torch.testing.assert_close(state.logprob, expected.logprob, rtol=0, atol=1e-8)
            for fork in ([b"a", b"bc", b"d"], [b"x", b"", b"y"]):
                ours, theirs = state.feed(fork).logprobs(), expected.feed(fork).logprobs()
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        first.feed([b"a"] * 3).logprobs(),
        lm.start_batch([b"seaa", b"a", SHELLS[:14] + b"a"]).logprobs(),
        rtol=0,
        atol=1e-9,
    )


def test_models_without_a_stepper_and_rows_that_fork_keep_their_states():
    assert isinstance(decoding(ngram().start_batch([b""])), Immutable)
    assert isinstance(decoding(transformer().start_batch([b""]), forks=True), Immutable)
