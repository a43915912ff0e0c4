"""A rule that teaches the router cuts in training, for its share of it, and nowhere else."""

import pytest
import torch

from bytelm.data.batch import Batch
from bytelm.errors import RecipeError
from bytelm.nn.boundaries import space_like
from bytelm.nn.chunking import imitation_loss
from bytelm.recipe import Recipe
from tests.arch.cases import CASES
from tests.arch.test_settings import build

TEXT = b"the cat, and then the other one; it was there. "
TAUGHT = {**CASES["hnet-1stage"][1], "taught_by": ["space"], "taught_fraction": 0.5}


def batch() -> Batch:
    ids = torch.tensor([list(TEXT)])
    return Batch(ids=ids, targets=ids.roll(-1, 1))


def share(model) -> float:
    return float(model(batch()).stats["stage0/F"])


def test_the_teacher_cuts_until_its_share_of_training_is_over_and_never_in_evaluation():
    model = build("hnet", TAUGHT).double()
    ids = batch().ids
    spaces = space_like(ids)
    before = torch.cat((torch.zeros_like(spaces[:, :1]), spaces[:, :-1]), dim=1)
    starts = spaces & ~before
    starts[:, 0] = True
    model.train()
    model.progress(0.49)
    assert share(model) == pytest.approx(starts.double().mean().item())
    assert set(model(batch()).aux) == {"imitation0"}
    own = share(model.eval())
    assert own != pytest.approx(starts.double().mean().item())
    model.train()
    model.progress(0.5)
    assert share(model) == own
    assert set(model(batch()).aux) == {"ratio0"}


def test_the_router_learns_to_cut_as_it_is_taught():
    model = build("hnet", TAUGHT).train()
    model.progress(0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        output = model(batch())
        loss = output.loss + sum(output.aux.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(output.aux["imitation0"].item())
    taught = share(model)
    assert losses[-1] < losses[0] / 10
    assert share(model.eval()) == pytest.approx(taught, abs=0.03)


def test_imitation_loss_is_the_squared_shortfall_of_a_margin_over_valid_positions():
    p = torch.tensor([[0.9, 0.6, 0.5, 0.1, 0.7]])
    starts = torch.tensor([[True, True, False, False, False]])
    valid = torch.tensor([[True, True, True, True, False]])
    want = (0.15**2 + 0.25**2) / 4  # 0.6 should be 0.75, 0.5 should be 0.25
    assert imitation_loss(p, starts, valid).item() == pytest.approx(want, rel=1e-5)
    assert imitation_loss(starts.float(), starts, None).item() == 0


def test_teaching_needs_learned_boundaries_and_both_settings():
    base = {
        "model": {"arch": "hnet", **CASES["hnet-1stage"][1]},
        "data": {"train": ["a"]},
        "train": {"steps": 1},
    }
    for more, message in (
        ({"taught_by": ["space"]}, "go together"),
        ({"taught_by": ["space"], "taught_fraction": 0.5, "boundaries": ["fixed"]}, "learned"),
        ({"taught_by": ["space", "fixed"], "taught_fraction": 0.5}, "2 entries"),
    ):
        with pytest.raises(RecipeError, match=message):
            _ = Recipe.from_dict({**base, "model": {**base["model"], **more}}).arch_config
