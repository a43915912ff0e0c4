"""Classes travel from folders, columns and fields to every row, whoever cuts, shuffles or waits."""

import json
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bytelm as package
from bytelm.arch.base import ModelOutput
from bytelm.cli.app import app
from bytelm.data import IGNORE, Batch, Corpus, Reading, Windows
from bytelm.errors import CheckpointError, DataError, RecipeError
from bytelm.objectives import Setup
from bytelm.objectives.classification import Classification
from bytelm.tokenizer import BinaryBPE
from bytelm.training import train
from bytelm.training.build import build_objective, open_corpora
from tests.objectives.runs import CLASSES, classifier, documents_of, write_folders, write_records
from tests.training.runs import data_of, outcome
from tests.training.test_distributed import assert_same_curve, train_on

NAMES = sorted(CLASSES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    write_folders(folder)
    return folder


@pytest.fixture(scope="module")
def run(folders):
    return train(classifier(folders), run_dir=folders / "run")


def assert_labels_fit(batch: Batch) -> None:
    """Every row's class is the one whose alphabet its bytes are of."""
    for ids, n, label in zip(batch.ids, batch.lengths.tolist(), batch.labels.tolist(), strict=True):
        if label == IGNORE:
            assert n == 0
        else:
            assert n and set(ids[:n].tolist()) <= set(CLASSES[NAMES[label]])


@pytest.mark.parametrize("policy", ["truncate", "document", "bucket"])
@pytest.mark.parametrize("workers", [0, 2])
def test_labels_follow_their_rows_through_shuffling_and_workers(folders, policy, workers):
    recipe = classifier(folders, f"data.policy={policy}", f"data.workers={workers}")
    data = data_of(recipe)
    seen = 0
    for batch, _ in islice(data.batches(), 8):
        assert_labels_fit(batch)
        seen += int((batch.labels != IGNORE).sum())
    assert seen > 80


def test_labels_follow_their_rows_through_a_mixture_and_ranks(folders):
    paths = [f"{folders}/train/{name[0]}*/*" for name in NAMES]
    recipe = classifier(folders, f"data.train={paths}", "data.weights=[3, 1, 2]")
    for rank in (0, 1):
        for batch, _ in islice(data_of(recipe, rank=rank, world=2).batches(), 6):
            assert_labels_fit(batch)


def test_classes_come_from_a_field_a_column_or_the_folder_alike(folders, tmp_path):
    rows = [
        {"text": text.decode(), "kind": name}
        for name in CLASSES
        for text in documents_of(name, count=4)
    ]
    file = write_records(tmp_path / "a.jsonl", rows)
    built = tmp_path / "built"
    Corpus.build(file, built, reading=Reading(columns=("kind",)), deduplicate=False)
    for path in (file, built):
        recipe = classifier(folders, f"data.train={path}", "objective.labels=kind")
        data = data_of(recipe)
        assert data.objective.model_arguments() == {"labels": NAMES}
        assert_labels_fit(next(data.batches())[0])


def test_an_empty_document_has_a_class_and_the_end_alone_has_none(corpus_of):
    corpus = corpus_of([b"", b"abcd", b"ab"])
    objective = Classification(
        Classification.Config(labels="media"), Setup(stored={"labels": ["x"]})
    )
    objective._values = lambda corpus: ["x"] * len(corpus)
    windows = Windows(corpus, length=4, policy="document", shuffle=False)
    batch = objective.batch(windows, np.arange(windows.count))
    assert batch.lengths.tolist() == [0, 4, 0, 2]  # the empty one, all of abcd, its end, ab
    assert batch.labels.tolist() == [0, 0, IGNORE, 0]
    assert objective.count(batch) == 3 and batch.raw_bytes == 6


def test_figures_are_those_of_their_definitions():
    labels = [0, 0, 0, 1, 1, IGNORE]
    predicted = torch.tensor([0, 0, 1, 1, 0, 2])
    objective = Classification(
        Classification.Config(labels="folder"), Setup(stored={"labels": NAMES})
    )
    batch = Batch(ids=torch.zeros(6, 1, dtype=torch.long), labels=torch.tensor(labels))
    output = ModelOutput(
        logits=torch.eye(3)[predicted], loss=torch.tensor(0.5, dtype=torch.float64)
    )
    figures = objective.figures(objective.measure(batch, output))
    # class 0: 2 right, 3 true, 3 predicted; class 1: 1 right, 2 true, 2 predicted; class 2: neither
    wanted = {"accuracy": 3 / 5, "macro_f1": (4 / 6 + 2 / 4) / 2, "loss": 0.5}
    assert list(figures) == list(wanted) and figures == pytest.approx(wanted)


def test_micro_batches_and_ranks_change_no_figure(folders, run, tmp_path):
    whole = outcome(run)[0]
    cut = train(classifier(folders, "train.accumulate=4"), run_dir=tmp_path / "cut")
    assert_same_curve(outcome(cut)[0], whole)
    assert_same_curve(train_on(2, classifier(folders), tmp_path / "ranks"), whole)


def test_a_stopped_run_resumes_with_the_same_rows_and_labels(folders, run, tmp_path):
    again = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(again / "trainer" / "step-00000012")
    train(classifier(folders), run_dir=again, resume=True)
    assert outcome(again) == outcome(run)


def test_a_run_is_not_resumed_with_other_classes(folders, run, tmp_path):
    shutil.copytree(folders, tmp_path / "data")
    (tmp_path / "data/train/digits").rename(tmp_path / "data/train/numbers")
    again = shutil.copytree(run, tmp_path / "run")
    with pytest.raises(RecipeError, match="other labels in its data"):
        train(classifier(tmp_path / "data"), run_dir=again, resume=True)


def test_training_reports_accuracy_and_the_confusion_table(folders, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(classifier(folders, "train.steps=60").to_toml())
    done = CliRunner().invoke(app, ["train", str(recipe), "--run", f"{tmp_path}/run"])
    assert done.exit_code == 0, done.output
    for part in ("accuracy", "macro_f1", "true, predicted", "digits"):
        assert part in done.stdout
    assert "gzip" not in done.stdout and "accuracy held out" in done.stderr
    stored = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert stored["labels"] == NAMES and stored["documents"] == 15
    assert np.sum(stored["confusion"]) == 15 and stored["accuracy"] > 0.9
    assert json.loads((tmp_path / "run/config.json").read_text())["labels"] == NAMES
    again = CliRunner().invoke(app, ["eval", f"{tmp_path}/run", f"{folders}/heldout", "--json"])
    assert json.loads(again.stdout) == {**stored, "skipped": {}, "taken_whole": {}}


def test_the_best_checkpoint_is_the_one_of_highest_accuracy(folders, tmp_path):
    done = train(classifier(folders, "evaluate.every=1"), run_dir=tmp_path / "run")
    rows, _ = outcome(done)
    best = max(row["heldout_accuracy"] for row in rows if "heldout_accuracy" in row)
    state = json.loads((done / "trainer/step-00000012/state.json").read_text())
    assert state["best"] == best and (done / "best/model.safetensors").is_file()


def test_held_out_documents_are_judged_once_each(folders):
    for policy in ("truncate", "document", "bucket"):
        heldout = data_of(classifier(folders, f"data.policy={policy}")).heldout
        assert heldout.count == 15


def test_what_is_left_out_of_long_documents_is_said(folders, run, tmp_path, capfd):
    train(classifier(folders, "train.steps=1"), run_dir=tmp_path / "run")
    long = [d for name in CLASSES for d in documents_of(name, count=12) if len(d) > 16]
    size = sum(len(d) - 16 for d in long)
    message = f"{len(long)} of 36 training documents are longer than 16 bytes: the {size} bytes"
    assert message in capfd.readouterr().err


def test_unknown_and_missing_labels_are_named(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "data")
    (tmp_path / "data/heldout/upper").rename(tmp_path / "data/heldout/odd")
    data = data_of(classifier(tmp_path / "data"))
    with pytest.raises(DataError, match=r"odd/.*has the folder 'odd', which no training document"):
        data.heldout_objective.batch(data.heldout, np.arange(15))
    flat = classifier(folders, f"data.train={folders}/train/upper/00.bin")
    with pytest.raises(DataError, match=r"has no folder.*DIR/\*/\*"):
        build_objective(flat, open_corpora(flat)).model_arguments()
    one = classifier(folders, f"data.train={folders}/train/up*/*")
    with pytest.raises(DataError, match="at least two classes"):
        build_objective(one, open_corpora(one)).model_arguments()
    typo = classifier(folders, "objective.labels=grup")
    with pytest.raises(DataError, match=r"grup"):
        build_objective(typo, open_corpora(typo)).model_arguments()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.label=x", "did you mean 'labels'"),
        ("objective.text=body", "objective.text has no effect"),
        ("objective.rate=0.5", "objective.rate has no effect.*only fim uses it"),
        ("data.policy=concat", "needs data.policy = 'truncate' or 'document' or 'bucket'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folders, override, message):
    with pytest.raises(RecipeError, match=message):
        classifier(folders, override)


def test_labels_are_required_and_the_family_must_fit(folders):
    plain = classifier(folders, "objective.kind=causal", "data.policy=concat")
    assert plain.objective.settings == {}
    with pytest.raises(RecipeError, match="objective.labels is required and missing"):
        plain.override(["objective.kind=classification", "data.policy=truncate"])
    with pytest.raises(RecipeError, match="trains causal models, and model.arch 'encoder'"):
        train(plain, run_dir=folders / "never")


def test_a_model_over_tokens_classifies_bytes_too(folders, tmp_path):
    """The same classes and documents, read through a tokenizer that is stored with the run."""
    every = [text for name in CLASSES for text in documents_of(name, count=12)]
    bpe = BinaryBPE.train(every, vocab_sizes=[280])[280]
    bpe.save(tmp_path / "bpe")
    recipe = classifier(folders, f"data.tokenizer={tmp_path / 'bpe'}", "train.steps=60")
    run = train(recipe, run_dir=tmp_path / "run")
    found = package.load_classifier(run)
    assert found.model.vocab.size == 280
    texts = [documents_of(name, count=1, first=70)[0] for name in NAMES]
    assert [NAMES[i] for i in found.predict([*texts, b""]).argmax(dim=-1)[:3]] == NAMES
    (run / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        package.load_classifier(run)
