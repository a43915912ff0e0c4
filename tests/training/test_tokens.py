"""Training on the ids of a tokenizer: the same trainer, honest bits, self-contained runs."""

import math

import numpy as np
import pytest
import torch

from bytelm.data import Corpus, Windows
from bytelm.data.batch import Batch
from bytelm.errors import DataError, RecipeError
from bytelm.loading import load
from bytelm.recipe import Recipe
from bytelm.tokenizer import BinaryBPE
from bytelm.training import build, train
from bytelm.training.metrics import read_metrics
from tests.training.runs import TEXT, outcome, tiny_recipe
from tests.training.test_distributed import assert_same_curve, train_on


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    BinaryBPE.train([TEXT], vocab_sizes=[300])[300].save(folder / "tokenizer")
    return folder


def recipe(data, *overrides: str) -> Recipe:
    constant = ["schedule.kind=constant", "schedule.warmup=0"]
    return tiny_recipe(data, f"data.tokenizer={data}/tokenizer", *constant, *overrides)


@pytest.fixture(scope="module")
def run(data):
    return train(recipe(data), run_dir=data / "run")


def test_an_interrupted_run_goes_on_bit_for_bit(data, run, tmp_path):
    train(recipe(data, "train.steps=5"), run_dir=tmp_path / "run")
    train(recipe(data), run_dir=tmp_path / "run", resume=True)
    steps, weights = outcome(tmp_path / "run")
    wanted, wanted_weights = outcome(run)
    assert weights == wanted_weights
    assert [row for row in steps if "loss" in row] == [row for row in wanted if "loss" in row]


def test_held_out_bits_are_the_nats_of_each_windows_tokens_over_its_bytes(data, run):
    model, bpe = load(run).model, BinaryBPE.load(run)
    windows = Windows(Corpus.open(data / "heldout.txt"), length=16, shuffle=False)
    nats = size = 0
    for start in range(0, 7 * 16, 16):  # evaluate.bytes = 100
        part = windows.corpus.read(start, start + 16).tobytes()
        ids = bpe.encode(part).tolist()
        with torch.no_grad():
            logits = model(Batch(ids=torch.tensor([[0, *ids[:-1]]]))).logits[0].log_softmax(-1)
        nats -= float(logits[range(len(ids)), ids].double().sum())
        size += len(part)
    last = [row for row in read_metrics(run / "metrics.jsonl") if "heldout_bits_per_byte" in row]
    assert last[-1]["heldout_bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)


def test_training_bits_are_divided_by_bytes(data, tmp_path):
    settings = recipe(data, "train.steps=1")
    done = train(settings, run_dir=tmp_path / "run")
    (row, *_) = read_metrics(done / "metrics.jsonl")
    windows = Windows(Corpus.open(data / "train.txt"), length=16, seed=settings.seed)
    rows = windows.rows(np.arange(4))
    bpe = BinaryBPE.load(done)
    assert not rows.ends and row["bytes_seen"] == 64
    tokens = sum(len(bpe.encode(symbols.astype(np.uint8).tobytes())) for symbols in rows.symbols)
    assert tokens < 64
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * tokens / 64 / math.log(2), rel=1e-6)


def test_micro_batches_change_nothing_but_rounding(data, run, tmp_path):
    cut = train(recipe(data, "train.accumulate=4"), run_dir=tmp_path / "run")
    for a, b in zip(outcome(cut)[0], outcome(run)[0], strict=True):
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_two_ranks_give_the_curve_of_one_process(data, run, tmp_path):
    assert_same_curve(train_on(2, recipe(data), tmp_path / "run"), outcome(run)[0])


def test_a_run_resumes_with_its_own_copy_and_refuses_another_tokenizer(data, tmp_path):
    path = tmp_path / "run"
    BinaryBPE.load(data / "tokenizer").save(tmp_path / "tokenizer")
    moved = f"data.tokenizer={tmp_path}/tokenizer"
    train(recipe(data, moved, "train.steps=2"), run_dir=path)
    BinaryBPE.train([TEXT[::-1]], vocab_sizes=[300])[300].save(tmp_path / "tokenizer")
    with pytest.raises(RecipeError, match="keeps a copy"):
        train(recipe(data, moved, "train.steps=3"), run_dir=path, resume=True)
    train(recipe(data, f"data.tokenizer={path}", "train.steps=3"), run_dir=path, resume=True)
    assert load(path / "best").bpe.vocab_size == 300


def test_what_tokens_do_not_go_with_is_said(data, tmp_path):
    for other in ("objective.kind=fim", "data.curriculum=[[0.0, 8], [0.5, 16]]"):
        with pytest.raises(RecipeError, match=r"data\.tokenizer needs"):
            recipe(data, other)
    with pytest.raises(DataError, match="nothing at"):
        build(recipe(data, f"data.tokenizer={tmp_path}/missing"))
    with pytest.raises(DataError, match=r"no tokenizer\.json in"):
        build(recipe(data, f"data.tokenizer={tmp_path}"))
    space = (
        'model={arch="hnet",layout=["m1",["m1"],"m1"],d_model=[16,16],head_dim=8,'
        'boundaries=["space"]}'
    )
    with pytest.raises(ValueError, match="read bytes"):
        build(recipe(data, space))
