"""`Generation`: rows come and go, and each writes what it would write alone."""

import inspect
import random
from dataclasses import fields
from functools import cache

import numpy as np
import pytest

import bytelm
from bytelm.errors import BytelmError
from bytelm.lm.generate import generate, generate_batch
from bytelm.lm.generation import Generation
from bytelm.lm.ngram import NgramLM
from bytelm.lm.options import GenerateKeywords, GenerateOptions
from bytelm.lm.protocol import BatchState, ByteLM
from bytelm.lm.regex import regex_dfa
from bytelm.lm.utf8 import utf8_dfa
from tests.exact.test_converter import MODES
from tests.lm import subwords
from tests.lm.contract import ensemble, hnet, ngram, transformer


class Counting(ByteLM):
    """Notes how many rows each distribution is asked for, and how many prompts each prefill has."""

    def __init__(self, inner: ByteLM):
        self.inner = inner
        self.asked: list[int] = []
        self.started: list[int] = []

    def _start(self, prompts, contexts):
        self.started.append(len(prompts))
        return CountingState(self, self.inner.start_batch(prompts, context=contexts))


class CountingState(BatchState):
    def __init__(self, lm, inner):
        self._lm, self.inner = lm, inner

    @property
    def rows(self):
        return self.inner.rows

    @property
    def logprob(self):
        return self.inner.logprob

    def logprobs(self):
        self._lm.asked.append(self.rows)
        return self.inner.logprobs()

    def feed(self, data):
        return CountingState(self._lm, self.inner.feed(data))

    def select(self, rows):
        return CountingState(self._lm, self.inner.select(rows))

    def join(self, others):
        parts = self._with(others)
        return CountingState(self._lm, self.inner.join([part.inner for part in parts[1:]]))


MODELS = {
    "ngram": ngram,
    "transformer": transformer,
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "bayes": lambda: ensemble("bayes"),
    "switch": lambda: ensemble("switch", rate=0.1),
    "converted": lambda: MODES["canonical"],
    "subword, sliding": lambda: subwords.transformer(window=9, stride=4),
}
made = cache(lambda name: MODELS[name]())
PROMPTS = [b"", b"the ", b"she sells sea shells", b"th", b"\xc3", b"the "]


def some_options(draw: random.Random, *, any_byte: bool) -> dict:
    """Random options; constraints only for models that give every byte some probability."""
    if draw.random() < 0.2:
        beams, penalty = draw.randint(1, 3), draw.choice([0.0, 0.8])
        return {"beams": beams, "length_penalty": penalty, "max_bytes": draw.randint(0, 9)}
    options = {
        "max_bytes": draw.randint(0, 18),
        "temperature": draw.choice([0, 0.8, 1.5]),
        "top_k": draw.choice([0, 5]),
        "top_p": draw.choice([1.0, 0.9]),
        "stop": draw.choice([(), (b"e",), (b" s", b"ll")]),
        "seed": draw.randint(0, 99),
    }
    if any_byte and draw.random() < 0.4:
        options["utf8"] = True
    elif any_byte and draw.random() < 0.4:
        options |= {"regex": "[a-z ]+é?", "max_bytes": 12}
    return options


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_rows_that_join_at_random_times_write_what_they_write_alone(name, seed):
    lm, draw = made(name), random.Random(seed)
    any_byte = name not in ("converted", "subword, sliding")
    run = Generation(lm, rows=4)
    wanted, texts, cancelled = {}, {}, set()

    def add() -> None:
        prompt, options = draw.choice(PROMPTS), some_options(draw, any_byte=any_byte)
        context = draw.choice([None, None, b"by the "])
        key = run.add(prompt, GenerateOptions(**options), context=context)
        wanted[key], texts[key] = (prompt, options, context), b""

    for _ in range(3):
        add()
    finishes = {}
    while wanted.keys() - finishes.keys() - cancelled:
        for key, piece, finish in run:
            assert key not in cancelled and key not in finishes
            texts[key] += piece
            if finish:
                finishes[key] = finish
            while len(wanted) < 14 and draw.random() < 0.4:
                add()
            if draw.random() < 0.05:
                victim = draw.choice(list(wanted))
                run.cancel(victim)
                if victim not in finishes:
                    cancelled.add(victim)
            if draw.random() < 0.05:
                break  # and resume
    assert not run.waiting and not run.running
    for key, (prompt, options, context) in wanted.items():
        alone = generate_batch(lm, [prompt], context=[context], **options)[0]
        found = run.result(key)
        if found.finish == "cancelled":
            assert alone.data.startswith(texts[key])
            continue
        assert (texts[key], finishes[key]) == (alone.data, alone.finish), (prompt, options)
        assert found.data == alone.data and found.finish == alone.finish
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-7)
        assert found.log_mass == pytest.approx(alone.log_mass, abs=1e-7)


