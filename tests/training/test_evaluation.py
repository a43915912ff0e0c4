"""`evaluate.bytes` counts bytes, whatever the windows are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data import Corpus, Windows
from bytelm.training import train
from bytelm.training.evaluation import windows_within
from bytelm.training.metrics import read_metrics
from tests.training.runs import tiny_recipe

POLICIES = ("concat", "pack", "document", "truncate", "bucket")


def corpus_of(folder, documents):
    for number, document in enumerate(documents):
        (folder / f"{number:03}").write_bytes(document)
    return Corpus.open(sorted(folder.iterdir()))


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(any),
    length=st.integers(1, 16),
    policy=st.sampled_from(POLICIES),
    limit=st.integers(1, 300),
    shuffle=st.booleans(),
)
def test_the_windows_taken_hold_the_bytes_asked_for_and_no_window_more(
    tmp_path_factory, lengths, length, policy, limit, shuffle
):
    corpus = corpus_of(tmp_path_factory.mktemp("corpus"), [b"x" * n for n in lengths])
    windows = Windows(corpus, length=length, policy=policy, bucket_rows=4, shuffle=shuffle)
    rows = [windows.rows(np.array([n])) for n in range(windows.count)]
    sizes = [int(row.lengths.sum()) - row.ends for row in rows]
    assert windows.bytes_of(np.arange(windows.count)).tolist() == sizes
    count = windows_within(windows, limit)
    if count < windows.count:
        assert sum(sizes[:count]) >= limit
    assert count == 0 or sum(sizes[: count - 1]) < limit


@pytest.mark.parametrize("policy", ["concat", "pack", "document", "bucket"])
def test_many_short_documents_are_evaluated_to_the_bytes_asked_for(tmp_path, policy, monkeypatch):
    """With document and bucket 1,280 of 65,536 bytes were judged, and `best/` chosen by them."""
    from bytelm.training import loop as loop_module

    seen = []
    measure = loop_module.measure_heldout

    def spy(*args, **kwargs):
        sums = measure(*args, **kwargs)
        seen.append(sums["bytes"])
        return sums

    monkeypatch.setattr(loop_module, "measure_heldout", spy)
    (tmp_path / "held").mkdir()
    for n in range(300):
        (tmp_path / "held" / f"{n:03}").write_bytes(b"ab%d" % (n % 10))
    settings = [f"data.policy={policy}", f"data.heldout=['{tmp_path}/held/*']"]
    train(tiny_recipe(tmp_path, *settings, "evaluate.bytes=600"), run_dir=tmp_path / "run")
    assert seen and all(600 <= size < 600 + 16 for size in seen)


@pytest.mark.parametrize("policy", ["concat", "document", "bucket", "pack"])
def test_empty_documents_in_front_are_passed_over(tmp_path, policy):
    (tmp_path / "held").mkdir()
    for n in range(40):
        (tmp_path / "held" / f"{n:03}").write_bytes(b"" if n < 30 else b"abcd")
    settings = [f"data.policy={policy}", f"data.heldout=['{tmp_path}/held/*']", "evaluate.bytes=8"]
    run = train(tiny_recipe(tmp_path, *settings), run_dir=tmp_path / "run")
    name = "heldout_bits_per_byte"
    figures = [row[name] for row in read_metrics(run / "metrics.jsonl") if name in row]
    assert len(figures) == 3 and all(5 < figure < 10 for figure in figures)
