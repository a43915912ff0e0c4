"""Texts of several windows, for every causal architecture, on both sides of the cache's growth.

Caches grow in units of 64 positions and shrink when a window slides, so the windows stand below,
at and above that unit and its double, and the rows of a batch slide at different times.
"""

import pytest
import torch

from bytelm.lm.native import NativeLM
from bytelm.registry import architecture
from tests.arch.cases import CASES, make

CAUSAL = [name for name, (arch, _) in CASES.items() if architecture(arch).family == "causal"]


def pieces(generator: torch.Generator, rows: int, window: int) -> list[int]:
    """How many bytes each row is fed next: often one each, else none, a few or many."""
    if torch.rand((), generator=generator) < 0.4:
        return [1] * rows
    sizes = torch.tensor([0, 1, 2, 2 + window // 6])
    return sizes[torch.randint(len(sizes), (rows,), generator=generator)].tolist()


@pytest.mark.parametrize("window", [8, 63, 64, 65, 127, 200])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_rows_that_slide_at_different_times_are_scored_as_whole_texts(name, window):
    lm = NativeLM(make(name), window=window)
    generator = torch.Generator().manual_seed(window)
    ids = torch.randint(0, 256, (3, 3 * window), generator=generator).tolist()
    texts = [bytes(row) for row in ids]
    expected = lm.score_batch_with_end(texts)
    at = [0, window // 3, window + 5]
    state = lm.start_batch([text[:n] for text, n in zip(texts, at, strict=True)])
    while min(at) < 3 * window:
        logprobs = state.logprobs()
        for b, n in enumerate(at):
            outcome = texts[b][n] if n < len(texts[b]) else 256
            assert abs(float(logprobs[b, outcome] - expected[b][n])) < 1e-9, (b, n)
        sizes = pieces(generator, 3, window)
        state = state.feed([t[n : n + k] for t, n, k in zip(texts, at, sizes, strict=True)])
        at = [min(n + k, len(t)) for t, n, k in zip(texts, at, sizes, strict=True)]
