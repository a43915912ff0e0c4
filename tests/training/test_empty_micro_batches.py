"""Micro-batches without a row count for nothing, and every rank still does its share."""

import pytest
import torch

from bytelm.data.batch import IGNORE, Batch
from bytelm.tokenizer import BinaryBPE
from bytelm.training import build, train
from bytelm.training.distributed import Ranks
from bytelm.training.step import forward_backward
from tests.arch.cases import CASES, make, training_batch
from tests.training.runs import TEXT, data_of, outcome, tiny_recipe
from tests.training.test_distributed import HNET, assert_same_curve, train_on

ALONE = Ranks(torch.device("cpu"))


@pytest.mark.parametrize("name", CASES)
def test_a_row_without_content_adds_nothing_to_any_model(name):
    """Loss and gradient are 0 and finite, and every parameter takes part."""
    model = make(name).train()  # deletes softly, so that gates take part
    output = model(training_batch(model).without_content())
    (sum(output.aux.values(), start=output.loss) * 0).backward()
    assert output.loss is not None and float(output.loss.detach()) == 0
    for parameter in model.parameters():
        assert parameter.grad is not None and bool((parameter.grad == 0).all())


def test_without_content_is_one_row_of_the_same_shape():
    batch = Batch(ids=torch.ones(3, 4, dtype=torch.long), targets=torch.ones(3, 4).long())
    empty = batch.without_content()
    assert empty.ids.shape == (1, 4) and empty.lengths.tolist() == [0] and empty.raw_bytes == 0
    assert bool((empty.targets == IGNORE).all())


@pytest.mark.parametrize("model", [[], HNET])
@pytest.mark.parametrize("parts", [4, 5, 7, 16])
def test_more_micro_batches_than_rows_give_the_gradient_of_the_rows(tmp_path, parts, model):
    recipe = tiny_recipe(tmp_path, *model, *(["model.ratio_weight=0.0"] if model else []))
    data = data_of(recipe)
    batch, _ = next(data.batches())
    assert len(batch.ids) == 4
    results, gradients = [], []
    for cut in (1, parts):
        built = build(recipe).double()
        settings = {"objective": data.objective, "dtype": "float32", "ranks": ALONE}
        results.append(forward_backward(built, batch, parts=cut, **settings))
        gradients.append([p.grad for p in built.parameters()])
    one, many = (data.objective.figures(result.sums) for result in results)
    assert one == pytest.approx(many, rel=1e-12)
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-9, atol=1e-13)


def test_accumulation_over_packed_tokens_trains(tmp_path):
    """Tokens are packed into fewer rows than there are windows: it crashed, depending on data."""
    BinaryBPE.train([TEXT], vocab_sizes=[300])[300].save(tmp_path / "tokenizer")
    tokens = f"data.tokenizer={tmp_path}/tokenizer"
    settings = ["train.batch_bytes=64", "data.policy=document"]
    (tmp_path / "parts").mkdir()
    for n in range(40):
        (tmp_path / "parts" / f"{n:02}.txt").write_bytes(b"%d bottles " % n * (1 + n % 3))
    paths = f"data.train=['{tmp_path}/parts/*.txt']"
    rows = [
        outcome(
            train(
                tiny_recipe(tmp_path, tokens, paths, *settings, f"train.accumulate={parts}"),
                run_dir=tmp_path / f"run{parts}",
            )
        )[0]
        for parts in (1, 4)
    ]
    assert_same_curve(rows[1], rows[0])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_more_ranks_and_micro_batches_than_windows_train_the_same(tmp_path, kind):
    """4 windows on 2 ranks in 4 micro-batches: two of each rank's are empty."""
    recipe = tiny_recipe(tmp_path, f"train.distributed={kind}")
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    cut = recipe.override(["train.accumulate=4"])
    assert_same_curve(train_on(2, cut, tmp_path / "ranks"), alone)


def test_a_micro_batch_that_is_empty_on_one_rank_only(tmp_path):
    """Packed tokens: the ranks have different numbers of rows, and must stay in step."""
    BinaryBPE.train([TEXT], vocab_sizes=[300])[300].save(tmp_path / "tokenizer")
    (tmp_path / "parts").mkdir()
    for n in range(40):
        (tmp_path / "parts" / f"{n:02}.txt").write_bytes(b"%d bottles " % n * (1 + n % 7))
    recipe = tiny_recipe(
        tmp_path,
        f"data.tokenizer={tmp_path}/tokenizer",
        f"data.train=['{tmp_path}/parts/*.txt']",
        "data.policy=document",
    )
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    ranks = train_on(2, recipe.override(["train.accumulate=4"]), tmp_path / "ranks")
    assert_same_curve(ranks, alone)
