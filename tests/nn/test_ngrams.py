"""N-gram rows are a function of the last n symbols of the document, and of nothing else."""

import numpy as np
import pytest
import torch

from bytelm.nn.ngrams import BEFORE, PRIMES, NGramTables, PolynomialTables

SIZES = (2, 3, 5)


def rows(tables: NGramTables, ids: list[int], documents: list[int] | None = None) -> torch.Tensor:
    given = None if documents is None else torch.tensor([documents])
    return tables.rows_of(torch.tensor([ids]), tables.empty_tail(1), given)[0]


def test_equal_rows_are_equal_n_grams_and_no_others():
    """With a table large enough that no two of these n-grams collide."""
    tables = NGramTables(SIZES, 1 << 20, 1)
    ids = torch.randint(0, 3, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    found = rows(tables, ids)
    padded = [BEFORE] * 4 + ids
    for column, n in enumerate(SIZES):
        grams = [tuple(padded[t + 5 - n : t + 5]) for t in range(len(ids))]
        by_row: dict[int, set[tuple[int, ...]]] = {}
        for gram, row in zip(grams, found[:, column].tolist(), strict=True):
            assert column << 20 <= row < (column + 1) << 20
            by_row.setdefault(row, set()).add(gram)
        assert all(len(same) == 1 for same in by_row.values())
        assert len(by_row) == len(set(grams))


def test_rows_spread_over_a_small_table():
    tables = NGramTables((4,), 64, 1)
    ids = torch.randint(0, 256, (8000,), generator=torch.Generator().manual_seed(1)).tolist()
    counts = torch.bincount(rows(tables, ids)[:, 0], minlength=64)
    assert counts.min() > 80 and counts.max() < 175  # 125 each on average; 4.5 deviations


def test_symbols_of_another_document_do_not_count():
    tables = NGramTables(SIZES, 1 << 16, 1)
    together = rows(tables, [5, 6, 7, 5, 6], [0, 0, 0, 1, 1])
    torch.testing.assert_close(together[3:], rows(tables, [5, 6]))


def test_a_single_position_reads_the_rows_it_reads_among_others():
    tables = NGramTables(SIZES, 1 << 16, 1)
    ids = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    found, padded = rows(tables, ids), [BEFORE] * 4 + ids
    for t, expected in enumerate(found.tolist()):
        assert tables.rows_after(padded[t : t + 5][::-1]) == expected


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 8])
def test_a_text_in_two_parts_reads_the_same_rows(cut):
    tables = NGramTables(SIZES, 1 << 16, 1)
    ids = torch.tensor([[1, 2, 3, 1, 2, 3, 4, 9], [9, 9, 9, 9, 1, 2, 0, 0]])
    tail = tables.empty_tail(2)
    whole = tables.rows_of(ids, tail, None)
    after = tables.new_tail(tail, ids[:, :cut], None)
    parts = tables.rows_of(ids[:, :cut], tail, None), tables.rows_of(ids[:, cut:], after, None)
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_an_untrained_table_adds_nothing_and_learns_only_the_rows_it_read():
    tables = NGramTables(SIZES, 100, 4)
    ids = torch.tensor([[1, 2, 3]])
    out = tables(ids, tables.empty_tail(1))
    assert out.shape == (1, 3, 4) and not out.any()
    out.sum().backward()
    read = set(tables.rows_of(ids, tables.empty_tail(1), None).flatten().tolist())
    assert set(tables.table.weight.grad.abs().sum(1).nonzero().flatten().tolist()) == read


def numpy_rows(ids: list[int], sizes: tuple[int, ...], rows: int, functions: int) -> np.ndarray:
    """BLT's hash as its formula stands, in numpy's int64, which wraps around."""
    found = np.empty((len(ids), functions * len(sizes)), np.int64)
    with np.errstate(over="ignore"):
        for f, prime in enumerate(PRIMES[:functions]):
            for s, n in enumerate(sizes):
                powers = np.ones(n, np.int64)
                for i in range(1, n):
                    powers[i] = powers[i - 1] * np.int64(prime)
                padded = np.array([0] * (n - 1) + ids, np.int64)
                for t in range(len(ids)):
                    table = f * len(sizes) + s
                    total = (padded[t : t + n] * powers).sum(dtype=np.int64)
                    found[t, table] = total % rows + rows * table
    return found


@pytest.mark.parametrize("functions", [1, 3, len(PRIMES)])
def test_hashes_of_released_tables_wrap_around_like_64_bit_integers(functions):
    sizes, rows = (3, 4, 5, 6, 7, 8), 500_002
    tables = PolynomialTables(sizes, rows, 1, symbols=range(260), functions=functions)
    ids = torch.randint(0, 260, (1, 300), generator=torch.Generator().manual_seed(0))
    expected = numpy_rows(ids[0].tolist(), sizes, rows, functions)
    found = tables.rows_of(ids, tables.empty_tail(1), None)
    assert np.array_equal(found[0].numpy(), expected)
    padded = [0] * 7 + ids[0].tolist()
    for t in range(0, 300, 7):  # one position at a time, by whole numbers of Python
        latest = ids[0, max(0, t - 7) : t + 1].tolist()[::-1]
        latest += [BEFORE] * (8 - len(latest))
        assert tables.rows_after(latest) == expected[t].tolist()
    exact = padded[20] * PRIMES[0] ** 7
    assert exact > 2**63, "nothing wrapped around"
