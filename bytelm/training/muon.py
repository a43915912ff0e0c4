"""Muon: momentum steps of hidden matrices, orthogonalised, written out in batched products.

The products are what costs (they were a quarter to two fifths of a training step of few bytes), so
three things differ from the published loop. Matrices of one shape are stacked and multiplied
together. The four quintics are those with the least error on singular values from 0.003 to 1,
where they end within [0.8, 1.2] (0.77 with the margin below); the five equal ones of Jordan et al.
end within [0.68, 1.2] there and cost a quarter more. And wide matrices are iterated as their Gram
matrix, a function of which the result is: with G = X X^T and p(G) = a I + b G + c G^2, one step is
X <- p(G) X, G <- p(G) G p(G), so only the first and the last product are as wide as X. The last one
is added to the weights where it is made.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bytelm.training.distributed import shard_like, whole

# (a, b, c) of a x + b x^3 + c x^5, step by step: each minimises the largest |1 - y| over the range
# in which the step before it left the values, from [0.003, 1] on (the greedy composition that Amsel
# et al. 2025, arXiv:2505.16932, prove optimal). tests/training/test_muon.py derives them again.
QUINTICS = (
    (8.383673612923168, -24.765905857974545, 18.357081892887603),
    (4.043420433700429, -3.011404993841535, 0.5695121503191828),
    (3.5055706172438943, -2.6266538356181033, 0.5257194048203228),
    (2.490115939444254, -1.8342750827526708, 0.4368347068954249),
)
# Past the end of the range it was made for a quintic grows fast, and rounding to bfloat16 takes the
# largest singular values there: the update of a gradient with one direction above all others came
# out 70 times too large. So each quintic is taken of x / margin.
_MARGIN = 1.02
_SAFE = tuple((a / _MARGIN, b / _MARGIN**3, c / _MARGIN**5) for a, b, c in QUINTICS)
# The Gram matrix squares what rounding does to small singular values; after so many steps in
# bfloat16 (epsilon 2^-8) it is taken again from the matrix itself.
_BFLOAT16_STEPS = 2
_WIDE = 1.5  # columns per row from which the Gram form has fewer operations, whatever the steps


def orthogonalise(x_BMN: Tensor) -> Tensor:
    """Roughly U V^T of the singular value decomposition x = U S V^T of each matrix (..., M, N), in
    the dtype of x: singular values above 0.003 of the Frobenius norm end within [0.77, 1.2]."""
    tall = x_BMN.shape[-2] > x_BMN.shape[-1]
    left, right = _factors(x_BMN.mT if tall else x_BMN)
    return right.mT @ left if tall else left @ right  # `left` is symmetric


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., M, M) symmetric and (..., M, N), M <= N, whose product is `orthogonalise(x)`."""
    rows, columns = x.shape[-2:]
    # the division by the norm is left to the small matrices
    norm = torch.linalg.matrix_norm(
        x, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    inverse = 1 / (norm + 1e-7)
    at_once = 1
    if columns > _WIDE * rows:
        at_once = _BFLOAT16_STEPS if x.dtype == torch.bfloat16 else len(_SAFE)
    left, right = None, x
    for first in range(0, len(_SAFE), at_once):
        if left is not None:
            right = left @ right
        gram = right @ right.mT
        if left is None:
            gram = gram.mul_(inverse.square())
        steps = _gram_steps(gram, _SAFE[first : first + at_once])
        left = (steps * inverse).to(x.dtype) if left is None else steps
    assert left is not None
    return left, right


def _polynomial(gram: Tensor, quintic: Sequence[float]) -> Tensor:
    """a I + b G + c G^2 for Gram matrices (..., M, M)."""
    a, b, c = quintic
    result = (gram @ gram).mul_(c).add_(gram, alpha=b)
    result.diagonal(dim1=-2, dim2=-1).add_(a)
    return result


def _gram_steps(gram: Tensor, quintics: Sequence[Sequence[float]]) -> Tensor:
    """What the steps multiply a matrix by, from its Gram matrix (..., M, M) alone."""
    total = step = _polynomial(gram, quintics[0])
    for quintic in quintics[1:]:
        gram = step @ gram @ step
        step = _polynomial(gram, quintic)
        total = step @ total
    return total


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), with decoupled weight decay.

        m <- momentum * m + g;   u = orthogonalise(g + momentum * m)      (Nesterov)
        w <- w * (1 - lr * weight_decay) - lr * sqrt(max(1, rows / columns)) * u

    The scale is Jordan's: the update's spectral norm is lr times that of a random matrix's shape
    ratio, so one `lr` fits all widths. `dtype` is that of the products; bfloat16 is enough, and
    several times as fast where the processor has it.
    """

    def __init__(
        self,
        params: Iterable,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = {}
            for w_MN in group["params"]:
                if w_MN.grad is not None:
                    rows, columns = w_MN.shape
                    alike.setdefault((rows, columns), []).append(w_MN)
            for weights in alike.values():
                self._update(weights, group)

    def _update(self, weights: list[nn.Parameter], group: Mapping) -> None:
        """The weights of one shape."""
        rows, columns = weights[0].shape
        kept = 1 - group["lr"] * group["weight_decay"]
        step = -group["lr"] * max(1.0, rows / columns) ** 0.5
        directions = self._directions(weights, group["momentum"])
        if not _is_plain(weights) or self.dtype != weights[0].dtype:
            updates = orthogonalise(directions.to(self.dtype))
            for w_MN, update in zip(weights, updates, strict=True):
                w_MN.mul_(kept)
                w_MN.add_(shard_like(update.to(w_MN.dtype), w_MN), alpha=step)
            return
        tall = rows > columns
        factors = _factors(directions.mT if tall else directions)
        for w_MN, left, right in zip(weights, *factors, strict=True):
            w_MN.addmm_(*((right.mT, left) if tall else (left, right)), beta=kept, alpha=step)

    def _directions(self, weights: list[nn.Parameter], momentum: float) -> Tensor:
        """m <- momentum * m + g, and g + momentum * m of all weights, (n, M, N); of the whole of
        each, also where each rank holds a shard of it."""
        gradients = [w.grad for w in weights if w.grad is not None]
        averages = [self._average(w) for w in weights]
        if not _is_plain(weights):
            for average, g in zip(averages, gradients, strict=True):
                average.mul_(momentum).add_(g)
            pairs = zip(gradients, averages, strict=True)
            return torch.stack([whole(torch.add(g, m, alpha=momentum)) for g, m in pairs])
        result = averages[0].new_empty(len(weights), *weights[0].shape)
        for g, average, out in zip(gradients, averages, result, strict=True):
            torch.add(g, average, alpha=momentum, out=average)
            torch.add(g, average, alpha=momentum, out=out)
        return result

    def _average(self, w_MN: nn.Parameter) -> Tensor:
        state = self.state[w_MN]
        if not state:
            state["momentum"] = torch.zeros_like(w_MN)
        return state["momentum"]


def _is_plain(weights: Iterable[nn.Parameter]) -> bool:
    """Whether the weights are whole here, and no shards."""
    return all(type(w) is nn.Parameter for w in weights)
