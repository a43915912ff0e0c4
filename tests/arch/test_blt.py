"""What is BLT's own: where patches end, the patcher inside the run, texts without any structure."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bytelm.arch.base import TrainedPart
from bytelm.arch.blt import BLT, BLTConfig
from bytelm.arch.blt.entropy import EntropyRule, entropies, threshold_for
from bytelm.arch.hnet import HNet
from bytelm.data import Batch
from bytelm.errors import BytelmError, RecipeError
from bytelm.hub.quantize import export_quantized
from bytelm.lm.generate import generate_batch
from bytelm.lm.native import NativeLM
from bytelm.loading import load
from bytelm.nn.attention import SelfAttention
from bytelm.run import Run
from bytelm.run_model import load_model
from bytelm.training import train
from bytelm.training.build import build, outline
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, make, small_part, texty_ids
from tests.training.runs import TEXT, outcome, tiny_recipe
from tests.training.test_distributed import assert_same_curve, train_on

BOS = ByteVocab().bos
ODD = {
    "empty": b"",
    "one byte": b"a",
    "NULs": bytes(70),
    "blanks": b" " * 70,
    "no blank": b"x" * 70,
    "invalid UTF-8": bytes(range(128, 256)) + b"\xff\xc3",
}


def entropy_loop(model: BLT, ids: list[int]) -> list[float]:
    """H after each position, by the definition, from the patcher's distribution alone."""
    found = []
    for t in range(len(ids)):
        with torch.no_grad():
            logits = model.rule.patcher(Batch(ids=torch.tensor([ids[: t + 1]]))).logits[0, -1]
        p = logits.softmax(-1)
        found.append(float(-(p * p.log()).sum()))
    return found


def start_loop(model: BLT, ids: list[int]) -> list[bool]:
    """Where patches start, one position after another."""
    c, H = model.config, entropy_loop(model, ids)
    starts, length = [True], 1
    for t in range(len(ids) - 1):
        high = H[t] > model.rule.threshold
        risen = t > 0 and H[t] - H[t - 1] > c.rise
        cut = {"threshold": high, "monotonic": risen, "both": high and risen}[c.entropy]
        cut = cut or t == 0 or length == c.max_patch
        starts.append(cut)
        length = 1 if cut else length + 1
    return starts


@pytest.mark.parametrize("name", ["blt-entropy", "blt-both"])
def test_patches_start_where_a_loop_over_the_definition_starts_them(name):
    model = make(name)
    model.rule.threshold = 2.3
    for seed in range(3):
        ids = texty_ids(1, 45, seed=seed)
        expected = start_loop(model, ids[0].tolist())
        assert model.chunk_boundaries(ids)[0][0].tolist() == expected
        assert 3 < sum(expected) < 44


@settings(max_examples=15, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=10))
def test_patches_of_a_text_stay_where_they_are_when_it_goes_on(text, more):
    for name in ("blt-entropy", "blt-both", "blt-given"):
        model = MODELS[name]
        short, long = (
            model.chunk_boundaries(torch.tensor([[BOS, *data]]))[0][0]
            for data in (text, text + more)
        )
        assert torch.equal(long[: len(short)], short)


MODELS = {name: make(name) for name in ("blt-entropy", "blt-both", "blt-given")}


def test_beyond_its_trained_length_a_patcher_sees_a_window_of_that_length():
    """So the entropy at a byte depends on the bytes before it and not on where it stands."""
    part = small_part()
    context = part.context_bytes
    model = BLT(BLTConfig(**CASES["blt-entropy"][1]), ByteVocab(), patcher=part)
    windows = [p.options.window for p in model.rule.modules() if isinstance(p, SelfAttention)]
    assert windows == [context - 1]
    ids = torch.tensor([[BOS, *(b"abcde fgh" * 40)]])
    with torch.no_grad():
        H = entropies(model.rule.patcher(Batch(ids=ids)).logits)[0]
    assert torch.allclose(H[50:59], H[320:329], atol=1e-6)
    changed = ids.clone()
    changed[0, 100] = 200
    with torch.no_grad():
        other = entropies(model.rule.patcher(Batch(ids=changed)).logits)[0]
    moved = (H != other).nonzero()[:, 0]
    assert moved.min() == 100 and moved.max() == 100 + context - 1


