"""Quantized models: what is stored is what was made, and the numbers are the right ones."""

import json

import pytest
import torch

from bytelm.data.batch import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.hub.quantize import export_quantized, quantize_model
from bytelm.loading import load, load_classifier, load_model
from bytelm.nn.linear import Linear
from bytelm.nn.quantized import SCHEMES, QuantizedLinear
from bytelm.run import Run
from bytelm.training import train
from tests.arch.cases import CASES, make
from tests.lm import subwords
from tests.lm.contract import hnet, transformer
from tests.lm.runs import save_run

TEXT = b"she sells sea shells by the sea shore" * 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save_run(transformer(), folder / "flat", arch="transformer")
    save_run(hnet(["m1", ["T1"], "m1"]), folder / "hnet", arch="hnet")
    save_run(subwords.transformer(), folder / "subword", arch="transformer")
    return folder


@pytest.mark.parametrize("name", ["flat", "hnet", "subword"])
def test_what_is_loaded_is_what_was_quantized_bit_for_bit(runs, name, tmp_path):
    done = export_quantized(runs / name, tmp_path / "small", "int8")
    assert done.bytes_after < 0.6 * done.bytes_before and not done.left
    model = load_model(runs / name)
    quantize_model(model, "int8")
    stored = load_model(tmp_path / "small").state_dict()
    expected = model.state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[key], expected[key]) for key in expected)
    lm = load(tmp_path / "small")
    assert torch.equal(lm.score(TEXT), load(tmp_path / "small").score(TEXT))
    assert abs(lm.bits_per_byte(TEXT) - load(runs / name).bits_per_byte(TEXT)) < 0.2


