"""Our own subword models: the tree of keys and values, exact bytes, windows, loading.

Oracles are the model's full forward over whole token strings, and sums over all covers of a text.
"""

import math

import pytest
import torch
from hypothesis import strategies as st

from bytelm.data.batch import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.evaluate.bits import evaluate_bits
from bytelm.exact.token_lm import PendingParent, extend_trees
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.native import NativeLM
from bytelm.lm.sliding_context import SlidingContext
from bytelm.lm.subword import SubwordLM, TokenScores
from bytelm.loading import load
from bytelm.tokenizer import BinaryBPE
from tests.lm.contract import Case
from tests.lm.contract import transformer as native
from tests.lm.runs import save_run
from tests.lm.subwords import BPE, TEXT, hnet, mamba, transformer
from tests.lm.test_contract import *  # noqa: F403  (the contract)

SHELLS = st.sampled_from([b"", b"s", b"shells", b"sea she", b"the shore. ", b"\x00s\xffea", b"xy"])
CASES = {
    "canonical": Case(transformer, SHELLS, tolerance=1e-8),
    "canonical, sliding context": Case(
        lambda: transformer(window=7, stride=3), SHELLS, tolerance=1e-8
    ),
    "canonicalised": Case(
        lambda: transformer(mode="canonicalised", window=9), SHELLS, tolerance=1e-8
    ),
    "all": Case(lambda: transformer(mode="all", beam=4, epsilon=1e-2), SHELLS, tolerance=1e-8),
    "bytes and tokens": Case(
        lambda: Ensemble([transformer(), native(layers=1)], "bayes"), SHELLS, tolerance=1e-8
    ),
    "recurrent": Case(mamba, SHELLS, tolerance=1e-8),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def lm(case):
    return case.make()


def after(lm: SubwordLM, tokens: list[int]) -> torch.Tensor:
    """(V,) log-probabilities after these tokens by one full forward; impossible symbols out."""
    vocab = lm.model.vocab
    with torch.no_grad():
        logits = lm.model(Batch(ids=torch.tensor([[vocab.bos, *tokens]]))).logits[0, -1].clone()
    silent = [data is None and i != vocab.eos for i, data in enumerate(lm.bpe.token_bytes)]
    logits[silent] = -math.inf
    return logits.log_softmax(-1)


def logprob(lm: SubwordLM, tokens: list[int]) -> float:
    return sum(float(after(lm, tokens[:i])[token]) for i, token in enumerate(tokens))


@pytest.mark.parametrize(
    "make", [transformer, lambda: transformer(attention_window=2), mamba, hnet]
)
def test_a_tree_of_rows_is_what_the_model_says_along_each_path(make):
    lm = make()
    tree = lm.converter.lm
    generator = torch.Generator().manual_seed(1)
    cache = tree.open()
    root, first = tree.root(cache)
    torch.testing.assert_close(first, after(lm, []), rtol=0, atol=1e-9)
    rows, names = [], []
    for _ in range(25):
        parent = int(torch.randint(-1, len(rows), (1,), generator=generator)) if rows else -1
        token = int(torch.randint(7, BPE.vocab_size, (1,), generator=generator))
        rows.append((root if parent < 0 else PendingParent(parent), token))
        names.append([*(names[parent] if parent >= 0 else ()), token])
    ((nodes, logprobs),) = extend_trees(tree, [(cache, rows)])
    tree.release(cache, nodes[20:])  # their slots are used again
    more, later = tree.extend(cache, [(nodes[3], 7), (nodes[5], 9), (nodes[3], 8)])
    names += [[*names[3], 7], [*names[5], 9], [*names[3], 8]]
    for name, row in zip(names, torch.cat([logprobs, later]), strict=True):
        torch.testing.assert_close(row, after(lm, name), rtol=0, atol=1e-9)
    assert tree.rows_evaluated == 1 + 25 + 3


def covers(text: bytes) -> list[list[int]]:
    """Every token string of which only the last token reaches over the end of `text`."""
    if not text:
        return [[]]
    found = []
    for token, data in enumerate(BPE.token_bytes):
        if data is not None and data.startswith(text):
            found.append([token])
        elif data is not None and text.startswith(data):
            found += [[token, *rest] for rest in covers(text[len(data) :])]
    return found


@pytest.mark.parametrize("make", [transformer, mamba])
@pytest.mark.parametrize("text", [b"sh", b"sea s", b"shells"])
def test_mode_all_is_the_sum_over_every_cover(make, text):
    lm = make(mode="all", beam=10_000, epsilon=0.0)
    masses = torch.tensor([logprob(lm, tokens) for tokens in covers(text)], dtype=torch.float64)
    assert len(masses) > 3
    state = lm.start(text)
    assert state.logprob == pytest.approx(float(masses.logsumexp(0)), abs=1e-9)
    ends = [c for c in covers(text) if b"".join(BPE.token_bytes[t] for t in c) == text]
    end = torch.tensor([logprob(lm, c) + float(after(lm, c)[BPE.special("<|end|>")]) for c in ends])
    wanted = float(end.double().logsumexp(0) - masses.logsumexp(0))
    assert float(state.logprobs()[256]) == pytest.approx(wanted, abs=1e-6)


def test_canonical_bits_lie_between_all_encodings_and_the_canonical_tokens():
    text = b"she sells the sea shore."
    (tokens,) = transformer().tokens.score_batch_with_end([text])
    exact = [transformer(mode=m, beam=1000, epsilon=0.0) for m in ("canonical", "all")]
    canonical, everything = (float(lm.start(text).batch._inner.log_lower[0]) for lm in exact)
    assert float(tokens[:-1].sum()) < canonical < everything


@pytest.mark.parametrize(("window", "stride"), [(5, 2), (9, 9), (100, 50)])
def test_token_scores_are_full_forwards_over_the_tokens_of_each_context(window, stride):
    lm = transformer()
    text = b"she sells sea shells by\x00\xff the shore"
    ids, starts = BPE.encode_with_offsets(text)
    targets = [*ids.tolist(), lm.model.vocab.eos]
    sliding = SlidingContext(window, stride)
    wanted = torch.zeros(len(text) + 1, dtype=torch.float64)
    for target, start in zip(targets, starts.tolist(), strict=True):
        s = sliding.start(start)
        context = [
            t for t, at in zip(ids.tolist(), starts.tolist()[:-1], strict=True) if s <= at < start
        ]
        wanted[start] = after(lm, context)[target]
    scores = TokenScores(lm.model, BPE, sliding)
    found, empty = scores.score_batch_with_end([text, b""])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert empty.shape == (1,) and float(empty[0]) == pytest.approx(float(after(lm, [])[1]))
    result = evaluate_bits(scores, [text, b""])
    assert result.bits == pytest.approx(-float(wanted[:-1].sum()) / math.log(2))
    assert (result.bytes, result.window, result.stride) == (len(text), window, stride)


def test_a_long_text_is_read_as_if_only_the_window_had_been_there():
    lm, whole = transformer(window=7, stride=3), transformer(window=1000)
    text = b"she sells sea shells by the sea"
    scores = lm.score_with_end(text)
    for t in range(len(text)):
        s = lm.sliding.start(t)
        alone = whole.start(text[s:t]).logprobs()[text[t]]
        assert float(scores[t]) == pytest.approx(float(alone), abs=1e-8)


@pytest.mark.parametrize(("make", "arch"), [(transformer, "transformer"), (mamba, "hnet")])
def test_a_run_directory_is_all_that_loading_needs(tmp_path, make, arch):
    original = make()
    path = save_run(original, tmp_path, arch=arch)
    lm = load(path)
    assert (lm.window, lm.stride, lm.converter.mode) == (63, 31, "canonical")
    found = load(path, window=40).score(b"some shells")
    torch.testing.assert_close(found, original.score(b"some shells"), rtol=0, atol=1e-5)


def test_a_missing_or_another_tokenizer_is_said_so(tmp_path):
    path = save_run(transformer(), tmp_path, arch="transformer")
    BinaryBPE.train([TEXT[::-1]], vocab_sizes=[285])[285].save(path)
    with pytest.raises(CheckpointError, match="hashes differ"):
        load(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load(path)


def test_a_subword_model_is_not_read_as_bytes():
    with pytest.raises(BytelmError, match="reads tokens, not bytes"):
        NativeLM(transformer().model, window=10)