def test_a_thousand_prompts_keep_a_batch_of_sixteen_full():
    lm = Counting(ngram())
    run = Generation(lm, rows=16)
    draw = random.Random(0)
    keys = [
        run.add(b"s", GenerateOptions(max_bytes=draw.randint(1, 30), seed=i)) for i in range(1000)
    ]
    left = set(keys)
    for key, _, finish in run:
        if finish:
            left.remove(key)
    assert not left
    full = next(i for i, rows in enumerate(lm.asked) if rows < 16)
    assert set(lm.asked[:full]) == {16}, "the batch is full while prompts wait"
    assert len(lm.asked) - full < 30, "the last rows end within one text's length"
    outcomes = [run.result(key) for key in keys]
    written = sum(len(text.data) + (text.finish == "end") for text in outcomes)
    assert sum(lm.asked) == written, "no row is computed that writes nothing"


def test_waiting_prompts_are_read_in_one_prefill_and_a_shared_prompt_once():
    lm = Counting(ngram())
    options = {"max_bytes": 3, "temperature": 0, "regex": "..."}
    texts = generate_batch(lm, [b"a", b"b", b"a", b"c", b"s"], rows=4, **options)
    assert lm.started == [3, 1]
    assert texts[0].data == texts[2].data == generate(ngram(), b"a", **options)


def test_a_short_prompt_is_not_padded_to_a_long_one():
    lm = Counting(ngram())
    prompts = [b"a", b"b" * 63, b"c" * 1000, b"d" * 900, b"e" * 64]
    texts = generate_batch(lm, prompts, max_bytes=3, temperature=0)
    assert sorted(lm.started) == [1, 2, 2]
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.data == generate(ngram(), prompt, max_bytes=3, temperature=0)


@pytest.mark.parametrize("prompt", [b"she ", "é".encode()[:1]])
def test_our_own_constraints_are_constraints_like_any_other(prompt):
    options = {"max_bytes": 9, "seed": 3, "temperature": 2.0}
    lm = ngram()
    same = generate(lm, prompt, constraint=utf8_dfa(), **options)
    assert same == generate(lm, prompt, utf8=True, **options)
    same = generate(lm, prompt, constraint=regex_dfa("[a-e]+"), **options)
    assert same == generate(lm, prompt, regex="[a-e]+", **options)


def test_prompts_may_come_after_the_run_has_come_to_rest():
    run = Generation(ngram(), rows=2)
    first = run.add(b"se", GenerateOptions(max_bytes=3))
    assert [event[0] for event in run][-1] == first and not list(run)
    second = run.add(b"se", GenerateOptions(max_bytes=3))
    events = list(run)
    assert {key for key, _, _ in events} == {second}
    assert run.result(first) == run.result(second)


def test_one_requests_mistake_ends_that_request_only():
    run = Generation(transformer(), rows=4)
    options = GenerateOptions(max_bytes=5)
    good, bad = run.add(b"se", options), run.add(b"", options, context=["fim_prefix", b"x" * 90])
    also_good = run.add(b"she", options)
    finishes = {key: finish for key, _, finish in run if finish}
    assert finishes[bad] == "error" and {finishes[good], finishes[also_good]} <= {"length", "end"}
    assert run.result(good).data == generate(transformer(), b"se", max_bytes=5)
    with pytest.raises(BytelmError, match="shorten the context"):
        run.result(bad)
    with pytest.raises(BytelmError, match="shorten the context"):
        generate(transformer(), context=["fim_prefix", b"x" * 90])


def test_a_constraint_the_model_contradicts_ends_its_row_only():
    lm = MODES["all, no tokenizer"]

    class Never:
        """After "t" nothing but a byte that this model never writes there."""

        def start(self, prompt):
            return b""

        def allowed(self, place, room=None):
            mask = np.zeros(257, dtype=bool)
            mask[list({b"": b"t"}.get(place, b"\x00"))] = True
            return mask

        def advance(self, place, byte):
            return place + bytes([byte])

    run = Generation(lm, rows=2)
    bad = run.add(b"", GenerateOptions(constraint=Never(), max_bytes=9))
    good = run.add(b"the", GenerateOptions(max_bytes=9, seed=4))
    list(run)
    assert run.result(good).data == generate(lm, b"the", max_bytes=9, seed=4)
    if run._known[bad].writer.finish == "error":
        with pytest.raises(BytelmError, match="probability zero to everything"):
            run.result(bad)


