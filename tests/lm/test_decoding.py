"""Decoding in place writes what immutable states write, byte for byte, whoever comes and goes."""

import random
import sys

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.lm.decoding import KERNELS, Immutable, InPlace, decoding
from bytelm.lm.generate import generate
from bytelm.lm.generation import Generation
from bytelm.lm.options import GenerateOptions
from tests.lm.contract import SHELLS, hnet, ngram, t5, transformer

MODELS = {
    "transformer, window 1": lambda: transformer(window=1, stride=1),
    "transformer, window 8": lambda: transformer(window=8, stride=3),
    "transformer, window 200": lambda: transformer(window=200, stride=100),
    "mambabyte": lambda: hnet(["m2"]),
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "hnet, two stages": lambda: hnet(["m1", ["t1", ["T1m1"], "t1"], "M1"]),
    "hnet, spaces": lambda: hnet(["m1", ["T1"], "m1"], boundaries="space"),
    "encoder-decoder": t5,
}


def run(lm, seed, backend="eager"):
    """A random run with rows that enter, end and are cancelled; -> what each text came to."""
    draw, generation, keys = random.Random(seed), Generation(lm, rows=3, backend=backend), []

    def add():
        begin = draw.randint(0, 30)
        options = GenerateOptions(
            max_bytes=draw.randint(1, 24),
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
        if len(keys) < 9 and n % 7 == 0:
            add()
        if n % 31 == 30:
            generation.cancel(keys[-1])
    return [generation.result(key) for key in keys]


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("name", MODELS)
def test_in_place_writes_what_immutable_states_write(name, seed, monkeypatch):
    lm = MODELS[name]()
    found = {"eager": run(lm, seed)}
    if lm.model.compiles:
        found["compiled"] = run(lm, seed, backend="compiled")
    monkeypatch.setattr("bytelm.lm.generation.decoding", lambda state, **_: Immutable(state))
    wanted = run(lm, seed)
    for texts in found.values():
        for text, expected in zip(texts, wanted, strict=True):
            assert (text.data, text.finish) == (expected.data, expected.finish)
            assert text.logprob == pytest.approx(expected.logprob, abs=1e-8)


@pytest.mark.parametrize("backend", ["eager", "compiled"])
@pytest.mark.parametrize("name", MODELS)
def test_a_state_taken_at_any_time_equals_the_immutable_one(name, backend):
    lm = MODELS[name]()
    if backend == "compiled" and not lm.model.compiles:
        with pytest.raises(BytelmError, match="needs a native model of Mamba-2"):
            Generation(lm, backend=backend)
        return
    first = lm.start_batch([b"sea", b"", SHELLS[:14]])
    running, expected = decoding(first, backend=backend), first
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


def test_auto_compiles_where_it_is_known_to_pay(monkeypatch):
    state = transformer().start_batch([b""])
    monkeypatch.setitem(sys.modules, KERNELS, None)
    monkeypatch.delitem(sys.modules, KERNELS)
    assert decoding(state, wanted=511).backend == "eager"
    long = decoding(state, wanted=512)
    assert (long.backend, long.why) == ("compiled", "at least 512 bytes are wanted")
    monkeypatch.setitem(sys.modules, KERNELS, None)
    assert decoding(state, wanted=1).why == "kernels are loaded"
    monkeypatch.setattr("bytelm.lm.decoding._ONE_THREAD", 10)
    for threads, backend in ((1, "compiled"), (2, "eager")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert decoding(state, wanted=10**6).backend == backend
    other = decoding(t5().start_batch([b""]), wanted=10**6)
    assert (other.backend, other.why) == ("eager", "this model has no compiled form here")


def test_a_backend_that_there_is_not_is_refused():
    with pytest.raises(BytelmError, match="eagre"):
        Generation(transformer(), backend="eagre")
    for lm in (ngram(), t5()):
        with pytest.raises(BytelmError, match="backend='compiled' needs"):
            generate(lm, backend="compiled")
    with pytest.raises(BytelmError, match="a beam search forks its texts"):
        generate(transformer(), beams=2, backend="compiled")


def test_statistics_say_what_a_generation_did():
    generation = Generation(hnet(["m1", ["T1"], "m1"], boundaries="space"), rows=2, backend="eager")
    assert generation.stats.first is None and generation.stats.lines()[0].startswith(
        "backend: none"
    )
    keys = [generation.add(b"sea sh", GenerateOptions(max_bytes=n, utf8=True)) for n in (9, 20, 4)]
    list(generation)
    stats = generation.stats
    assert (stats.backend, stats.why, stats.prompt_bytes, stats.begun) == (
        "eager",
        "as asked",
        12,
        3,
    )
    texts = [generation.result(key) for key in keys]
    assert stats.written == sum(len(text.data) + (text.finish == "end") for text in texts)
    assert 0 < stats.first <= stats.prefill + stats.decode and 0 < stats.chunks <= 33
    assert len(stats.lines()) == 5
    beams = Generation(transformer(), rows=2)
    beams.add(b"s", GenerateOptions(max_bytes=5, beams=2))
    list(beams)
    assert beams.stats.lines()[0] == "backend: immutable (beams fork with every byte)"


def test_models_without_a_stepper_and_rows_that_fork_keep_their_states():
    assert isinstance(decoding(ngram().start_batch([b""])), Immutable)
    assert isinstance(decoding(transformer().start_batch([b""]), forks=True), Immutable)
