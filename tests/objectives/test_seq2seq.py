"""Pairs: each row has its own source, nothing is cut, and exact matches are what they say."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bytelm.arch.base import ModelOutput
from bytelm.cli.app import app
from bytelm.data import IGNORE, Batch, Reading
from bytelm.errors import DataError, RecipeError
from bytelm.training import train
from bytelm.training.data import open_data
from bytelm.vocab import END, ByteVocab
from tests.objectives.runs import reverser, write_records
from tests.training.runs import data_of, outcome
from tests.training.test_distributed import assert_same_curve

BOS = ByteVocab().bos


def pairs_of(batch) -> list[tuple[bytes, bytes]]:
    """(source, target) of every row."""
    found = []
    for row, targets in enumerate(batch.targets.tolist()):
        kept = [t for t in targets if t != IGNORE]
        assert kept[-1] == END and batch.ids[row, 0] == BOS
        n = int(batch.source.lengths[row])
        source = bytes(batch.source.ids[row, :n].tolist())
        found.append((source, bytes(kept[:-1])))
    return found


@pytest.mark.parametrize("policy", ["truncate", "document", "bucket"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_has_its_own_source(tmp_path, policy, workers):
    recipe = reverser(tmp_path, f"data.policy={policy}", f"data.workers={workers}")
    batches = data_of(recipe).batches()
    for _ in range(5):
        for source, target in pairs_of(next(batches)[0]):
            assert target == source[::-1]


def test_sources_are_cut_with_their_rows(tmp_path):
    batch, _ = next(data_of(reverser(tmp_path)).batches())
    joined = [pair for part in batch.split(5) for pair in pairs_of(part)]
    assert joined == pairs_of(batch)
    assert pairs_of(batch.select(torch.tensor([3, 1]))) == [joined[3], joined[1]]


def test_bytes_of_texts_are_kept_as_they_are(tmp_path):
    rows = [{"q": "é\ud800", "a": "\udfff"}, {"q": "", "a": "x"}]
    file = write_records(tmp_path / "odd.jsonl", rows)
    recipe = reverser(tmp_path, f"data.train={file}", "objective.source=q", "objective.target=a")
    fields = recipe.objective_config.record_fields
    corpus = open_data(recipe.data.train, fields=fields, reading=Reading())
    assert corpus.column("q") == [b"\xc3\xa9\xed\xa0\x80", b""]
    assert bytes(corpus.document(0)) == b"\xed\xbf\xbf"


def test_micro_batches_change_no_figure_and_the_run_reports_its_figures(tmp_path):
    recipe = reverser(tmp_path)
    whole = outcome(train(recipe, run_dir=tmp_path / "run"))[0]
    assert {"heldout_bits_per_byte", "heldout_exact_match"} <= set(whole[-1])
    cut = train(recipe.override(["train.accumulate=4"]), run_dir=tmp_path / "cut")
    assert_same_curve(outcome(cut)[0], whole)
    done = CliRunner().invoke(
        app, ["eval", f"{tmp_path}/run", f"{tmp_path}/heldout.jsonl", "--json"]
    )
    found = json.loads(done.stdout)
    assert found["bits_per_byte"] == pytest.approx(whole[-1]["heldout_bits_per_byte"], rel=1e-5)


def test_training_reports_figures_and_a_sample_for_a_source(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(reverser(tmp_path).to_toml())
    done = CliRunner().invoke(app, ["train", str(recipe), "--run", f"{tmp_path}/run"])
    assert done.exit_code == 0, done.output
    source = json.loads((tmp_path / "heldout.jsonl").read_text().splitlines()[0])["source"]
    assert f"a sample, for {source!r}" in done.stdout and "exact_match" in done.stdout
    assert "gzip" not in done.stdout and "where it cuts" not in done.stdout


def test_exact_match_counts_the_end_and_bits_do_not(tmp_path):
    judge = data_of(reverser(tmp_path)).heldout_objective
    targets = torch.tensor([[97, END, IGNORE], [97, 98, END]])
    logits = torch.zeros(2, 3, 264)
    logits[0, 0, 97] = logits[1, 0, 97] = logits[1, 1, 98] = logits[1, 2, END] = 100.0
    batch = Batch(ids=torch.zeros(2, 3, dtype=torch.long), targets=targets)
    figures = judge.figures(judge.measure(batch, ModelOutput(logits=logits)))
    assert figures["exact_match"] == 0.5  # the first row's end is not the first choice
    assert figures["bits_per_byte"] == pytest.approx(0.0, abs=1e-6)


def test_what_does_not_fit_is_refused_with_its_place(tmp_path):
    rows = [{"source": "ab", "target": "x" * 16}]
    file = write_records(tmp_path / "long.jsonl", rows)
    data = data_of(reverser(tmp_path, f"data.train={file}"))
    with pytest.raises(DataError, match=r"pair 0 \(line 1\) has 16 bytes.*train.context_bytes"):
        data.objective.batch(data.windows, np.arange(1))
    data = data_of(reverser(tmp_path, "objective.source_bytes=3"))
    with pytest.raises(DataError, match="raise objective.source_bytes"):
        data.objective.batch(data.windows, np.arange(30))
    (tmp_path / "plain.txt").write_text("no record")
    with pytest.raises(DataError, match="plain.txt holds no records"):
        data_of(reverser(tmp_path, f"data.train={tmp_path}/plain.txt"))
    with pytest.raises(RecipeError, match="needs data.policy"):
        reverser(tmp_path, "data.policy=concat")