class Balanced:
    """Brackets that match: no regular language, so no automaton could say it."""

    def start(self, prompt: bytes) -> int:
        return prompt.count(b"(") - prompt.count(b")")

    def allowed(self, place: int, room: int | None = None) -> np.ndarray:
        mask = np.zeros(257, dtype=bool)
        mask[ord("(")] = room is None or place + 2 <= room
        mask[ord(")")] = place > 0 and (room is None or place <= room)
        mask[ord("x")] = room is None or place + 1 <= room
        mask[256] = place == 0
        return mask

    def advance(self, place: int, byte: int) -> int:
        return place + {ord("("): 1, ord(")"): -1}.get(byte, 0)


@pytest.mark.parametrize("max_bytes", [2, 3, 7, 20])
def test_a_constraint_of_ones_own_is_obeyed_whatever_the_length_limit(max_bytes):
    for seed in range(6):
        options = {"max_bytes": max_bytes, "seed": seed, "temperature": 2.0}
        text = generate(ngram(), b"((", constraint=Balanced(), **options)
        depth = 2
        for byte in text:
            depth += {ord("("): 1, ord(")"): -1}.get(byte, 0)
            assert depth >= 0
        assert depth == 0 and len(text) <= max_bytes
        both = generate(ngram(), b"", constraint=Balanced(), regex="[^x]*", **options)
        assert b"x" not in both


def test_a_constraint_that_needs_more_room_than_there_is_says_how_much():
    with pytest.raises(BytelmError, match="at least 3 bytes and max_bytes is 2"):
        generate(ngram(), b"(((", constraint=Balanced(), max_bytes=2)


def test_what_is_no_constraint_is_refused():
    class Short(Balanced):
        def allowed(self, place, room=None):
            return np.ones(256, dtype=bool)

    with pytest.raises(BytelmError, match="start, allowed and advance; str lacks"):
        GenerateOptions(constraint="[a-z]+")
    with pytest.raises(BytelmError, match=r"Short.allowed must give 257"):
        generate(ngram(), constraint=Short())


def test_cancelled_and_forgotten_texts():
    run = Generation(ngram(), rows=1)
    keys = [run.add(b"s", GenerateOptions(max_bytes=5, regex="....."))] * 1
    keys += [run.add(b"s") for _ in range(2)]
    run.cancel(keys[1])
    assert run.waiting == 2
    run.forget(keys[2])
    assert {key for key, _, _ in run} == {keys[0]}
    assert run.result(keys[1]).finish == "cancelled" and run.result(keys[1]).data == b""
    run.cancel(keys[0])
    assert run.result(keys[0]).finish == "constraint", "what has ended stays as it ended"
    for key, message in ((keys[2], "no text with the key"), (run.add(), "not finished")):
        with pytest.raises(BytelmError, match=message):
            run.result(key)
    with pytest.raises(BytelmError, match="rows must be"):
        Generation(ngram(), rows=0)
    with pytest.raises(BytelmError, match="a search with 4 beams takes as many rows"):
        Generation(ngram(), rows=3).add(b"", GenerateOptions(beams=4))


def test_options_are_the_same_wherever_they_are_listed():
    names = [field.name for field in fields(GenerateOptions)]
    assert list(GenerateKeywords.__annotations__) == names
    parameters = inspect.signature(generate).parameters
    listed = {k: p.default for k, p in parameters.items() if k in names}
    assert listed == {field.name: field.default for field in fields(GenerateOptions)}
    assert set(parameters) - set(names) == {"lm", "prompt", "context", "stream", "backend"}
    assert bytelm.Generation is Generation and bytelm.GenerateOptions is GenerateOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": -1}, "seed"), ({"max_bytes": 2.5}, "max_bytes"), ({"stop": ["a"]}, "stop string")],
)
def test_options_that_cannot_be_are_refused_when_they_are_made(options, message):
    with pytest.raises(BytelmError, match=message):
        GenerateOptions(**options)


def test_contexts_are_counted_before_anything_runs():
    lm = NgramLM.train([b"abc"], order=2)
    with pytest.raises(BytelmError, match="1 contexts for 2 prompts"):
        generate_batch(lm, [b"", b""], context=[b"a"])
