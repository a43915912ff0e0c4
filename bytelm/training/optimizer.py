"""Optimizers and parameter groups, from the roles the model gives its parameters.

One rule decides the group of a parameter (`parameter_groups`), and it never lets weight decay touch
anything with ndim <= 1. Muon is written out here: an orthogonalised momentum step for hidden
matrices; everything else is torch's fused AdamW. `Optimizers` makes the two look like one, with its
state under parameter names, so that a checkpoint can be read back into any number of processes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.arch.base import ByteModel
from bytelm.recipe_sections import AdamWSettings, MuonSettings
from bytelm.training.distributed import shard_like, whole


@dataclass(frozen=True)
class GroupKey:
    """What the parameters of one group share."""

    muon: bool
    lr_multiplier: float
    decay: bool


def parameter_groups(
    model: ByteModel, *, muon: bool
) -> dict[GroupKey, list[tuple[str, nn.Parameter]]]:
    """Every trainable parameter in exactly one group, in the model's order.

    muon: whether hidden matrices go to Muon. Shared parameters are listed once, under their first
    name.
    """
    groups: dict[GroupKey, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        role = model.parameter_role(name, parameter)
        assert parameter.ndim > 1 or not role.decay, f"{name} has ndim <= 1 and must not decay"
        assert role.kind != "matrix" or parameter.ndim == 2, f"{name} is no matrix"
        key = GroupKey(muon and role.kind == "matrix", role.lr_multiplier, role.decay)
        groups.setdefault(key, []).append((name, parameter))
    return groups


# Newton-Schulz quintic a x + b x^3 + c x^5 chosen for the largest slope at 0: five steps bring
# every singular value above about 0.01 into [0.7, 1.2] (Jordan et al. 2024, "Muon", section
# "Newton-Schulz iteration").
_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(x_MN: Tensor, *, steps: int = 5) -> Tensor:
    """Roughly U V^T of the singular value decomposition x = U S V^T, in the dtype of `x_MN`."""
    a, b, c = _NS_COEFFICIENTS
    y = x_MN / (torch.linalg.matrix_norm(x_MN) + 1e-7)
    tall = y.shape[0] > y.shape[1]
    y = y.T if tall else y
    for _ in range(steps):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.T if tall else y


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), with decoupled weight decay.

        m <- momentum * m + g;   u = orthogonalise(g + momentum * m)      (Nesterov)
        w <- w * (1 - lr * weight_decay) - lr * sqrt(max(1, rows / columns)) * u

    The scale is Jordan's: the update's spectral norm is lr times that of a random matrix's shape
    ratio, so one `lr` fits all widths. `dtype` is that of the Newton-Schulz products; bfloat16 is
    enough, and 3 to 6 times as fast where the processor has it.
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
            for w_MN in group["params"]:
                if w_MN.grad is not None:
                    self._update(w_MN, group)

    def _update(self, w_MN: Tensor, group: Mapping) -> None:
        state = self.state[w_MN]
        if not state:
            state["momentum"] = torch.zeros_like(w_MN)
        assert w_MN.grad is not None
        momentum = state["momentum"].mul_(group["momentum"]).add_(w_MN.grad)
        direction = torch.add(w_MN.grad, momentum, alpha=group["momentum"])
        update = self._orthogonal(direction)
        rows, columns = w_MN.shape
        w_MN.mul_(1 - group["lr"] * group["weight_decay"])
        w_MN.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _orthogonal(self, direction: Tensor) -> Tensor:
        """`orthogonalise`, of the whole matrix also when each rank holds a shard of it."""
        update = orthogonalise(whole(direction).to(self.dtype)).to(direction.dtype)
        return shard_like(update, direction)


class Optimizers:
    """The optimizers of one run behind one step, with state by parameter name."""

    def __init__(self, model: ByteModel, recipe: AdamWSettings, *, muon_dtype: torch.dtype):
        groups = parameter_groups(model, muon=isinstance(recipe, MuonSettings))
        self.names = {p: name for group in groups.values() for name, p in group}
        self.parts: list[torch.optim.Optimizer] = []
        if adamw := [(k, g) for k, g in groups.items() if not k.muon]:
            self.parts.append(
                torch.optim.AdamW(
                    _torch_groups(adamw, lr=recipe.lr, weight_decay=recipe.weight_decay),
                    lr=recipe.lr,
                    betas=(recipe.betas[0], recipe.betas[1]),
                    eps=recipe.eps,
                    fused=True,
                )
            )
        if muon := [(k, g) for k, g in groups.items() if k.muon]:
            assert isinstance(recipe, MuonSettings)
            self.parts.append(
                Muon(
                    _torch_groups(muon, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
                    lr=recipe.muon_lr,
                    momentum=recipe.momentum,
                    weight_decay=recipe.weight_decay,
                    dtype=muon_dtype,
                )
            )

    def step(self, lr_factor: float) -> None:
        """One update at `lr_factor` times each group's own learning rate; clears gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * lr_factor
            part.step()
            part.zero_grad(set_to_none=True)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The live state tensors, "PARAMETER/STATE" -> tensor; made (as zeros) if still missing."""
        return {
            f"{self.names[p]}/{key}": value
            for part in self.parts
            for p in _parameters(part)
            for key, value in _ensure_state(part, p).items()
        }


def _torch_groups(
    groups: list[tuple[GroupKey, list[tuple[str, nn.Parameter]]]], *, lr: float, weight_decay: float
) -> list[dict]:
    return [
        {
            "params": [p for _, p in members],
            "base_lr": lr * key.lr_multiplier,
            "weight_decay": weight_decay if key.decay else 0.0,
        }
        for key, members in groups
    ]


def _parameters(part: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    return (p for group in part.param_groups for p in group["params"])


def _ensure_state(part: torch.optim.Optimizer, p: nn.Parameter) -> dict[str, Tensor]:
    """The state of one parameter as its optimizer makes it at the first step, before any step."""
    state = part.state[p]
    if not state and isinstance(part, Muon):
        state["momentum"] = torch.zeros_like(p)
    elif not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return state
