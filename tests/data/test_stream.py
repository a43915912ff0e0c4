"""The order of batches: the same for any ranks and workers, exact after any stop."""

import multiprocessing
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bytelm.data import IGNORE, BatchStream, Corpus, DataState, Mixture, Windows
from bytelm.data.corpus.build import build
from bytelm.data.sources import MemorySource
from bytelm.errors import DataError

TEXT = bytes(range(256)) * 2 + b"12345"  # with 3 ends: 104 windows of 5 positions
BATCH = 4

# The machine that runs the tests may have fewer cores than the largest worker count tried.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def windows(corpus_of):
    return Windows(corpus_of([TEXT[:300], b"", TEXT[300:]]), length=5, seed=9)


def rows_of(source, *, steps, ranks=1, workers=0, state=None):
    """(rows in global order, state): `steps` batches read by `ranks` separate streams."""
    per_rank = []
    for rank in range(ranks):
        stream = BatchStream(
            source,
            batch_windows=BATCH,
            rank=rank,
            world_size=ranks,
            state=state,
            num_workers=workers,
        )
        per_rank.append(list(islice(stream, steps)))
    states = {after for batches in per_rank for _, after in batches[-1:]}
    assert len(states) <= 1, "all ranks must agree on the state"
    rows = [
        row
        for step in range(steps)
        for batches in per_rank
        for row in batches[step][0].targets.tolist()
    ]
    return rows, states.pop() if states else state


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ranks_and_workers_do_not_change_the_order(windows, ranks, workers):
    expected, _ = rows_of(windows, steps=8)
    got, _ = rows_of(windows, steps=8, ranks=ranks, workers=workers)
    assert got == expected


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_two_epochs_hold_every_window_twice(windows, ranks):
    steps = 2 * windows.count // BATCH
    rows, state = rows_of(windows, steps=steps, ranks=ranks)
    every = [windows.batch([i], epoch=0).targets[0].tolist() for i in range(windows.count)]
    assert sorted(rows[: len(every)]) == sorted(every)
    assert sorted(rows[len(every) :]) == sorted(every)
    assert (state.samples, state.epoch) == (2 * windows.count, 2)


@given(
    stops=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    ranks=st.lists(st.sampled_from([1, 2, 4]), min_size=4, max_size=4),
    policy=st.sampled_from(["concat", "bucket"]),
)
def test_resuming_goes_on_with_the_rows_that_were_next(stops, ranks, policy):
    windows = _fixed_windows(policy)
    total = sum(stops) + 5
    expected, last = rows_of(windows, steps=total)
    rows, state = [], None
    for count, world in zip([*stops, 5], ranks, strict=False):
        part, state = rows_of(windows, steps=count, ranks=world, state=state)
        rows += part
        state = DataState.from_json(state.to_json()) if state else None
    assert rows == expected and state == last


@settings(max_examples=12)
@given(
    documents=st.lists(st.binary(max_size=30), min_size=1, max_size=4),
    length=st.integers(2, 9),
    seed=st.integers(0, 99),
    policy=st.sampled_from(["concat", "pack", "document", "bucket"]),
    stops=st.lists(st.integers(0, 4), min_size=2, max_size=2),
    ranks=st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3),
    workers=st.lists(st.sampled_from([0, 1, 3]), min_size=3, max_size=3),
)
@example([b"", b"x", b""], 4, 0, "concat", [1, 2], [4, 1, 2], [3, 0, 1])  # less data than workers
@example([TEXT], 5, 9, "bucket", [3, 0], [2, 4, 1], [1, 3, 0])
def test_two_stops_with_any_ranks_and_workers_change_nothing(
    tmp_path_factory, documents, length, seed, policy, stops, ranks, workers
):
    """Every window once an epoch, in the order of one uninterrupted process."""
    built = build(MemorySource(documents), tmp_path_factory.mktemp("c") / "c", deduplicate=False)
    windows = Windows(Corpus.open(built.path), length=length, policy=policy, seed=seed)
    to_the_end = max(-(-windows.count // BATCH) - sum(stops), 1)
    expected, last = rows_of(windows, steps=sum(stops) + to_the_end)
    rows, state = [], None
    for steps, world, processes in zip([*stops, to_the_end], ranks, workers, strict=True):
        part, state = rows_of(windows, steps=steps, ranks=world, workers=processes, state=state)
        rows += part
        assert state is None or len(state.to_json()) < 1024
    assert rows == expected and state == last
    if policy != "bucket":  # where rows of one batch share a padding of their own
        whole = [windows.batch([i], epoch=0).targets[0].tolist() for i in range(windows.count)]
        cut = max(map(len, rows))
        assert Counter(map(tuple, (r + [IGNORE] * (cut - len(r)) for r in rows[: len(whole)]))) == (
            Counter(tuple(r + [IGNORE] * (cut - len(r))) for r in whole)
        )


@pytest.mark.parametrize("before, after", [(0, 3), (3, 1), (1, 0)])
def test_resuming_with_other_workers_is_exact(windows, before, after):
    expected, _ = rows_of(windows, steps=12)
    first, state = rows_of(windows, steps=5, ranks=2, workers=before)
    second, _ = rows_of(windows, steps=7, ranks=4, workers=after, state=state)
    assert first + second == expected


def test_resuming_at_the_end_of_an_epoch_starts_the_next(windows):
    steps = windows.count // BATCH
    assert windows.count % BATCH == 0
    _, state = rows_of(windows, steps=steps)
    assert state.epoch == 1
    rows, _ = rows_of(windows, steps=1, state=state)
    assert rows == windows.batch(range(BATCH), epoch=1).targets.tolist()


def test_a_batch_may_span_two_epochs(corpus_of):
    windows = Windows(corpus_of([b"abcdef"]), length=1)  # 7 windows
    rows, state = rows_of(windows, steps=2)
    assert rows[:7] == windows.batch(range(7), epoch=0).targets.tolist()
    assert rows[7:] == windows.batch([0], epoch=1).targets.tolist()
    assert (state.samples, state.epoch) == (8, 1)


def test_a_corpus_smaller_than_a_batch_repeats_by_epochs(corpus_of):
    windows = Windows(corpus_of([b"x"]), length=8)
    rows, state = rows_of(windows, steps=3)
    assert len(rows) == 12 and state.epoch == 12


def test_the_state_is_small(windows):
    skip = tuple((10**15 + i, 10**15 + i + 1) for i in range(16))
    state = DataState(samples=10**18, epoch=10**9, seed=2**63, fingerprint="f" * 32, skip=skip)
    assert len(state.to_json()) < 1024
    assert DataState.from_json(state.to_json()) == state


@given(
    skip=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])),
        max_size=5,
    ),
    steps=st.integers(1, 10),
)
def test_skipped_samples_are_left_out_and_nothing_else(skip, steps):
    state, taken = DataState(skip=tuple(skip)), []
    for _ in range(steps):
        samples, position = state.take(BATCH)
        taken += samples.tolist()
        state = DataState(samples=position, skip=state.skip)
    allowed = (i for i in range(10**6) if not any(a <= i < b for a, b in skip))
    assert taken == list(islice(allowed, steps * BATCH))


