"""What is special to H-Net: chunks, boundary rules, gradients into the router, learning rates."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bytelm.arch.hnet import HNet
from bytelm.arch.hnet.config import HNetConfig, published_lr_multipliers
from bytelm.arch.transformer import TransformerConfig
from bytelm.data import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import smooth, upsample
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, make, texty_ids

PROSE = Path(__file__).parents[2] / "data/prose/train.txt"
CHUNKED = [name for name in CASES if name.startswith("hnet-")]
ONE_STAGE = CASES["hnet-1stage"][1]


def build(**changes):
    torch.manual_seed(0)
    return HNet(HNetConfig(**{**ONE_STAGE, **changes}), ByteVocab())


@pytest.mark.parametrize("name", CHUNKED)
def test_the_inner_network_runs_exactly_once_a_chunk(name):
    model, ids = make(name), texty_ids(3, 40)
    seen = []
    inner = model.backbone.main_network
    run = inner.extend

    def counted(x, counts, state, ids_BL):
        seen.append(len(x) * x.shape[1] if counts is None else int(counts.sum()))
        return run(x, counts, state, ids_BL)

    inner.extend = counted
    state = model.init_state(3)
    with torch.no_grad():
        _, state = model.prefill(ids[:, :9], torch.tensor([9, 4, 1]), state)
        for t in range(9, 40):
            _, state = model.step(ids[:, t], state)
    starts = torch.stack(
        [
            model.chunk_boundaries(torch.cat((ids[b, :n], ids[b, 9:]))[None])[0].sum()
            for b, n in enumerate((9, 4, 1))
        ]
    )
    assert sum(seen) == int(starts.sum())


@pytest.mark.parametrize("name", CHUNKED)
def test_boundaries_of_inner_stages_lie_on_those_outside(name):
    model, ids = make(name), texty_ids(2, 60)
    found = model.chunk_boundaries(ids)
    assert len(found) == model.config.stages
    for starts in found:
        assert starts[:, 0].all() and starts.shape == ids.shape
    for outer, inner in zip(found, found[1:], strict=False):
        assert (outer | ~inner).all() and inner.sum() < outer.sum()


def test_with_an_identity_main_network_the_decoder_reads_smoothed_encoder_rows():
    model = make("hnet-1stage")
    level = model.backbone
    nn.init.zeros_(level.residual_proj.weight)
    nn.init.zeros_(level.residual_proj.bias)
    level.main_network.forward = lambda x, segments, batch: (x, [])
    caught = {}
    level.encoder.register_forward_hook(lambda m, a, out: caught.update(encoded=out))
    level.decoder.register_forward_hook(lambda m, args, out: caught.update(read=args[0]))
    with torch.no_grad():
        model(Batch(ids=texty_ids(2, 30)))
    encoded = caught["encoded"]
    p = level.routing_module(encoded, torch.zeros_like(encoded[:, 0]))
    p[:, 0] = 1
    for b in range(2):
        value = torch.zeros_like(encoded[b, 0])
        for t in range(30):
            if p[b, t] > 0.5:
                weight = p[b, t].clamp(1e-4, 1 - 1e-4)
                value = weight * encoded[b, t] + (1 - weight) * value
            assert (caught["read"][b, t] - value).abs().max() < 1e-12


def test_a_fresh_router_is_the_identity_and_gets_a_gradient():
    model = build()
    router = model.backbone.routing_module
    assert torch.equal(router.q_proj_layer.weight, torch.eye(32))
    assert not model.backbone.residual_proj.weight.any()
    ids = texty_ids(4, 64)
    output = model(Batch(ids=ids, targets=ids))
    (output.loss + sum(output.aux.values())).backward()
    for parameter in (router.q_proj_layer.weight, router.k_proj_layer.weight):
        assert parameter.grad.isfinite().all() and parameter.grad.any()
    for block in model.backbone.encoder.layers:
        assert block.mixer.in_proj.weight.grad.any()


def test_initialisation_scales_residual_writers_by_depth():
    config = {**ONE_STAGE, "layout": ["m4", ["T3"], "m4"], "d_model": [64, 256], "head_dim": 64}
    torch.manual_seed(0)
    model = HNet(HNetConfig(**{**config, "d_intermediate": [0, 512]}), ByteVocab())
    writer = model.backbone.encoder.layers[0].mixer.out_proj.weight
    inner = model.backbone.main_network.main_network.layers[0]
    assert float(writer.detach().std()) == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert float(inner.mlp.fc2.weight.detach().std()) == pytest.approx(0.02 / 14**0.5, rel=0.05)
    assert float(inner.mixer.Wqkv.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.embeddings.weight.detach().std()) == pytest.approx(1, rel=0.05)


def test_given_boundaries_come_from_the_batch_and_else_cannot_decode():
    model = build(boundaries=["given"], target=[]).eval()
    ids = texty_ids(2, 33)
    given = torch.zeros(2, 33, dtype=torch.bool)
    given[:, 1::4] = True
    fixed = build(boundaries=["fixed"], target=[4]).eval()
    fixed.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = fixed(Batch(ids=ids)).logits
        assert torch.equal(model(Batch(ids=ids, boundaries=given)).logits, expected)
        with pytest.raises(BytelmError, match="batch carries none"):
            model(Batch(ids=ids))
        with pytest.raises(BytelmError, match="fixed"):
            model.step(ids[:, 0], model.init_state(2))


def test_boundaries_given_while_decoding_are_those_of_the_forward_pass():
    model = make("hnet-given")
    ids = texty_ids(3, 33)
    given = torch.rand(3, 33, generator=torch.Generator().manual_seed(4)) < 0.3
    with torch.no_grad():
        full = model(Batch(ids=ids, boundaries=given)).logits
        assert not torch.equal(full, model(Batch(ids=ids)).logits)
        lengths, at = torch.tensor([9, 9, 9]), 9
        logits, state = model.prefill(
            ids[:, :9], lengths, model.init_state(3), boundaries=given[:, :9]
        )
        assert (logits - full[:, 8]).abs().max() < 1e-10
        for t in range(at, 33):
            logits, state = model.step(ids[:, t], state, boundaries=given[:, t])
            assert (logits - full[:, t]).abs().max() < 1e-10


def test_given_chunks_start_after_the_chosen_bytes():
    model = make("hnet-given")
    text = b"hello world"
    ids = torch.tensor([[ByteVocab().bos, *text]])
    starts, inner = model.chunk_boundaries(ids)
    assert starts[0].nonzero()[:, 0].tolist() == [0, 3, 7]  # BOS, after "e", after the space
    assert inner[0].nonzero()[:, 0].tolist() == [0, 3]


def test_old_configurations_still_load():
    old = {**ONE_STAGE, "released_ids": False}  # as every stored config.json says it
    assert HNetConfig(**old) == HNetConfig(**ONE_STAGE)
    assert HNetConfig(**{**old, "released_ids": True}).released_ids


def test_every_setting_says_what_it_is():
    for config in (HNetConfig, TransformerConfig):
        for name, field in config.model_fields.items():
            assert field.description, name


def test_the_ratio_loss_pulls_the_chunk_rate_to_its_target():
    """On real text, with the ratio loss F moves towards 1/N; without it F stays near one half."""
    text = torch.frombuffer(bytearray(PROSE.read_bytes()[:100_000]), dtype=torch.uint8).long()
    reached = {}
    for weight in (0.1, 0.0):
        torch.manual_seed(0)
        model = build(ratio_weight=weight, target=[4.0], layout=["m1", ["T1"], "m1"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for step in range(80):
            rows = text[step * 1024 : (step + 1) * 1024 + 1]
            output = model(Batch(ids=rows[:-1].view(8, 128), targets=rows[1:].view(8, 128)))
            optimizer.zero_grad()
            (output.loss + sum(output.aux.values())).backward()
            optimizer.step()
        reached[weight] = float(output.stats["stage0/F"])
    assert abs(reached[0.1] - 0.25) < 0.1 < abs(reached[0.0] - 0.25)


def test_an_untrained_model_needs_about_eight_bits_a_byte():
    ids = texty_ids(4, 64)
    model = build()
    with torch.no_grad():
        loss = float(model(Batch(ids=ids, targets=ids)).loss)
    assert loss / torch.log(torch.tensor(2.0)) == pytest.approx(8.05, abs=0.3)


def test_targets_anneal_linearly_and_then_stay():
    model = build(target=[5.0], anneal_from=[2.0], anneal_fraction=0.5)
    seen = []
    for fraction in (0.0, 0.25, 0.5, 1.0):
        model.progress(fraction)
        seen.append(model.targets[0])
    assert seen == [2.0, 3.5, 5.0, 5.0]


def test_learning_rate_multipliers_follow_the_published_table():
    table = {
        ((6,), (1024, 1536)): [2.63, 0.88],
        ((6,), (1024, 2048)): [3.03, 0.88],
        ((3, 3), (1024, 1024, 1536)): [2.63, 1.52, 0.71],
        ((3, 3), (1024, 1536, 2048)): [3.03, 1.43, 0.71],
    }
    for (target, widths), expected in table.items():
        assert published_lr_multipliers(target, widths) == pytest.approx(expected, abs=0.006)
    model = build(lr_multipliers="published")
    outer, inner = published_lr_multipliers([4], [32, 48])
    for name, parameter in model.named_parameters():
        main = "main_network." in name
        role = model.parameter_role(name, parameter)
        assert role.lr_multiplier == pytest.approx(inner if main else outer), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": ["m1", "T1", "m1"]}, "neither"),
        ({"layout": ["m1", ["x3"], "m1"]}, "letters m, M, t, T"),
        ({"d_model": [32]}, "d_model has 1 entries"),
        ({"d_model": [48, 32]}, "must not shrink"),
        ({"num_heads": [0, 5]}, "num_heads must divide"),
        ({"d_intermediate": [0, 0]}, "d_intermediate above 0"),
        ({"target": []}, "target has 0 entries"),
        ({"target": [1.0]}, "greater than 1"),
        ({"boundaries": ["fixed"], "target": [2.5]}, "whole number"),
        ({"boundaries": ["spaces"]}, "'learned', 'fixed', 'space', 'words' or 'given'"),
        ({"head_dim": 24}, "multiple of head_dim"),
        ({"anneal_from": [2.0]}, "go together"),
        ({"given_after": [10]}, "given_after = .* has no effect: no boundaries are .given."),
        ({"boundaries": ["given"], "given_after": [256]}, "less than or equal to 255"),
        ({"lr_multipliers": [1.0]}, "lr_multipliers has 1 entries"),
        ({"widht": 3}, "widht"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes, message):
    with pytest.raises((ValidationError, BytelmError), match=message):
        HNetConfig(**{**ONE_STAGE, **changes})


def test_smoothing_and_upsampling_compose_to_the_decoders_input():
    z = torch.randn(1, 3, 2, dtype=torch.float64)
    p = torch.tensor([[1.0, 0.6, 0.8]], dtype=torch.float64)
    reads = torch.tensor([[0, 0, 1, 2, 2]])
    smoothed = smooth(z, p)
    up = upsample(smoothed, reads, torch.zeros(1, 2, dtype=torch.float64))
    assert torch.equal(up[0], smoothed[0][[0, 0, 1, 2, 2]])
