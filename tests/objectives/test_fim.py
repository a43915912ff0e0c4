"""Fill-in-the-middle: nothing is lost, nothing is forged, and rate 0 is plain training."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import IGNORE, Windows
from bytelm.errors import DataError
from bytelm.objectives import Setup
from bytelm.objectives.causal import Causal
from bytelm.objectives.fim import Fim, cut_places, fim, unfim
from bytelm.vocab import END, ByteVocab

V = ByteVocab()
PREFIX, SUFFIX, MIDDLE = V["fim_prefix"], V["fim_suffix"], V["fim_middle"]


def make(*, seed: int = 0, **settings) -> Fim:
    return Fim(Fim.Config(**settings), Setup(seed=seed))


@given(data=st.binary(max_size=60), mode=st.sampled_from(["psm", "spm"]), draw=st.data())
def test_the_inverse_gives_the_document_back(data, mode, draw):
    cuts = sorted(draw.draw(st.integers(0, len(data))) for _ in range(2))
    ids = fim(np.frombuffer(data, np.uint8), cuts=tuple(cuts), mode=mode)
    assert unfim(ids) == data
    assert len(ids) == len(data) + 4
    assert sorted(ids[ids < 256].tolist()) == sorted(data)
    assert sorted(ids[ids >= 256].tolist()) == sorted([PREFIX, SUFFIX, MIDDLE, END])


def test_the_published_orders():
    data = np.frombuffer(b"prefMIDDsuff", np.uint8)
    psm, spm = (fim(data, cuts=(4, 8), mode=mode).tolist() for mode in ("psm", "spm"))
    assert psm == [PREFIX, *b"pref", SUFFIX, *b"suff", MIDDLE, *b"MIDD", END]
    assert spm == [PREFIX, SUFFIX, *b"suff", MIDDLE, *b"pref", *b"MIDD", END]


@given(text=st.text(max_size=30))
def test_code_point_cuts_leave_valid_text(text):
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    places = cut_places(data, unit="codepoint")
    assert len(places) == len(text) + 1
    for place in places:
        data[:place].tobytes().decode("utf-8", "surrogatepass")


@given(data=st.binary(max_size=20))
def test_code_point_cuts_of_any_bytes_include_both_ends(data):
    places = cut_places(np.frombuffer(data, np.uint8), unit="codepoint")
    assert places[0] == 0 and places[-1] == len(data) and (np.diff(places) > 0).all()


@pytest.mark.parametrize(
    "bad", [[97, END], [PREFIX, SUFFIX, MIDDLE], [PREFIX, MIDDLE, SUFFIX, END]]
)
def test_the_inverse_refuses_what_fim_did_not_make(bad):
    with pytest.raises(DataError, match="not one fill-in-the-middle document"):
        unfim(np.array(bad))


def windows_for(corpus, objective, *, length, **settings):
    return Windows(corpus, length=objective.window_length(length), **settings)


def pieces_of(batch):
    """The documents of all rows, rebuilt from inputs and targets."""
    for row in range(len(batch.ids)):
        n = int(batch.lengths[row])
        ids, targets = batch.ids[row, :n].tolist(), batch.targets[row, :n].tolist()
        starts = [i for i, symbol in enumerate(ids) if symbol == V.bos] + [n]
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            # A marker is no target, so it is read from the next input.
            following = [*ids[begin + 1 : end], targets[end - 1]]
            yield np.array(following), targets[begin:end]


@pytest.mark.parametrize("policy", ["concat", "pack", "document"])
def test_reordering_every_piece_keeps_every_byte_and_every_end(corpus_of, policy):
    documents = [bytes([i]) * (i * 7 % 40) + b"tail%d" % i for i in range(30)]
    corpus = corpus_of(documents)
    objective = make(rate=1.0, documents=60)
    windows = windows_for(corpus, objective, length=300, policy=policy, shuffle=False)
    batch = objective.batch(windows, np.arange(windows.count))
    plain = windows.batch(range(windows.count), epoch=0)
    assert batch.raw_bytes == plain.raw_bytes == sum(map(len, documents))
    restored = []
    for ids, targets in pieces_of(batch):
        restored.append(unfim(ids))  # raises if an end or a marker were missing
        assert [t for t in targets if t != IGNORE] == [i for i in ids.tolist() if i <= END]
    if policy != "concat":
        assert sorted(restored) == sorted(documents)
    else:
        assert b"".join(restored) == b"".join(documents)


def test_the_first_marker_follows_bos_and_markers_are_never_targets(corpus_of):
    objective = make(rate=1.0)
    windows = windows_for(corpus_of([b"abcdefgh"]), objective, length=30)
    batch = objective.batch(windows, np.array([0]))
    assert batch.ids[0, :2].tolist() == [V.bos, PREFIX]
    assert batch.targets.max() <= END and batch.targets[0, 0] == IGNORE
    assert batch.targets[0, int(batch.lengths[0]) - 1] == END


def test_rate_zero_is_plain_training_with_room_to_spare(corpus_of):
    corpus = corpus_of([b"some words", b"", b"and more words than fit in one row" * 3])
    objective = make(rate=0.0, documents=2)
    windows = windows_for(corpus, objective, length=40)
    samples = np.arange(windows.count)
    got, plain = (
        objective.batch(windows, samples),
        Causal(Causal.Config(), Setup()).batch(windows, samples),
    )
    for name in ("ids", "targets"):
        a, b = getattr(got, name)[:, :32], getattr(plain, name)
        assert torch.equal(a, b)
    assert (got.targets[:, 32:] == IGNORE).all()
    assert torch.equal(got.document_ids[:, :32][plain.mask()], plain.document_ids[plain.mask()])


def within_three_sigma(count, *, n, share):
    return abs(count - n * share) < 3 * (n * share * (1 - share)) ** 0.5


def test_rates_and_orders_follow_their_shares():
    n, data = 2000, np.full(1000, 65)  # long, so that an empty prefix (SPM2 lookalike) is rare
    objective = make(rate=0.6, spm_rate=0.3)
    made = [objective.transform(data, sample=i)[0] for i in range(n)]
    reordered = [ids for ids in made if ids[0] == PREFIX]
    assert within_three_sigma(len(reordered), n=n, share=0.6)
    spm = sum(int(ids[1] == SUFFIX) for ids in reordered)
    assert within_three_sigma(spm, n=len(reordered), share=0.3)


def test_the_three_parts_are_a_third_each_on_average():
    n, size = 2000, 30
    objective = make(rate=1.0, spm_rate=0.0)
    parts = []
    for sample in range(n):
        (ids,) = objective.transform(np.full(size, 65), sample=sample)
        markers = np.flatnonzero(ids >= 256)
        parts.append(np.diff(markers) - 1)  # prefix, suffix, middle
    # The standard deviation of a part is about size * sqrt(1 / 18).
    assert np.abs(np.mean(parts, axis=0) - size / 3).max() < 3 * size * (1 / 18 / n) ** 0.5
    assert np.min(parts) == 0, "any part may be empty"


def test_transforms_are_a_function_of_seed_and_sample(corpus_of):
    windows = Windows(corpus_of([bytes(range(200))]), length=40)
    objective = make(rate=1.0)
    alone = objective.batch(windows, np.array([3])).ids
    among = objective.batch(windows, np.array([1, 3, 2])).ids
    assert torch.equal(alone[0], among[1])
    next_epoch = objective.batch(windows, np.array([3 + windows.count])).ids
    assert not torch.equal(alone, next_epoch)
    assert not torch.equal(alone, make(rate=1.0, seed=1).batch(windows, np.array([3])).ids)


def test_only_the_longest_pieces_are_reordered_when_there_are_many(corpus_of):
    corpus = corpus_of([b"a", b"long document", b"bb", b"another long one", b"c"])
    objective = make(rate=1.0, documents=2)
    windows = windows_for(corpus, objective, length=60)
    batch = objective.batch(windows, np.array([0]))
    made = [unfim(ids) for ids, _ in pieces_of(batch) if ids[0] == PREFIX]
    assert sorted(made) == [b"another long one", b"long document"]


def test_settings_that_cannot_work_are_refused():
    for settings in ({"rate": 1.5}, {"spm_rate": -1}, {"unit": "codepoints"}, {"documents": 0}):
        with pytest.raises(ValueError):
            make(**settings)
    with pytest.raises(DataError, match="no room"):
        make(documents=4).window_length(16)