def test_autocast_moves_no_patch():
    model, ids = make("blt-entropy").float(), texty_ids(4, 60)
    plain = model(Batch(ids=ids)).stats["stage0/F"], model.chunk_boundaries(ids)[0]
    with torch.autocast("cpu", torch.bfloat16):
        under = model(Batch(ids=ids)).stats["stage0/F"], model.chunk_boundaries(ids)[0]
    assert plain[0] == under[0] and torch.equal(plain[1], under[1])


def test_a_threshold_for_a_length_of_patches_gives_about_that_length():
    part, ids = small_part(), texty_ids(8, 200)
    threshold = threshold_for(part.model, ids, 3.0)
    settings = {**CASES["blt-entropy"][1], "threshold": threshold}
    model = BLT(BLTConfig(**settings), ByteVocab(), patcher=part)
    with torch.no_grad():
        assert 2.6 < model(Batch(ids=ids)).stats["stage0/chunk_bytes"] < 3.4


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["blt-entropy", "blt-given"])
def test_texts_without_structure_score_as_they_are_fed_and_are_continued(name, text):
    lm = NativeLM(MODELS[name], window=200)
    state, total = lm.start(), 0.0
    for byte in text:
        total += float(state.logprobs()[byte])
        state = state.feed(bytes([byte]))
    assert float(lm.score(text).sum()) == pytest.approx(total, abs=1e-8)
    assert not text or len(lm.chunk_boundaries(text)[0]) == len(text)
    expected = text
    while len(expected) < len(text) + 8:
        best = int(lm.start(expected).logprobs().argmax())
        if best == 256:
            break
        expected += bytes([best])
    (row,) = generate_batch(lm, [text], max_bytes=8, temperature=0)
    assert row.data == expected[len(text) :]


def test_a_patch_without_end_grows_while_it_is_written_and_is_read_whole_when_it_closes():
    model = MODELS["blt-given"]
    ids = torch.tensor(
        [[BOS, *(b"x" * 60 + b" y"), 65], [BOS, *(b"a " * 5 + b"x" * 50 + b" z"), 65]]
    )
    with torch.no_grad():
        full, state = model(Batch(ids=ids)).logits, model.init_state(2)
        _, state = model.prefill(ids[:, :2], torch.tensor([2, 1]), state)
        stepper, at = model.stepper(state, 2), [2, 1]
        while max(at) < ids.shape[1]:
            logits = stepper.step([int(ids[b, t]) for b, t in enumerate(at)])
            for b, t in enumerate(at):
                assert (logits[b] - full[b, t]).abs().max() < 1e-10
            at = [t + 1 for t in at]
        assert stepper.chunks == 7  # one in the first row, six in the second


def test_top_k_patching_is_refused_with_the_reason():
    with pytest.raises(ValidationError, match="later bytes would decide about earlier patches"):
        BLTConfig(entropy="top-k")


def test_a_patcher_is_needed_by_the_entropy_rule_and_by_no_other():
    with pytest.raises(BytelmError, match="blt-patcher-tiny"):
        BLT(BLTConfig(**CASES["blt-entropy"][1]), ByteVocab())
    fixed = BLTConfig(**{**CASES["blt-entropy"][1], "boundaries": "fixed"})
    with pytest.raises(BytelmError, match="a patcher has no effect: boundaries are 'fixed'"):
        BLT(fixed, ByteVocab(), patcher=small_part())


# -- a run of its own ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patcher(tmp_path_factory):
    """A finished run of a small Transformer."""
    folder = tmp_path_factory.mktemp("patcher")
    return train(tiny_recipe(folder, "train.steps=3"), run_dir=folder / "run")


