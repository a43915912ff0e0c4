"""Learn Your Tokens against a loop over words, and the faults of its released code that ours must
not have. The causal contracts are in `test_causal_contract.py` and `test_stepper_contract.py`."""

import math

import pytest
import torch

from bytelm.data import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.prefixed import Prefixed
from bytelm.nn.segments import Segments
from bytelm.registry import architecture
from bytelm.vocab import TokenVocab
from tests.arch.cases import cases_of, make, texty_ids

NAMES = [name for name in cases_of("causal") if name.startswith("wordpool")]
EVERY = pytest.mark.parametrize("name", NAMES)
TEXTS = {
    "a word longer than any limit": b"supercalifragilistic" * 5,
    "no space": bytes(range(97, 123)) * 3,
    "only spaces": b" " * 70,
    "NULs": b"\0" * 40 + b"a\0b",
    "invalid UTF-8": b"\xff\xfe\x80caf\xc3 \xe4\xb8 \xf5",
    "one byte": b"x",
    "every byte": bytes(range(256)),
}


def row(text: bytes) -> torch.Tensor:
    return torch.tensor([[257, *text]])


def words_of(model, ids):
    """The ids of one row as a list of words, cut at the model's own starts."""
    starts = model.chunk_boundaries(ids)[0][0].tolist()
    places = [t for t, start in enumerate(starts) if start]
    return [ids[0, a:b] for a, b in zip(places, [*places[1:], len(starts)], strict=True)]


@torch.no_grad()
def by_words(model, ids):
    """Logits (L, V) of one row by a loop over its words, nothing packed and nothing padded."""
    body, p = model.backbone, model.config.prefixes
    vectors, found = [], []
    words = words_of(model, ids)
    for x in model._embed(ids)[0].split([len(word) for word in words]):
        read = body.start
        if vectors:
            read = body.trunk(torch.stack(vectors)[None], Segments(len(vectors)))[0, -1]
        prefix = body.unpool(read).view(p, -1)
        spelled = body.decoder(torch.cat((prefix, x))[None], Segments(p + len(x)))[0, p:]
        found.append(model.lm_head(spelled))
        written = body.encoder(torch.cat((body.slots, x))[None], Segments(p + len(x)))[0, :p]
        vectors.append(body.pool(written.flatten()))
    return torch.cat(found)


@EVERY
def test_logits_are_those_of_a_loop_over_the_words(name):
    model = make(name)
    for ids in (texty_ids(1, 90, seed=3), row(b"The cat sat 1234567890123 on  the\n\nmat.")):
        with torch.no_grad():
            logits = model(Batch(ids=ids)).logits[0]
        assert (logits - by_words(model, ids)).abs().max() < 1e-10


@EVERY
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_bytes_are_words_of_limited_length_that_lose_nothing(name, text):
    model, ids = make(name), row(text)
    words = words_of(model, ids)
    assert torch.cat(words).tolist() == ids[0].tolist()
    assert 1 <= min(map(len, words)) <= max(map(len, words)) <= model.config.max_word
    with torch.no_grad():
        full = model(Batch(ids=ids)).logits[0]
        assert (full - by_words(model, ids)).abs().max() < 1e-10
        stepper = model.stepper(model.init_state(1), 1)
        for t, symbol in enumerate(ids[0].tolist()):
            assert (stepper.step([symbol])[0] - full[t]).abs().max() < 1e-10


@EVERY
def test_a_words_vector_depends_on_its_own_bytes_and_not_on_the_longest_word(name):
    model, p = make(name), 4 if name.endswith("4") else int(name[-1]) if name[-1] == "2" else 1
    body = model.backbone

    @torch.no_grad()
    def vectors(words):
        ids = torch.cat([torch.tensor(list(word)) for word in words])[None]
        starts = torch.zeros_like(ids, dtype=torch.bool)
        at = 0
        for word in words:
            starts[0, at] = True
            at += len(word)
        return body.write(model.embeddings(ids), Prefixed(ChunkPlan(starts, delay=1), p))[0]

    alone = vectors([b" cat"])[0]
    among = vectors([b"x", b" cat", b"z" * model.config.max_word, b" cat"])
    assert (among[1] - alone).abs().max() < 1e-12
    assert (among[3] - alone).abs().max() < 1e-12
    swapped = vectors([b" dog", b" cat"])
    assert (swapped - vectors([b" cat", b" dog"]).flip(0)).abs().max() < 1e-12


@EVERY
def test_going_on_and_ending_add_up_over_all_words_of_a_small_alphabet(name):
    """sum over words w of P(w) P(end | w), and over unfinished ones, is 1 by enumeration; each term
    comes from a forward pass of its own."""
    model, begun = make(name), row(b"a ba ")
    limit = 3

    def conditional(text):
        """log P of the letters and of an end, after `begun` and the text, among these outcomes."""
        ids = torch.cat((begun, torch.tensor([list(text)], dtype=torch.long)), dim=1)
        with torch.no_grad():
            logits = model(Batch(ids=ids)).logits[:, -1]
            state = model.prefill(ids, torch.tensor([ids.shape[1]]), model.init_state(1))[1]
        end = model.end_of_word(logits, state)
        kept = torch.stack([logits.log_softmax(-1)[0, ord(c)] for c in "ab"])
        return torch.cat((kept, end)).log_softmax(0).exp().tolist()

    total, open_words = 0.0, {b"": 1.0}
    for _ in range(limit):
        longer = {}
        for text, chance in open_words.items():
            a, b, end = conditional(text)
            total += chance * end
            longer |= {text + b"a": chance * a, text + b"b": chance * b}
        open_words = longer
    assert math.isclose(total + sum(open_words.values()), 1, rel_tol=1e-9)


@EVERY
def test_the_end_of_a_word_is_the_mass_of_what_starts_the_next(name):
    model, text = make(name), row(b"one two")
    with torch.no_grad():
        logits, state = model.prefill(text, torch.tensor([text.shape[1]]), model.init_state(1))
        logprobs = logits.log_softmax(-1)[0].exp()
        mass = 0.0
        for symbol in range(model.vocab.size):
            more = torch.cat((text, torch.tensor([[symbol]])), dim=1)
            mass += float(logprobs[symbol]) * bool(model.chunk_boundaries(more)[0][0, -1])
    assert math.isclose(float(model.end_of_word(logits, state).exp()[0]), mass, rel_tol=1e-9)
    assert 0 < mass < 1


def test_a_full_word_ends_for_certain():
    model = make("wordpool")
    text = row(b"a" * (model.config.max_word + 1))
    _, state = model.prefill(text, torch.tensor([text.shape[1]]), model.init_state(1))
    logits = torch.randn(1, model.vocab.size, dtype=torch.float64)
    full = state.open == model.config.max_word
    assert bool(full) == (abs(float(model.end_of_word(logits, state))) < 1e-9)


@pytest.mark.parametrize("case", [{"prefixes": 3}, {"max_word": 0}, {"heads": 7}])
def test_sizes_that_do_not_fit_are_refused(case):
    with pytest.raises(ValueError, match=next(iter(case)) if "heads" not in case else "heads"):
        architecture("wordpool").Config(**case)


def test_tokens_have_no_words():
    cls = architecture("wordpool")
    with pytest.raises(BytelmError, match="tokenizer"):
        cls(cls.Config(), TokenVocab(size=300, bos=1, eos=2, pad=0, sha256="0"))
