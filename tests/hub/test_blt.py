"""BLT against transformers' `BltForCausalLM(use_cache=False)`, with the same weights, in float64.

transformers casts norms and rotary positions to float32 whatever the model is; the oracle here does
both in float64, so that 1e-8 means the same numbers and not nearly the same.
"""

import json

import pytest
import torch

from bytelm.arch.base import TrainedPart
from bytelm.arch.blt import BLT
from bytelm.data import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.hub.official import from_official, to_official
from bytelm.recipe import Recipe
from bytelm.training import build
from bytelm.vocab import ByteVocab
from tests.arch.cases import default_dtype, texty_ids

transformers = pytest.importorskip("transformers", minversion="5.0")
OFFSET = 4  # byte b is row b + 4


def small(**changes):
    """Arguments of `BltConfig`."""
    shared = {"vocab_size": 260, "num_attention_heads": 2}
    tree = {
        "local_attention_window_len": 6,
        "encoder_hash_byte_group_size": [3, 4, 8],
        "encoder_hash_byte_group_vocab": 101,
        "patching_threshold": 2.1,
        "encoder_config": {**shared, "hidden_size": 16, "num_hidden_layers": 2},
        "decoder_config": {
            **{**shared, "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24},
            "hidden_size_global": 24,
        },
        "global_config": {
            **{"num_attention_heads": 3, "hidden_size": 24, "num_hidden_layers": 2},
            "intermediate_size": 40,
        },
        "patcher_config": {
            **{**shared, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32},
            "sliding_window": 5,
        },
    }
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
    for part in ("encoder_config", "decoder_config"):
        tree[part]["cross_attn_k"] = tree.get("cross_attn_k", 2)
    return tree


class Exact:
    """The casts of transformers' BLT lifted."""

    @staticmethod
    def norm(self, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    @staticmethod
    def rotary(self, x, position_ids):
        base, dim = self.config.rope_parameters["rope_theta"], 2 * len(self.inv_freq)
        rates = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = (position_ids[..., None].double() * rates).repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


@pytest.fixture
def oracle(monkeypatch):
    from transformers.models.blt import modeling_blt as blt

    monkeypatch.setattr(blt.BltRMSNorm, "forward", Exact.norm)
    monkeypatch.setattr(blt.BltRotaryEmbedding, "forward", Exact.rotary)

    def make(**changes):
        torch.manual_seed(0)
        config = transformers.BltConfig(**small(**changes))
        model = transformers.BltForCausalLM(config).double().eval()
        with torch.no_grad():  # norms off one, entropies spread
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.3 * torch.randn_like(parameter))
                if name == "model.patcher.lm_head.weight":
                    parameter.mul_(4)
        return model

    return make


def ours(model, **kwargs):
    with default_dtype(torch.float64):
        return from_official("blt", model.config.to_dict(), model.state_dict(), **kwargs).eval()


def theirs_of(ids):
    return torch.where(ids == ByteVocab().bos, 1, ids + OFFSET)


@torch.no_grad()
def logits(model, ids, **more):
    hidden = model.model(theirs_of(ids), use_cache=False, **more).last_hidden_state
    return model.lm_head(hidden)  # which its own forward casts to float32


def compare(found, expected, tolerance=1e-8):
    assert (found[..., :256] - expected[..., OFFSET:]).abs().max() < tolerance
    assert (found[..., ByteVocab().eos] - expected[..., 2]).abs().max() < tolerance


CHANGES = {
    "released": {},
    "one slot": {"cross_attn_k": 1},
    "three slots": {"cross_attn_k": 3},
    "slots as wide as the global network": {
        "global_config": {"hidden_size": 32, "num_attention_heads": 2},
        "decoder_config": {"hidden_size_global": 32},
    },
    "first layer only": {"decoder_config": {"cross_attn_all_layers": False}},
    "two hash functions": {"encoder_hash_byte_group_nb_functions": 2},
    "no windows": {"local_attention_window_len": None, "patcher_config": {"sliding_window": None}},
    "fewer key heads": {
        "encoder_config": {"num_key_value_heads": 1},
        "global_config": {"num_key_value_heads": 1},
    },
    "other base": {
        f"{part}_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
        for part in ("encoder", "decoder", "global")
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_logits_equal_those_of_transformers(name, oracle):
    model = oracle(**CHANGES[name])
    mine, ids = ours(model), texty_ids(2, 50)
    with torch.no_grad():
        out = mine(Batch(ids=ids))
    assert 1.5 < out.stats["stage0/chunk_bytes"] < 8
    compare(out.logits, logits(model, ids))


def test_rows_of_a_ragged_batch_equal_each_row_alone(oracle):
    model = oracle()
    mine, ids, lengths = ours(model), texty_ids(3, 40), torch.tensor([40, 17, 3])
    with torch.no_grad():
        found = mine(Batch(ids=ids, lengths=lengths)).logits
    for b, n in enumerate(lengths.tolist()):
        compare(found[b, :n], logits(model, ids[b : b + 1, :n])[0])


def test_patches_start_where_transformers_starts_them(oracle):
    model, ids = oracle(), texty_ids(1, 60)
    _, lengths, _ = model.model.patcher(theirs_of(ids), patch_size=4, threshold=2.1)
    starts = torch.zeros(61, dtype=torch.bool)
    starts[lengths[0].cumsum(0)[:-1]] = True
    starts[0] = True
    assert torch.equal(ours(model).chunk_boundaries(ids)[0][0], starts[:60])


def test_given_patch_lengths_need_no_patcher(oracle):
    """They cover one position more than the ids: whether a patch ends at the last one."""
    model, ids = oracle(patch_in_forward=False), texty_ids(2, 12)
    mine = ours(model)
    assert not [name for name in mine.state_dict() if "patcher" in name]
    for lengths in ([[1, 3, 2, 5, 2], [1, 1, 1, 1, 9]], [[1, 3, 2, 6, 1], [1, 4, 4, 3, 1]]):
        starts = torch.zeros(2, 13, dtype=torch.bool)
        starts[:, 0] = True
        for row, row_lengths in zip(starts, lengths, strict=True):
            row[torch.tensor(row_lengths).cumsum(0)[:-1]] = True
        with torch.no_grad():
            found = mine(Batch(ids=ids, boundaries=starts)).logits
        compare(found, logits(model, ids, patch_lengths=torch.tensor(lengths)))
    with pytest.raises(BytelmError, match="whose last column"):
        mine(Batch(ids=ids, boundaries=starts[:, :12]))


def test_a_longest_patch_is_kept_to_as_in_transformers(oracle):
    """But for the last position: whether a patch of full length ends there, transformers tells
    only where something follows."""
    model, ids = oracle(max_patch_length=2), texty_ids(1, 41)
    mine = ours(model)
    with torch.no_grad():
        found = mine(Batch(ids=ids)).logits
    compare(found[:, :-1], logits(model, ids)[:, :-1])
    assert mine(Batch(ids=ids)).stats["stage0/chunk_bytes"] < 2


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_exported_is_the_same_model_in_transformers(name, oracle):
    model = oracle(**CHANGES[name])
    mine, ids = ours(model), texty_ids(1, 30)
    config, weights = to_official(mine)
    assert json.loads(json.dumps(config)) == config
    again = transformers.BltForCausalLM(transformers.BltConfig(**config)).double().eval()
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in weights.items()
    }
    again.load_state_dict(weights)
    assert (logits(again, ids) - logits(model, ids)).abs().max() < 1e-8
    if name not in ("one slot", "fewer key heads"):  # which hold what has no effect, or less
        before = model.state_dict()
        assert all(torch.equal(weights[key], before[key]) for key in before)


def test_steps_and_in_place_decoding_of_imported_weights(oracle):
    model, ids = oracle(), texty_ids(2, 45)
    mine, expected = ours(model), logits(model, ids)
    with torch.no_grad():
        _, state = mine.prefill(ids[:, :20], torch.tensor([20, 9]), mine.init_state(2))
    for compiled in (False, True):
        stepper, at = mine.stepper(state, 2, compiled=compiled), [20, 9]
        while max(at) < 45:
            found = stepper.step([int(ids[b, t]) for b, t in enumerate(at)])
            for b, t in enumerate(at):
                compare(found[b], expected[b, t])
            at = [t + 1 for t in at]


def test_models_of_the_bundled_recipes_can_be_exported():
    small, large = (Recipe.load(name) for name in ("blt-patcher-tiny", "blt-tiny"))
    part = TrainedPart(
        arch="transformer", model=build(small), context_bytes=small.train.context_bytes
    )
    model = BLT(large.arch_config, ByteVocab(), patcher=part).eval()
    config, weights = to_official(model)
    again = transformers.BltForCausalLM(transformers.BltConfig(**config)).eval()
    again.load_state_dict(weights)
    ids = texty_ids(1, 90)
    with torch.no_grad():
        compare(model(Batch(ids=ids)).logits, again(theirs_of(ids), use_cache=False).logits, 1e-4)


REFUSED = {
    "vocab_size": {"vocab_size": 300},
    "tie_word_embeddings": {"tie_word_embeddings": True},
    "patching_mode": {"patching_mode": "static"},
    "patching_threshold": {"patching_threshold": None},
    "encoder_config.cross_attn_all_layers": {"encoder_config": {"cross_attn_all_layers": True}},
    "encoder_config.dropout": {"encoder_config": {"dropout": 0.1}},
    "global_config.rms_norm_eps": {"global_config": {"rms_norm_eps": 1e-6}},
    "decoder_config.num_attention_heads": {"decoder_config": {"num_attention_heads": 4}},
    "rope_theta": {
        "global_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    },
    "patcher_config.rope_parameters.rope_type": {
        "patcher_config": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_over_is_refused_by_name(name):
    with pytest.raises(BytelmError, match=name.replace(".", r"\.")):
        from_official("blt", small(**REFUSED[name]))


def test_weights_of_another_model_are_refused(oracle):
    model = oracle()
    config, weights = model.config.to_dict(), model.state_dict()
    with pytest.raises(CheckpointError, match=r"no lm_head\.weight"):
        from_official("blt", config, {k: v for k, v in weights.items() if k != "lm_head.weight"})
    with pytest.raises(CheckpointError, match="unknown"):
        from_official("blt", config, {**weights, "surplus": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="has shape"):
        from_official("blt", config, {**weights, "lm_head.weight": torch.zeros(260, 5)})


def test_the_released_size_is_4_6_billion_weights_of_which_the_patcher_has_a_tenth_of_one():
    with torch.device("meta"):
        model = from_official("blt", {})
    trained = sum(parameter.numel() for parameter in model.parameters())
    patcher = sum(weight.numel() for weight in model.rule.patcher.state_dict().values())
    assert (round((trained + patcher) / 1e9, 2), round(patcher / 1e9, 2)) == (4.63, 0.1)
    assert model.ngrams.table.weight.numel() == 6 * 500_002 * 1024


def test_a_configuration_file_with_defaults_left_out_is_read(oracle, tmp_path):
    config = transformers.BltConfig(**small())
    config.save_pretrained(tmp_path)
    model = from_official("blt", tmp_path / "config.json")
    assert model.config == from_official("blt", config.to_dict()).config