def recipe_of(folder, patcher, *more):
    model = {**CASES["blt-entropy"][1], "threshold": 5.4}
    overrides = [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
    overrides += ["model.arch=blt", f"model.patcher={patcher}"]
    overrides += ["schedule.kind=constant", "evaluate.every=3", *more]
    recipe = tiny_recipe(folder).to_dict()
    recipe["model"] = {}
    return type(tiny_recipe(folder)).from_dict(recipe, overrides=overrides)


def test_a_run_holds_its_patcher_and_resumes_and_loads_without_the_patchers_run(tmp_path, patcher):
    mine = shutil.copytree(patcher, tmp_path / "patcher")
    whole = train(recipe_of(tmp_path, mine, "train.steps=6"), run_dir=tmp_path / "whole")
    train(recipe_of(tmp_path, mine, "train.steps=3"), run_dir=tmp_path / "parts")
    shutil.rmtree(mine)
    recipe = recipe_of(tmp_path, mine, "train.steps=6")
    parts = train(recipe, run_dir=tmp_path / "parts", resume=True)
    assert outcome(parts) == outcome(whole)
    before = load_model(patcher).state_dict()
    for run in (whole, Run(whole).best.path):
        model = load_model(run)
        kept = {name: value for name, value in model.state_dict().items() if "patcher" in name}
        assert len(kept) == len(before)
        for name, value in before.items():
            assert torch.equal(kept[f"rule.patcher.{name}"], value)
        assert not [name for name, _ in model.named_parameters() if "patcher" in name]
    lm = load(whole)
    state = lm.start(TEXT[:40]).feed(TEXT[40:60])
    assert torch.allclose(state.logprobs(), lm.start(TEXT[:60]).logprobs(), atol=1e-5)
    with pytest.raises(RecipeError, match="is not a run directory"):
        train(recipe, run_dir=tmp_path / "again")
    assert sum(p.numel() for p in outline(recipe).parameters()) == sum(
        p.numel() for p in load_model(whole).parameters()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_several_ranks_train_it_like_one(tmp_path, patcher, kind):
    recipe = recipe_of(tmp_path, patcher, f"train.distributed={kind}", "train.steps=6")
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    assert_same_curve(train_on(2, recipe, tmp_path / "ranks"), alone)


def test_quantizing_a_run_leaves_its_patcher_alone(tmp_path, patcher):
    run = train(recipe_of(tmp_path, patcher, "train.steps=1"), run_dir=tmp_path / "run")
    made = export_quantized(run, tmp_path / "small", "int8")
    assert made.layers and not [name for name in made.layers if "patcher" in name]
    before, after = load_model(run).rule, load_model(tmp_path / "small").rule
    assert isinstance(after, EntropyRule)
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value)


def test_a_damaged_description_of_a_patcher_is_an_error_of_the_run(tmp_path, patcher):
    run = train(recipe_of(tmp_path, patcher, "train.steps=1"), run_dir=tmp_path / "run")
    stored = json.loads((run / "config.json").read_text())
    wrong = {**stored["patcher"], "config": {"layers": -1}}
    for broken in (None, 3, {}, {"arch": "nothing"}, wrong):
        (run / "config.json").write_text(json.dumps({**stored, "patcher": broken}))
        with pytest.raises(BytelmError):
            load_model(run)
        with pytest.raises(BytelmError):
            train(recipe_of(tmp_path, patcher, "train.steps=2"), run_dir=run, resume=True)


def test_what_cannot_be_a_patcher_is_refused(tmp_path, patcher):
    with pytest.raises(RecipeError, match=r"model\.patcher is required"):
        build(recipe_of(tmp_path, ""))
    export_quantized(patcher, tmp_path / "small", "int8")
    with pytest.raises(RecipeError, match="holds quantized weights"):
        build(recipe_of(tmp_path, tmp_path / "small"))
    run = train(recipe_of(tmp_path, patcher, "train.steps=1"), run_dir=tmp_path / "blt")
    with pytest.raises(RecipeError, match="holds a trained part itself"):
        build(recipe_of(tmp_path, run))


def test_any_causal_model_over_bytes_can_be_the_patcher():
    hnet = make("mambabyte")
    assert isinstance(hnet, HNet)
    ids = texty_ids(2, 30)
    threshold = threshold_for(hnet, ids, 3.0)
    settings = BLTConfig(**{**CASES["blt-entropy"][1], "threshold": threshold})
    part = TrainedPart(arch="hnet", model=hnet, context_bytes=64)
    model = BLT(settings, ByteVocab(), patcher=part).double()
    with torch.no_grad():
        full, state = model(Batch(ids=ids)), model.init_state(2)
        assert 2 < full.stats["stage0/chunk_bytes"] < 4
        for t in range(30):
            logits, state = model.step(ids[:, t], state)
            assert (logits - full.logits[:, t]).abs().max() < 1e-10
        _, state = model.prefill(ids[:, :9], torch.tensor([9, 9]), model.init_state(2))
        stepper = model.stepper(state, 2, compiled=model.compiles)
        for t in range(9, 30):
            logits = stepper.step(ids[:, t].tolist())
            assert (logits - full.logits[:, t]).abs().max() < 1e-10
