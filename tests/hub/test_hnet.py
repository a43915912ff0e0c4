"""The six released configurations: exact sizes, names, round trip, ids."""

import pickle

import pytest
import torch

import bytelm
from bytelm.data import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.weights import load_weights


def released(layout, d_model, d_intermediate):
    heads = [16] * len(d_model)
    return {
        "arch_layout": layout,
        "d_model": d_model,
        "d_intermediate": d_intermediate,
        "vocab_size": 256,
        "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2},
        "attn_cfg": {
            "num_heads": heads,
            "rotary_emb_dim": [d // 32 for d in d_model],
            "window_size": [1023] * (len(d_model) - 1) + [-1],
        },
        "tie_embeddings": False,
    }


def two_stage(main, widths, hidden):
    return released(["m4", ["T1m4", [main], "m4T1"], "m4"], widths, hidden)


WIDE = ([1024, 1536, 2048], [0, 4096, 5504])
RELEASED = {
    "1stage_L": (released(["m4", ["T22"], "m4"], [1024, 1536], [0, 4096]), 679_405_312),
    "1stage_XL": (released(["m4", ["T24"], "m4"], [1024, 2048], [0, 5504]), 1_270_833_920),
    "2stage_L": (two_stage("T26", [1024, 1024, 1536], [0, 2816, 4096]), 874_315_264),
    "2stage_XL": (two_stage("T27", *WIDE), 1_603_492_224),
    "2stage_XL_chinese": (two_stage("T30", *WIDE), 1_755_285_888),
    "2stage_XL_code": (two_stage("T28", *WIDE), 1_654_090_112),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations_have_exactly_the_published_parameters(name):
    config, total = RELEASED[name]
    with torch.device("meta"):
        model = bytelm.hub.from_official("hnet", config, None)
    assert sum(p.numel() for p in model.parameters()) == total
    assert bytelm.hub.to_official(model)[0] == config


def small():
    config = released(["m1", ["T1m1", ["T1"], "m1T1"], "m1"], [64, 64, 96], [0, 128, 128])
    config["attn_cfg"]["num_heads"] = [2, 2, 2]
    config["attn_cfg"]["rotary_emb_dim"] = [16, 16, 16]
    return config


def test_a_synthetic_checkpoint_in_official_names_round_trips():
    torch.manual_seed(0)
    template = bytelm.hub.from_official("hnet", small()).state_dict()
    weights = {name: torch.randn_like(t) for name, t in template.items()}
    expected = {
        "embeddings.weight",
        "lm_head.weight",
        "backbone.encoder.layers.0.mixer.A_log",
        "backbone.decoder.rmsnorm.weight",
        "backbone.routing_module.q_proj_layer.weight",
        "backbone.residual_proj.bias",
        "backbone.main_network.encoder.layers.0.mixer.Wqkv.weight",
        "backbone.main_network.encoder.layers.0.mlp.fc1.weight",
        "backbone.main_network.main_network.pad_dimension",
        "backbone.main_network.main_network.main_network.layers.0.norm2.weight",
    }
    assert expected <= weights.keys()
    model = bytelm.hub.from_official("hnet", small(), weights)
    config, back = bytelm.hub.to_official(model)
    assert config == small()
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_bos_and_eos_use_the_released_rows_and_fe_ff_are_refused():
    torch.manual_seed(0)
    model = bytelm.hub.from_official("hnet", small()).eval()
    text = [model.vocab.bos, *b"abc"]
    with torch.no_grad():
        logits = model(Batch(ids=torch.tensor([text]))).logits
    assert logits.shape == (1, 4, model.vocab.size)
    assert torch.isneginf(logits[..., [254, 255, model.vocab.pad]]).all()
    assert logits[..., [*range(254), model.vocab.eos]].isfinite().all()
    assert torch.equal(
        model._embed(torch.tensor([model.vocab.bos])), model.embeddings.weight[254:255]
    )
    with pytest.raises(BytelmError, match="0xFE"):
        model(Batch(ids=torch.tensor([[model.vocab.bos, 255]])))


def test_wrong_names_shapes_and_settings_are_named():
    weights = bytelm.hub.from_official("hnet", small()).state_dict()
    broken = dict(weights)
    broken["backbone.extra"] = broken.pop("lm_head.weight")
    with pytest.raises(CheckpointError, match="lm_head.weight.*backbone.extra"):
        bytelm.hub.from_official("hnet", small(), broken)
    with pytest.raises(CheckpointError, match="lm_head.weight has shape"):
        bytelm.hub.from_official("hnet", small(), weights | {"lm_head.weight": torch.ones(2, 2)})
    with pytest.raises(BytelmError, match="did you mean 'd_model'"):
        bytelm.hub.from_official("hnet", small() | {"d_modell": 3})
    with pytest.raises(BytelmError, match="did you mean 'hnet'"):
        bytelm.hub.from_official("hnett", small())


def test_pickles_with_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"lm_head.weight": Evil()}))
    with pytest.raises(CheckpointError, match="executes no code"):
        load_weights(tmp_path / "evil.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pt")
    assert torch.equal(load_weights(tmp_path / "good.pt")["a"], torch.ones(2))
