"""Drafts never change what is written, only how many calls of the model that takes."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.lm.draft import Draft, Drafter, DraftSession, PromptLookup
from bytelm.lm.generate import generate, generate_batch
from bytelm.lm.generation import Generation
from bytelm.lm.model_draft import ModelDrafter
from bytelm.lm.ngram import NgramLM
from bytelm.lm.options import GenerateOptions
from bytelm.lm.sampling import Sampling
from bytelm.lm.speculative import accept
from bytelm.lm.writer import Generated
from tests.exact.test_converter import MODES
from tests.lm import subwords
from tests.lm.contract import CASES, SHELLS, hnet, ngram, transformer

MODELS = {
    **{name: CASES[name].make for name in ("transformer", "hnet", "mambabyte", "encoder-decoder")},
    "transformer, wide window": CASES["transformer, wide window"].make,
    **{name: CASES[name].make for name in ("hnet, two stages", "bayes", "switch", "product")},
    "ngram": ngram,
    **{f"converted, {mode}": (lambda mode=mode: MODES[mode]) for mode in ("all", "canonical")},
    "run over tokens": subwords.transformer,
}
PROMPTS = [b"she sells sea she", b"", b"then the re then the"]


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def lm(request):
    return request.param()


class Scripted(Drafter, DraftSession):
    """Proposes what `text` says, followed by what `wrong` says: a rejection wherever one wants."""

    def __init__(self, text: bytes, cut: int, wrong: tuple[int, ...]):
        self.text, self.cut, self.wrong = text, cut, wrong

    def session(self):
        return self

    def propose(self, requests):
        drafts = []
        for request in requests:
            at = len(request.text)
            right = tuple(self.text[at : at + self.cut])
            drafts.append(Draft((*right, *self.wrong)[: request.room]))
        return drafts


def written(lm, prompts, options: GenerateOptions) -> tuple[list[Generated], Generation]:
    run = Generation(lm, rows=len(prompts))
    keys = [run.add(p, replace(options, seed=options.seed + i)) for i, p in enumerate(prompts)]
    for _ in run:
        pass
    return [run.result(key) for key in keys], run


def assert_same(found: list[Generated], expected: list[Generated]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.data, one.finish) == (other.data, other.finish)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-6)
        assert one.log_mass == pytest.approx(other.log_mass, abs=1e-6)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_lookup_changes_no_text_of_any_seed(lm, temperature):
    options = GenerateOptions(max_bytes=24, temperature=temperature, seed=5)
    plain, _ = written(lm, PROMPTS, options)
    found, run = written(lm, PROMPTS, replace(options, draft=PromptLookup(shortest=1)))
    assert_same(found, plain)
    counts = run.draft_counts
    ends = sum(text.finish == "end" for text in plain)
    assert counts.written == sum(len(text.data) for text in plain) + ends
    assert counts.written - counts.accepted <= counts.calls <= counts.written


def test_a_drafting_model_changes_no_greedy_text(lm):
    options = GenerateOptions(max_bytes=24, temperature=0)
    plain, _ = written(lm, PROMPTS, options)
    for draft in (ModelDrafter(ngram(), least=0), ModelDrafter(lm, least=0)):
        found, run = written(lm, PROMPTS, replace(options, draft=draft, draft_bytes=5))
        assert_same(found, plain)
    counts = run.draft_counts  # a model that drafts for itself is always right
    assert counts.drafted == counts.accepted > 0
    assert counts.calls < counts.written / 1.5


@pytest.mark.parametrize("cut", [0, 1, 2, 5])
@pytest.mark.parametrize("wrong", [(), (256,), (0,), (0, 65, 66), (97, 256)])
def test_a_rejection_at_any_position_changes_no_text(lm, cut, wrong):
    options = GenerateOptions(max_bytes=13, temperature=0)
    plain, _ = written(lm, PROMPTS[:1], options)
    whole = PROMPTS[0] + plain[0].data
    found, _ = written(lm, PROMPTS[:1], replace(options, draft=Scripted(whole, cut, wrong)))
    assert_same(found, plain)


OPTIONS = {
    "stop": {"stop": [b"ea", b"l"]},
    "utf8": {"utf8": True},
    "regex": {"regex": "[a-s ]{3,30}"},
    "filters": {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.05},
    "nothing": {"max_bytes": 0},
    "one byte": {"max_bytes": 1},
    "short drafts": {"draft_bytes": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("make", [ngram, transformer, hnet], ids=["ngram", "transformer", "hnet"])
def test_every_option_is_met_with_a_draft_as_without(name, make):
    lm = make(["m1", ["T1"], "m1"]) if make is hnet else make()
    options = GenerateOptions(max_bytes=20, draft=PromptLookup(shortest=1))
    options = replace(options, **OPTIONS[name])
    plain = replace(options, draft=None, draft_bytes=32)
    assert_same(written(lm, PROMPTS, options)[0], written(lm, PROMPTS, plain)[0])
    draft = replace(options, draft=ModelDrafter(ngram(), least=0))
    for text in written(lm, PROMPTS, draft)[0]:  # a drawn draft: other texts of the same kind
        assert len(text.data) <= options.max_bytes
        assert not any(stop in text.data for stop in options.stop)
        if options.utf8:
            text.data.decode()


def test_texts_with_and_without_drafts_and_beams_share_a_run():
    lm = transformer(window=200, stride=100)
    wanted = [
        GenerateOptions(max_bytes=9, temperature=0, draft=PromptLookup(shortest=1)),
        GenerateOptions(max_bytes=7, seed=3),
        GenerateOptions(max_bytes=8, beams=3),
        GenerateOptions(max_bytes=12, temperature=0, draft=ModelDrafter(lm, least=0)),
        GenerateOptions(max_bytes=12, temperature=0, draft=ModelDrafter(ngram(), least=0)),
    ]
    alone = []
    for options in wanted:
        plain = options if options.beams else replace(options, draft=None)
        alone += generate_one(lm, plain)
    run = Generation(lm, rows=6)  # so that some wait and join later
    keys = [run.add(PROMPTS[0], options) for options in wanted]
    for _ in run:
        pass
    assert_same([run.result(key) for key in keys], alone)


def generate_one(lm, options: GenerateOptions) -> list[Generated]:
    run = Generation(lm, rows=max(1, options.beams))
    key = run.add(PROMPTS[0], options)
    for _ in run:
        pass
    return [run.result(key)]


P = torch.tensor([0.5, 0.2, 0.0, 0.3, 0.0])


@pytest.mark.parametrize(
    "q", [[0.1, 0.2, 0.3, 0.4, 0.0], [0.5, 0.2, 0, 0.3, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
)
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0), Sampling(temperature=0.5, top_p=0.8)]
)
def test_the_rule_gives_every_outcome_its_own_probability(q, sampling):
    """Summed over all drafts and a fine grid of random numbers, which replaces chance."""
    q_O = torch.tensor(q, dtype=torch.float64)
    grid = (np.arange(500) + 0.5) / 500
    found = torch.zeros(5, dtype=torch.float64)
    for drafted in q_O.nonzero()[:, 0].tolist():
        for uniform in grid:
            outcome = accept(sampling, P.log(), uniform, drafted=drafted, q_O=q_O)
            found[outcome] += q_O[drafted] / len(grid)
    expected = sampling.probabilities(P.log()[None])[0]
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def law(lm, sampling: Sampling, length: int) -> dict[bytes, float]:
    """The probability of every text of at most `length` bytes over two letters: `+ b"."` marks one
    that ended by itself."""
    found = {}
    for size in range(length + 1):
        for letters in itertools.product(b"ab", repeat=size):
            text, p = bytes(letters), 1.0
            for i, byte in enumerate(text):
                p *= float(sampling.probabilities(lm.start(text[:i]).logprobs()[None])[0, byte])
            if size == length:
                found[text] = p
            else:
                end = sampling.probabilities(lm.start(text).logprobs()[None])[0, 256]
                found[text + b"."] = p * float(end)
    return found


def letters(text: bytes, order: int) -> NgramLM:
    return NgramLM.train([text], order=order)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=3), Sampling(temperature=0.7, top_k=3, top_p=0.9)],
    ids=["plain", "filtered"],
)
def test_drawn_drafts_leave_the_distribution_of_texts_as_it_is(sampling):
    """Chi-square over all texts of up to 4 bytes; the 0.1 % point is exceeded by a wrong rule."""
    lm, draft = letters(b"abbaabbbabaab", 2), letters(b"bbbbabbbba", 1)
    expected = law(lm, sampling, 4)
    assert sum(expected.values()) == pytest.approx(1)
    texts = generate_batch(
        lm,
        [b""] * 1500,
        max_bytes=4,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        draft=ModelDrafter(draft, least=0),
        rows=500,
    )
    counts = Counter(text.data + (b"." if text.finish == "end" else b"") for text in texts)
    assert counts.keys() <= {text for text, p in expected.items() if p > 0}
    cells = {text: p * len(texts) for text, p in expected.items() if p > 0}
    square = sum((counts[text] - n) ** 2 / n for text, n in cells.items())
    freedom = len(cells) - 1
    assert square < freedom + 3.1 * math.sqrt(2 * freedom) + 6, (square, freedom)


def test_a_lookup_copies_what_repeats():
    text = b"alpha beta gamma delta\n" * 4
    lm = NgramLM.train([text], order=6)
    options = GenerateOptions(max_bytes=92, temperature=0, draft=PromptLookup())
    (found,), run = written(lm, [text[:30]], options)
    assert (text[:30] + found.data).startswith(text[:80])
    assert run.draft_counts.per_call > 3


def test_a_draft_that_the_model_has_no_symbol_for_is_checked_and_not_fed():
    """A released H-Net has no rows for the bytes 254 and 255."""
    from bytelm.arch.base import STORED
    from bytelm.arch.hnet import HNet
    from bytelm.arch.hnet.config import HNetConfig
    from bytelm.lm.native import NativeLM
    from tests.lm.contract import strong

    settings = {"layout": ["m1"], "d_model": [16], "d_intermediate": [0], "num_heads": [0]}
    settings |= {"d_state": 4, "head_dim": 8, "target": [], "released_ids": True}
    model = strong(HNet, HNetConfig.model_validate(settings, context=STORED))
    lm = NativeLM(model, window=100)
    plain = generate(lm, b"ab", max_bytes=8, temperature=0)
    for wrong in ((254,), (97, 255, 97)):
        draft = Scripted(b"ab" + plain, 2, wrong)
        assert generate(lm, b"ab", max_bytes=8, temperature=0, draft=draft) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft": "ngram"}, "draft is a Drafter"),
        ({"draft": PromptLookup(), "draft_bytes": 0}, "draft_bytes = 0"),
        ({"draft_bytes": 5}, "needs a draft"),
        ({"draft": PromptLookup(), "beams": 2}, "draft cannot be combined"),
    ],
)
def test_options_of_drafts_that_cannot_be_are_refused(options, message):
    with pytest.raises(BytelmError, match=message):
        GenerateOptions(**options)
    with pytest.raises(BytelmError, match="1 <= shortest <= longest"):
        PromptLookup(longest=2, shortest=3)
    with pytest.raises(BytelmError, match="least is a probability"):
        ModelDrafter(ngram(), least=2)


def test_a_drafting_model_that_lacks_a_symbol_of_the_context_is_named():
    run = Generation(transformer())
    options = GenerateOptions(draft=ModelDrafter(ngram()))
    with pytest.raises(BytelmError, match="fim_prefix"):
        run.add(b"", options, context=["fim_prefix", b"a"])


def test_a_drafting_model_with_broken_weights_ends_its_texts_by_name():
    broken = transformer()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(math.nan)
    run = Generation(transformer())
    bad = run.add(b"she", GenerateOptions(max_bytes=5, draft=ModelDrafter(broken)))
    good = run.add(b"she", GenerateOptions(max_bytes=5, draft=ModelDrafter(ngram(SHELLS))))
    for _ in run:
        pass
    assert run.result(good).finish == "length"
    with pytest.raises(BytelmError, match="weights are broken"):
        run.result(bad)
