"""Muon: its polynomials derived again, singular values and vectors, and the documented step."""

import numpy as np
import pytest
import torch

from bytelm.training import muon
from bytelm.training.muon import QUINTICS, Muon, orthogonalise


def best_quintic(low: float, high: float) -> tuple[np.ndarray, float]:
    """Coefficients of the odd quintic with the least max |1 - p(x)| on [low, high], and that error:
    Remez' exchange on the four points where the error alternates."""
    points = np.linspace(low, high, 4)
    for _ in range(100):
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        system = np.stack([points, points**3, points**5, signs], axis=1)
        *quintic, error = np.linalg.solve(system, np.ones(4))
        a, b, c = quintic
        root = np.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
        points = np.array([low, *np.sort(inner), high])
    return np.array(quintic), abs(error)


def test_the_quintics_are_the_greedy_best_from_0_003_on():
    low, high = 0.003, 1.0
    for stored in QUINTICS:
        quintic, error = best_quintic(low, high)
        np.testing.assert_allclose(stored, quintic, rtol=1e-8)
        low, high = 1 - error, 1 + error
    assert (round(low, 1), round(high, 1)) == (0.8, 1.2)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16), (1, 9), (3, 16, 48), (2, 20, 24)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalise_keeps_singular_vectors_and_makes_values_nearly_one(shape, scale):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * scale
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    rotated = left.mT @ orthogonalise(x) @ right.mT
    diagonal = rotated.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(rotated, torch.diag_embed(diagonal), rtol=0, atol=1e-5)
    large = values > 0.003 * torch.linalg.matrix_norm(x)[..., None]
    assert diagonal[large].min() > 0.77 and diagonal.max() < 1.2 + 1e-3


def ill_conditioned(rows: int, columns: int) -> torch.Tensor:
    """Singular values from 1 down to 1e-6, evenly in the logarithm; Frobenius norm about 2."""
    generator = torch.Generator().manual_seed(3)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, rows, generator=generator, dtype=torch.float64))
    return left @ torch.diag(torch.logspace(0, -6, rows, dtype=torch.float64)) @ right.mT


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-3), (torch.bfloat16, 0.35)])
def test_the_gram_form_survives_rounding(dtype, atol):
    """Small singular values are squared below the rounding of the Gram matrix."""
    x = ill_conditioned(64, 192)
    exact, rounded = orthogonalise(x), orthogonalise(x.to(dtype)).double()
    assert torch.linalg.matrix_norm(rounded - exact, ord=2) < atol
    assert torch.linalg.matrix_norm(rounded, ord=2) < 1.3


@pytest.mark.parametrize("rest", [0.0, 1e-3, 3e-3, 1e-2])
@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (96, 64), (256, 320)])
def test_one_direction_above_all_others_makes_no_large_step_in_bfloat16(shape, rest):
    """Rounding takes the largest singular value past 1, where the quintics grow fast."""
    generator = torch.Generator().manual_seed(5)
    left, right = (
        torch.linalg.qr(torch.randn(n, min(shape), generator=generator))[0] for n in shape
    )
    values = torch.full((min(shape),), rest)
    values[0] = 1.0
    update = orthogonalise(((left * values) @ right.mT).bfloat16())
    assert torch.linalg.matrix_norm(update.float(), ord=2) < 1.3


@pytest.mark.parametrize("shape", [(48, 16), (24, 24), (16, 80)])
def test_the_two_forms_agree(shape, monkeypatch):
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = []
    for wide in (0.0, 1e9):
        monkeypatch.setattr(muon, "_WIDE", wide)
        found.append(orthogonalise(x))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-8)


def test_a_muon_step_is_the_documented_formula():
    generator = torch.Generator().manual_seed(2)
    weights = [
        torch.nn.Parameter(torch.randn(*shape, generator=generator).double())
        for shape in ((48, 12), (12, 30), (48, 12), (5, 5))
    ]
    optimizer = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.2, dtype=torch.float64)
    averages = [torch.zeros_like(w) for w in weights]
    for step in range(3):
        before = [w.detach().clone() for w in weights]
        for w in weights:
            w.grad = torch.randn(*w.shape, generator=generator).double()
        if step == 2:
            weights[0].grad = None  # left as it is
        optimizer.step()
        for w, old, average in zip(weights, before, averages, strict=True):
            if w.grad is None:
                assert torch.equal(w, old)
                continue
            average.mul_(0.9).add_(w.grad)
            update = orthogonalise(w.grad + 0.9 * average)
            scale = 0.1 * max(1.0, w.shape[0] / w.shape[1]) ** 0.5
            expected = old * (1 - 0.1 * 0.2) - scale * update
            torch.testing.assert_close(w.detach(), expected, rtol=1e-9, atol=1e-9)
