"""The sampling order: a bijection for every size, different per epoch, spread evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.order import Draws, permute


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**64), epoch=st.integers(0, 10**9))
def test_every_index_is_visited_once(size, seed, epoch):
    visited = permute(np.arange(size), size=size, key=(seed, epoch))
    assert sorted(visited.tolist()) == list(range(size))


def test_any_index_can_be_asked_for_alone():
    whole = permute(np.arange(1000), size=1000, key=(3, 1))
    alone = [permute(np.array([i]), size=1000, key=(3, 1))[0] for i in (0, 999, 17)]
    assert alone == [whole[0], whole[999], whole[17]]


def test_order_differs_between_epochs_and_seeds():
    orders = [
        permute(np.arange(100), size=100, key=key).tolist() for key in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_an_index_lands_anywhere_with_equal_chance():
    # Index 0 under 4000 keys: each of 8 places expects 500, standard deviation 21.
    places = [int(permute(np.array([0]), size=8, key=(0, e))[0]) for e in range(4000)]
    assert all(400 < count < 600 for count in np.bincount(places, minlength=8))


def test_neighbours_do_not_stay_neighbours():
    order = permute(np.arange(100_000), size=100_000, key=(0, 0))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert (np.diff(order) == 1).sum() < 10


def test_indices_outside_the_range_are_refused():
    with pytest.raises(IndexError):
        permute(np.array([5]), size=5, key=(0,))


def test_draws_are_uniform_and_named():
    draws = Draws("test", 0)
    values = np.array([draws.uniform(i, k) for i in range(500) for k in range(4)])
    assert abs(values.mean() - 0.5) < 0.03 and abs(values.var() - 1 / 12) < 0.01
    assert {draws.integer(i, 0, below=3) for i in range(50)} == {0, 1, 2}
    assert draws.word(1, 2) != draws.word(2, 1)
