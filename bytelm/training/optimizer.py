"""Optimizers and parameter groups, from the roles the model gives its parameters.

One rule decides the group of a parameter (`parameter_groups`), and it never lets weight decay touch
anything with ndim <= 1. Hidden matrices may go to Muon (`training/muon.py`); everything else is
torch's fused AdamW. `Optimizers` makes the two look like one, with its state under parameter names,
so that a checkpoint can be read back into any number of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.arch.base import ByteModel
from bytelm.recipe_sections import AdamWSettings, MuonSettings
from bytelm.training.muon import Muon


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
