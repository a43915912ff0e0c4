"""Parameter groups partition the parameters; Muon's step is the orthogonal factor of its input."""

import pytest
import torch

from bytelm import registry
from bytelm.recipe_sections import AdamWSettings, MuonSettings
from bytelm.training.optimizer import Optimizers, parameter_groups
from bytelm.vocab import ByteVocab

CONFIGS = {
    "transformer": {"layers": 1, "d_model": 16, "heads": 2},
    "hnet": {
        "layout": ["m1", ["T1"], "m1"],
        "d_model": [16, 32],
        "d_intermediate": [0, 32],
        "num_heads": [0, 2],
        "d_state": 8,
        "head_dim": 8,
        "target": [3.0],
        "lr_multipliers": [2.0, 1.0],
    },
}


def make(arch: str) -> torch.nn.Module:
    cls = registry.architecture(arch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(cls.Config(**CONFIGS[arch]), ByteVocab())


@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize("arch", CONFIGS)
def test_every_parameter_is_in_exactly_one_group(arch, muon):
    model = make(arch)
    groups = parameter_groups(model, muon=muon)
    members = [id(p) for group in groups.values() for _, p in group]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    for key, group in groups.items():
        for name, p in group:
            role = model.parameter_role(name, p)
            assert key.lr_multiplier == role.lr_multiplier
            assert key.muon == (muon and role.kind == "matrix")
            assert not (key.decay and p.ndim <= 1)


def test_frozen_parameters_are_left_out():
    model = make("transformer")
    model.embeddings.weight.requires_grad_(False)
    names = {name for group in parameter_groups(model, muon=True).values() for name, _ in group}
    assert "embeddings.weight" not in names and "lm_head.weight" in names


@pytest.mark.parametrize("recipe", [AdamWSettings(kind="adamw"), MuonSettings(kind="muon")])
def test_learning_rates_follow_multipliers_and_decay_spares_vectors(recipe):
    model = make("hnet")
    optimizers = Optimizers(model, recipe, muon_dtype=torch.float32)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers.step(0.5)
    for name, p in model.named_parameters():
        role = model.parameter_role(name, p)
        muon = recipe.kind == "muon" and role.kind == "matrix"
        lr = 0.5 * role.lr_multiplier * (recipe.muon_lr if muon else recipe.lr)
        kept = 1 - lr * recipe.weight_decay if role.decay else 1.0
        torch.testing.assert_close(p.detach(), before[name] * kept, rtol=1e-6, atol=0)


def test_state_copied_into_a_fresh_optimizer_continues_the_same():
    torch.manual_seed(0)
    gradients = [[torch.randn_like(p) for p in make("hnet").parameters()] for _ in range(4)]

    def steps(model, optimizers, chosen):
        for g in chosen:
            for p, grad in zip(model.parameters(), g, strict=True):
                p.grad = grad.clone()
            optimizers.step(1.0)

    recipe = MuonSettings(kind="muon")
    whole = make("hnet")
    one = Optimizers(whole, recipe, muon_dtype=torch.float32)
    steps(whole, one, gradients[:2])
    copy = make("hnet")
    copy.load_state_dict(whole.state_dict())
    other = Optimizers(copy, recipe, muon_dtype=torch.float32)
    for name, tensor in other.state().items():
        tensor.copy_(one.state()[name])
    steps(whole, one, gradients[2:])
    steps(copy, other, gradients[2:])
    for a, b in zip(whole.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)
