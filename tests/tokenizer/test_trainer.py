"""The merges are those of the definition and of Hugging Face, whatever the data and the memory."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching
from tokenizers import Tokenizer, models, trainers

from bytelm import compiled
from bytelm.errors import BytelmError
from bytelm.tokenizer import merge_table, trainer, training_corpus
from bytelm.tokenizer.pieces import PieceRules, byte_entropy
from bytelm.tokenizer.trainer import train_merges

from .conftest import CORPORA, executable_like, naive_merges


def cut(data: bytes, length: int) -> list[bytes]:
    return [data[i : i + length] for i in range(0, len(data), length)]


def hf_merges(pieces: list[bytes], ids: int, cap: int | None) -> list[tuple[bytes, bytes]]:
    hf = trainers.BpeTrainer(
        vocab_size=ids,
        min_frequency=2,
        initial_alphabet=[chr(i) for i in range(256)],
        show_progress=False,
        max_token_length=None if cap is None else cap + 1,  # its limit is exclusive
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator([piece.decode("latin-1") for piece in pieces], hf)
    stored = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(a.encode("latin-1"), b.encode("latin-1")) for a, b in stored]


def spelled(merges: np.ndarray) -> list[tuple[bytes, bytes]]:
    tokens = [bytes([i]) for i in range(256)]
    out = []
    for a, b in merges.tolist():
        out.append((tokens[a], tokens[b]))
        tokens.append(tokens[a] + tokens[b])
    return out


@pytest.mark.parametrize("cap", [None, 3, 16])
@pytest.mark.parametrize("length", [50, 4096, 1 << 20])
def test_merges_equal_hugging_face_on_every_corpus(corpus, length, cap):
    if len(set(corpus)) == 1:
        length = min(length, 4096)  # there it takes quadratic time on long words
    found = train_merges([corpus], ids=700, piece_length=length, max_token_length=cap)
    assert spelled(found.merges) == hf_merges(cut(corpus, length), 700, cap)


@given(
    pieces=st.lists(st.text("ab", max_size=60).map(str.encode), min_size=1, max_size=6),
    ids=st.integers(257, 300),
    min_frequency=st.integers(0, 3),
    cap=st.sampled_from([None, 1, 2, 3, 5]),
)
def test_merges_equal_the_definition_on_adversarial_overlaps(pieces, ids, min_frequency, cap):
    if not any(pieces):
        return
    found = train_merges(pieces, ids=ids, min_frequency=min_frequency, max_token_length=cap)
    want = naive_merges(pieces, ids, min_frequency, cap)
    assert list(map(tuple, found.merges.tolist())) == want


@settings(max_examples=30)
@given(
    data=st.binary(min_size=2, max_size=400) | st.text("abc", min_size=2).map(str.encode),
    arena=st.sampled_from([64, 100, 400]),
    length=st.sampled_from([7, 64, 8192]),
)
def test_the_smallest_arena_only_costs_time(data, arena, length):
    data = data * 5
    with mock.patch.object(training_corpus.TrainingCorpus, "_arena", lambda *_: arena):
        found = train_merges([data], ids=330, piece_length=length)
    assert list(map(tuple, found.merges.tolist())) == naive_merges(cut(data, length), 330)


def test_the_length_cap_holds_when_pairs_are_counted_afresh():
    data = CORPORA["executable"]
    with mock.patch.object(training_corpus.TrainingCorpus, "_arena", lambda *_: 2000):
        found = train_merges([data], ids=500, max_token_length=4)
    assert max(len(a) + len(b) for a, b in spelled(found.merges)) == 4
    full = train_merges([data], ids=500, max_token_length=4)
    assert np.array_equal(found.merges, full.merges)


def test_counts_are_those_of_the_text_at_the_time_of_the_merge():
    found = train_merges([b"aaab" * 100], ids=258, piece_length=4)
    assert found.merges.tolist() == [[97, 97], [97, 98]]
    assert found.counts.tolist() == [200, 100]


@pytest.mark.slow  # 30 seconds
def test_ids_over_16_bits_find_the_same_merges(monkeypatch):
    data = executable_like(3, 20_000)
    small = train_merges([data], ids=600)
    large = train_merges([data], ids=70_000)
    assert np.array_equal(large.merges[: len(small.merges)], small.merges)


def test_going_on_from_a_checkpoint_equals_an_unbroken_run():
    data = CORPORA["executable"]
    whole = train_merges([data], ids=900, piece_length=1000)
    half = train_merges([data], ids=500, piece_length=1000)
    rest = train_merges(
        [data], ids=900, piece_length=1000, start=half.merges, start_sha256=half.corpus_sha256
    )
    assert np.array_equal(rest.merges, whole.merges)


def test_a_checkpoint_of_other_data_or_rules_is_refused():
    half = train_merges([b"abab" * 50], ids=257)
    for data, length in ((b"abac" * 50, 8192), (b"abab" * 50, 100)):
        with pytest.raises(BytelmError, match="other data, or of other rules"):
            train_merges(
                [data],
                ids=258,
                piece_length=length,
                start=half.merges,
                start_sha256=half.corpus_sha256,
            )


def test_repeated_pieces_can_be_counted_once():
    data = executable_like(5, 512) * 8 + executable_like(6, 512)
    once = train_merges([data], ids=400, rules=PieceRules(length=512, unique=True))
    unique = list(dict.fromkeys(cut(data, 512)))
    assert list(map(tuple, once.merges.tolist())) == naive_merges(unique, 400)
    assert once.corpus_pieces == len(unique) == 2


def test_the_entropy_window_drops_pieces():
    noise, zeros, code = CORPORA["random"][:4096], bytes(4096), executable_like(7, 4096)
    rules = PieceRules(length=4096, entropy=(0.5, 7.5))
    found = train_merges([noise + zeros + code], ids=300, rules=rules)
    assert found.corpus_bytes == 4096
    assert list(map(tuple, found.merges.tolist())) == naive_merges([code], 300)
    assert byte_entropy(zeros) == 0 and byte_entropy(noise) > 7.9


def test_sections_of_an_executable_are_cut_apart():
    pytest.importorskip("lief")
    (path,) = (Path(__file__).parents[2] / "data/executables/wrapt").glob("*linux*_x86_64.so")
    data = path.read_bytes()
    spans = list(PieceRules(length=1 << 30, sections=True).spans(data))
    assert len(spans) > 10 and b"".join(spans) == data


def test_nothing_to_train_on_is_said():
    for documents in ([], [b""], [b"", b""]):
        with pytest.raises(BytelmError, match="nothing to train on"):
            train_merges(documents, ids=300)


def test_one_byte_gives_no_merges():
    assert len(train_merges([b"x"], ids=300).merges) == 0


def test_too_little_memory_is_said_before_anything_is_read():
    def unreadable():
        raise AssertionError("read")
        yield b""

    with pytest.raises(BytelmError, match="takes at least"):
        train_merges(unreadable(), ids=300, max_memory=200 << 20, least_bytes=1 << 30)


def test_too_much_data_is_noticed_while_reading():
    with pytest.raises(BytelmError, match="MiB may be used"):
        train_merges([bytes(1 << 20)] * 100, ids=300, max_memory=180 << 20)


def test_what_progress_raises_ends_training():
    def stop(merges, digest):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_merges([CORPORA["text"]], ids=300, on_progress=stop)


FRUGAL = """
import random, sys
from bytelm.tokenizer.trainer import train_merges

r = random.Random(0)
idioms = [r.randbytes(r.randrange(2, 9)) for _ in range(500)]
documents = (b"".join(r.choices(idioms, k=200_000)) for _ in range(32))
limit = int(sys.argv[1]) << 20
found = train_merges(documents, ids=1000, max_memory=limit)
assert len(found.merges) == 744 and found.corpus_bytes > 28 << 20
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_training_stays_inside_the_memory_it_was_given():
    run = [sys.executable, "-c", FRUGAL, "320"]
    subprocess.run(run, check=True)  # compiling, once for a machine, takes memory of its own
    told = subprocess.run(run, capture_output=True, text=True, check=True)
    assert 200 < int(told.stdout) / 1024 <= 320


def test_a_core_that_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    def no_locator(*_):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(caching.FunctionCache, "__init__", no_locator)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        assert not compiled.can_cache()


def test_the_next_threshold_follows_from_where_tracking_stopped_not_from_what_was_asked():
    reg = np.zeros(13, np.int64)
    reg[merge_table.THETA], reg[merge_table.IDS] = 720, 16_384  # the lists had no room below 720
    assert trainer._next_threshold(SimpleNamespace(reg=reg), 65_536) == 90