@pytest.mark.parametrize("offset", range(0, 40, 8))
def test_weights_anywhere_in_memory_are_read(offset):
    """A safetensors file aligns its tensors to 8 bytes; torch's kernel loads 16 at once."""
    model = torch.nn.Sequential(Linear(16, 48, bias=False))
    quantize_model(model, "int8")
    x = torch.ones(3, 16)
    expected = model(x)
    moved = torch.zeros(48 * 16 + 64, dtype=torch.int8)[offset : offset + 48 * 16].view(48, 16)
    model[0].numbers = moved.copy_(model[0].numbers)
    model[0]._packed = None
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rows", [48, 50])
@pytest.mark.parametrize("bias", [False, True])
def test_the_kernel_multiplies_by_the_weights_it_stands_for(scheme, rows, bias):
    """The weights are within half a step of the layer's, the product within bfloat16 of theirs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Linear(256, rows, bias=bias)
        x = torch.randn(2, 3, 256)
    model = torch.nn.Sequential(layer)
    quantize_model(model, scheme)
    made = model[0]
    assert isinstance(made, QuantizedLinear) and made.scheme == scheme
    group = made.in_features if scheme == "int8" else made.group
    grouped = layer.weight.detach().unflatten(1, (-1, group))
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    step = 2 * grouped.abs().amax(-1, keepdim=True) / 255 if scheme == "int8" else (high - low) / 15
    error = (made.weight.unflatten(1, (-1, group)) - grouped).abs()
    slack = 1 if scheme == "int8" else 1.2  # int4 steps and offsets are bfloat16
    assert bool((error <= slack * step / 2 + 1e-6).all())
    exact = torch.nn.functional.linear(x, made.weight, layer.bias)
    assert (made(x) - exact).abs().max() < 0.02 * exact.abs().max()
    torch.testing.assert_close(model.double()(x.double()).float(), exact, atol=1e-5, rtol=1e-5)


WEIGHT = [[0.3, -0.7, 0.05, 0.9], [0.0, 0.0, 0.0, 0.0], [-1e-3, 2e-3, 5e-4, -2e-3]]
TORCHAO = (
    [[43, -99, 7, 127], [0, 0, 0, 0], [-64, 127, 32, -128]],
    [0.0070588234812021255, 1.1920928955078125e-07, 1.5686275219195522e-05],
)


def test_int8_numbers_are_those_of_torchao():
    """The second list is what torchao 0.13 and 0.18 make of the first."""
    layer = Linear(4, 3, bias=False)
    layer.weight.data = torch.tensor(WEIGHT)
    model = torch.nn.Sequential(layer)
    quantize_model(model, "int8")
    assert model[0].numbers.tolist() == TORCHAO[0]
    torch.testing.assert_close(model[0].scale[:, 0], torch.tensor(TORCHAO[1]), atol=0, rtol=1e-6)


def test_int8_numbers_are_those_of_torchao_where_it_is_installed():
    torchao = pytest.importorskip("torchao.quantization")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ours, theirs = torch.nn.Sequential(Linear(64, 32, bias=False)), torch.nn.Linear(64, 32)
    theirs.weight.data.copy_(ours[0].weight)
    quantize_model(ours, "int8")
    torchao.quantize_(theirs, torchao.Int8WeightOnlyConfig())
    assert torch.equal(ours[0].weight, theirs.weight.dequantize())


@pytest.mark.parametrize("scheme", ["int4-g64", "int4-g128"])
def test_int4_numbers_are_the_nearest_level(scheme):
    layer = Linear(128, 16, bias=False)
    before = layer.weight.detach().clone()
    model = torch.nn.Sequential(layer)
    quantize_model(model, scheme)
    made = model[0]
    step, offset = made.scale.float().permute(2, 1, 0)[..., None]
    levels = (torch.arange(16) - 8) * step + offset  # (out, groups, 16)
    grouped = before.unflatten(1, (-1, made.group))
    nearest = (grouped[..., None] - levels[:, :, None]).abs().amin(-1)
    torch.testing.assert_close((made.weight - before).abs().unflatten(1, (-1, made.group)), nearest)


@pytest.mark.parametrize("arch", sorted(CASES))
def test_every_architecture_can_be_quantized(arch):
    """All matrices but those of routers, whatever the model; and it computes."""
    model = make(arch)
    names, left = quantize_model(model, "int8")
    assert names and not left
    kept = [name for name, part in model.named_modules() if type(part) is torch.nn.Linear]
    plain = [name for name, part in model.named_modules() if isinstance(part, Linear)]
    for name in (*kept, *plain):
        role = model.parameter_role(f"{name}.weight", model.get_submodule(name).weight)
        assert role.kind == "other", name
    ids = torch.arange(97, 117).view(2, 10)
    batch = Batch(ids=ids, lengths=torch.tensor([10, 7]))
    if model.family == "seq2seq":
        batch = Batch(ids=ids, source=Batch(ids=ids, lengths=torch.tensor([10, 7])))
    with torch.no_grad():
        logits = model(batch).logits
    assert not logits.isnan().any() and logits[..., :256].isfinite().all()


def test_parts_can_be_kept_and_are_told_apart():
    names = {}
    for keep in ((), ("head",), ("ssm",), ("head", "ssm")):
        names[keep], _ = quantize_model(hnet(["m1", ["T1"], "m1"]).model.float(), "int8", keep=keep)
    assert set(names[()]) - set(names["head",]) == {"lm_head"}
    ssm = set(names[()]) - set(names["ssm",])
    assert {name.rpartition(".")[2] for name in ssm} == {"in_proj", "out_proj"} and len(ssm) == 4
    assert set(names["head", "ssm"]) == set(names[()]) - ssm - {"lm_head"}


def test_widths_that_are_no_multiple_of_the_group_are_left_and_told():
    model = torch.nn.Sequential(Linear(64, 32), Linear(96, 32), Linear(128, 32))
    names, left = quantize_model(model, "int4-g64")
    assert (names, left) == (["0", "2"], ["1"])
    with pytest.raises(BytelmError, match="no matrix that int4-g128 can hold"):
        quantize_model(transformer().model.float(), "int4-g128")


def test_generation_and_scoring_agree_on_a_quantized_model(runs, tmp_path):
    """In place, batched, in windows and with drafts: one model."""
    from bytelm.lm.draft import PromptLookup
    from bytelm.lm.generate import generate, generate_batch

    export_quantized(runs / "hnet", tmp_path / "small", "int8")
    lm = load(tmp_path / "small")
    state, scores = lm.start(), []
    for byte in TEXT[:40]:
        scores.append(float(state.logprobs()[byte]))
        state = state.feed(bytes([byte]))
    expected = torch.tensor(scores, dtype=torch.float64)
    torch.testing.assert_close(lm.score(TEXT[:40]), expected, atol=0.15, rtol=0)  # bfloat16
    text = generate(lm, TEXT[:20], max_bytes=20, temperature=0)
    assert [row.data for row in generate_batch(lm, [TEXT[:20]], max_bytes=20, temperature=0)] == [
        text
    ]
    assert len(generate(lm, TEXT[:20], max_bytes=20, draft=PromptLookup(shortest=1))) <= 20


def test_a_quantized_run_is_not_quantized_again_and_not_trained(runs, tmp_path, trained_run):
    small = tmp_path / "small"
    export_quantized(trained_run, small, "int8", keep=["head"])
    told = json.loads((small / "config.json").read_text())["quantization"]
    assert told["scheme"] == "int8" and told["keep"] == ["head"]
    with pytest.raises(BytelmError, match="already: export the run"):
        export_quantized(small, tmp_path / "smaller", "int4-g64")
    with pytest.raises(BytelmError, match="quantized already"):
        quantize_model(load_model(small), "int8")
    for resume in (True, False):
        with pytest.raises(BytelmError, match="cannot be trained|already holds a run"):
            train(Run(small).recipe(), run_dir=small, resume=resume)
    assert sorted(entry.name for entry in small.iterdir()) == [
        "config.json", "model.safetensors", "recipe.toml"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    from bytelm.recipe import Recipe

    folder = tmp_path_factory.mktemp("trained")
    (folder / "train.txt").write_bytes(TEXT * 9)
    settings = {
        "model": {"arch": "transformer", "layers": 1, "d_model": 16, "heads": 2},
        "data": {"train": [str(folder / "train.txt")]},
        "train": {"steps": 1, "context_bytes": 32, "batch_bytes": 64, "device": "cpu"},
        "evaluate": {"final": False},
    }
    return train(Recipe.from_dict(settings), run_dir=folder / "run")


def test_a_mistaken_export_is_a_sentence_and_leaves_nothing(runs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(BytelmError, match="'int9'; did you mean 'int8'"):
        export_quantized(runs / "flat", out, "int9")
    with pytest.raises(BytelmError, match="'heads'; did you mean 'head'"):
        export_quantized(runs / "flat", out, "int8", keep=["heads"])
    with pytest.raises(BytelmError, match="not a run directory"):
        export_quantized(tmp_path / "nowhere", out, "int8")
    assert not out.exists()
    out.mkdir()
    (out / "letter").touch()
    with pytest.raises(BytelmError, match="not empty"):
        export_quantized(runs / "flat", out, "int8")


@pytest.mark.parametrize("layers", [["no.such"], ["embeddings"], ["backbone"]])
def test_a_config_that_names_other_layers_is_damaged(runs, layers, tmp_path):
    small = tmp_path / "small"
    export_quantized(runs / "flat", small, "int8")
    config = json.loads((small / "config.json").read_text())
    config["quantization"]["layers"] += layers
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not describe a quantized model"):
        load(small)


def test_a_classifier_is_exported_with_its_labels(tmp_path):
    from bytelm.lm.classifier import Classifier

    classifier = Classifier(make("encoder"), window=20)
    save_run(classifier, tmp_path / "labels", arch="encoder")
    export_quantized(tmp_path / "labels", tmp_path / "small", "int8")
    assert load_classifier(tmp_path / "small").labels == classifier.labels
