"""The key/value cache against lists of rows: any series of operations, across its growth."""

import pytest
import torch

from bytelm.nn.cache import KVCache

HEADS, WIDTH = 2, 3
Row = list[torch.Tensor]  # one (HEADS, WIDTH) key per position


def empty(rows: int) -> KVCache:
    return KVCache.empty(rows, HEADS, WIDTH, dtype=torch.float64, device=torch.device("cpu"))


def assert_holds(cache: KVCache, rows: list[Row]) -> None:
    assert cache.lengths.tolist() == [len(row) for row in rows]
    if not any(rows):
        return
    keys, values = cache.read()
    for b, row in enumerate(rows):
        for t, key in enumerate(row):
            assert torch.equal(keys[b, :, t], key) and torch.equal(values[b, :, t], -key)


def grown(cache: KVCache, rows: list[Row], generator: torch.Generator) -> tuple[KVCache, list[Row]]:
    """The cache and the lists after 0 to 40 more positions in each row."""
    L = int(torch.randint(1, 41, (1,), generator=generator))
    keys = torch.randn(len(rows), HEADS, L, WIDTH, dtype=torch.float64, generator=generator)
    counts = torch.randint(0, L + 1, (len(rows),), generator=generator)
    more = [[*row, *keys[b, :, : counts[b]].unbind(1)] for b, row in enumerate(rows)]
    return cache.append(keys, -keys, counts), more


@pytest.mark.parametrize("seed", range(30))
def test_any_operations_give_the_rows_they_say_and_leave_older_caches_as_they_were(seed):
    generator = torch.Generator().manual_seed(seed)

    def some(count: int, below: int) -> torch.Tensor:
        return torch.randint(0, below, (count,), generator=generator)

    known: list[tuple[KVCache, list[Row]]] = [(empty(3), [[], [], []])]
    for _ in range(25):
        cache, rows = known[int(some(1, len(known)))]
        kind = int(some(1, 4))
        if kind == 0:
            chosen = some(3, len(rows))
            known.append((cache.select(chosen), [rows[b] for b in chosen]))
        elif kind == 1:
            others = [known[int(i)] for i in some(2, len(known))]
            joined = cache.join([other for other, _ in others])
            known.append((joined, [row for _, more in [(cache, rows), *others] for row in more]))
        elif kind == 2:  # some rows go their own way and are put back
            places = torch.randperm(len(rows), generator=generator)[:2]
            part, new = grown(cache.view(places), [rows[b] for b in places], generator)
            if some(1, 2):  # a window slid: they begin again, perhaps shorter than they were
                part, new = grown(empty(len(places)), [[] for _ in places], generator)
            mixed = dict(zip(places.tolist(), new, strict=True))
            back = [mixed.get(b, row) for b, row in enumerate(rows)]
            known.append((cache.scatter(places, part), back))
        else:
            known.append(grown(cache, rows, generator))
        known = [pair for pair in known if len(pair[1]) <= 24]
        for pair in known:
            assert_holds(*pair)