def test_data_that_changed_is_refused(windows, corpus_of):
    _, state = rows_of(windows, steps=1)
    other = Windows(windows.corpus, length=6, seed=9)
    with pytest.raises(DataError, match="belongs to other data"):
        BatchStream(other, batch_windows=BATCH, state=state)


def test_a_batch_that_ranks_cannot_share_is_refused(windows):
    with pytest.raises(DataError, match="multiple of 3"):
        BatchStream(windows, batch_windows=4, world_size=3)


def test_a_broken_state_is_refused():
    for text in ("{", "[]", '{"samples": 1}', '{"skip": [], "what": 2}'):
        with pytest.raises(DataError, match="not a stored data position"):
            DataState.from_json(text)


def test_workers_leave_the_global_generator_alone(windows):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rows_of(windows, steps=2, workers=1)
    assert torch.equal(before, torch.get_rng_state())


def anonymous_mib(pid: int | None) -> float:
    """Memory of a process that no file backs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells it")
def test_memory_stays_flat_over_an_epoch_with_four_workers(tmp_path):
    (tmp_path / "bytes").write_bytes(random.Random(0).randbytes(128 << 20))
    windows = Windows(Corpus.open(tmp_path / "bytes"), length=8192)
    stream = iter(BatchStream(windows, batch_windows=32, num_workers=4))
    held = []
    for steps in (50, windows.count // 32 - 50):
        for _ in islice(stream, steps):
            pass
        workers = multiprocessing.active_children()
        assert len(workers) == 4
        held.append([anonymous_mib(p.pid) for p in (multiprocessing.current_process(), *workers)])
    growth = [after - before for before, after in zip(*held, strict=True)]
    assert max(growth) < 30, held


def test_mixture_keeps_its_shares_and_uses_each_window_once_an_epoch(corpus_of):
    first = Windows(corpus_of([b"a" * 99]), length=5)
    mixture = Mixture([first, first], weights=[0.75, 0.25])
    source, local = mixture.locate(range(10_000))
    for i, share in enumerate((0.75, 0.25)):
        own = local[source == i]
        assert own.tolist() == list(range(len(own)))
        counts = (source == i).cumsum()
        steps = torch.arange(1, 10_001).numpy()
        assert abs(counts - share * steps).max() <= 1


def test_mixture_resumes_exactly_with_other_ranks(corpus_of, tmp_path):
    corpora = [Windows(corpus_of([TEXT]), length=5, seed=3)]
    (tmp_path / "other").write_bytes(b"other text" * 9)
    from bytelm.data import Corpus

    corpora.append(Windows(Corpus.open(tmp_path / "other"), length=5, seed=4))
    mixture = Mixture(corpora, weights=[2, 1])
    expected, _ = rows_of(mixture, steps=40)
    first, state = rows_of(mixture, steps=13, ranks=2)
    second, _ = rows_of(mixture, steps=27, ranks=4, state=state)
    assert first + second == expected


def test_mixture_refuses_weights_that_give_nothing(windows):
    with pytest.raises(DataError, match="gives no rows"):
        Mixture([windows, windows], weights=[1, 1e-9])
    with pytest.raises(DataError, match="not negative"):
        Mixture([windows], weights=[-1])


def _fixed_windows(policy):
    import tempfile
    from pathlib import Path

    from bytelm.data import Corpus

    path = Path(tempfile.mkdtemp()) / "text"
    path.write_bytes(TEXT)
    return Windows(Corpus.open(path), length=5, seed=9, policy=policy)
