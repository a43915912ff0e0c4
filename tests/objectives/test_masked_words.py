"""Masked words: which are chosen, what is to be predicted, and how fillings are found."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bytelm as package
from bytelm.arch.base import ModelOutput
from bytelm.arch.byte2word import Byte2Word, Byte2WordConfig
from bytelm.cli.app import run as command_line
from bytelm.data import IGNORE, Corpus, Windows
from bytelm.errors import BytelmError, RecipeError
from bytelm.lm.filler import Filler
from bytelm.objectives import Setup
from bytelm.objectives.masked_words import MaskedWords, words_of
from bytelm.recipe import Recipe
from bytelm.tokenizer import BinaryBPE
from bytelm.training import train
from tests.arch.test_byte2word import filler

TEXT = b"the cat sat down. our dog ran off. " * 40
COLOURS = ("red", "green", "blue", "white")
WORDS = (
    TEXT.replace(b" ", b"\n ").replace(b".", b"\n.").split(b"\n")
    + [b" " + word.encode() for word in COLOURS] * 9
)
BPE = BinaryBPE.train(WORDS, vocab_sizes=[295])[295]


def objective(**settings) -> MaskedWords:
    return MaskedWords(MaskedWords.Config(**settings), Setup(open_tokenizer=lambda: BPE, seed=1))


def batch_of(tmp_path, text=TEXT, *, samples=(0, 1, 2), length=200, **settings):
    file = tmp_path / "text.txt"
    file.write_bytes(text)
    windows = Windows(Corpus.open(file), length=length, policy="document", shuffle=False)
    made = objective(**settings)
    return made, made.batch(windows, np.array(samples))


@given(text=st.binary(max_size=60) | st.text("ab ,1\n", max_size=30).map(str.encode))
def test_words_put_together_are_the_text(text):
    words = words_of(np.frombuffer(text, np.uint8))
    assert b"".join(words) == text and all(words)


@pytest.mark.parametrize("read", ["bytes", "pieces"])
def test_rows_with_the_targets_put_back_are_the_text(tmp_path, read):
    made, batch = batch_of(tmp_path, read=read, mask_rate=0.4)
    stop, found = made.model_arguments()["stop"], b""
    for ids, targets, n in zip(batch.ids, batch.targets, batch.lengths.tolist(), strict=True):
        for symbol, gold in zip(ids[:n].tolist(), targets[:n].tolist(), strict=True):
            if symbol == made.mask:
                pieces = [piece for piece in gold if piece not in (IGNORE, stop)]
                found += BPE.decode(pieces)
            else:
                assert gold == [IGNORE] * 4
                found += bytes([symbol]) if read == "bytes" else BPE.decode([symbol])
    assert found == TEXT[: len(found)] and len(found) == batch.raw_bytes == 600


def test_both_readings_mask_the_same_words(tmp_path):
    targets = []
    for read in ("bytes", "pieces"):
        _, batch = batch_of(tmp_path, read=read)
        chosen = batch.targets[(batch.targets != IGNORE).any(-1)]
        targets.append(chosen)
    assert len(targets[0]) > 5 and torch.equal(*targets)


def test_words_of_too_many_pieces_and_those_at_the_edges_are_never_masked(tmp_path):
    made, batch = batch_of(tmp_path, mask_rate=0.99, word_pieces=1)
    gold = batch.targets[(batch.targets != IGNORE).any(-1)][:, 0]
    assert len(gold) and all(made.pieces(BPE.token_bytes[i]) == (i,) for i in gold.tolist())
    _, one = batch_of(tmp_path, b"one two", mask_rate=0.99, samples=(0,))
    assert (one.targets == IGNORE).all()


@pytest.mark.parametrize("text", [b"x", b" ", b"\0\xff\xfe" * 9, b"a" * 150, bytes(range(256))])
def test_any_bytes_are_rows_that_a_model_can_read(tmp_path, text):
    made, batch = batch_of(tmp_path, text, samples=(0,), mask_rate=0.9, length=300)
    assert batch.raw_bytes == len(text)
    config = {"layers": 1, "d_model": 16, "heads": 2, "word_heads": 2}
    model = Byte2Word(Byte2WordConfig(**config), made.vocab, **made.model_arguments())
    output = model(batch)
    assert output.loss.isfinite() and output.logits.isfinite().all()
    assert math.isfinite(made.figures(made.measure(batch, output))["loss"])


def test_figures_are_bits_of_masked_bytes_and_whole_words(tmp_path):
    made, batch = batch_of(tmp_path, mask_rate=0.4)
    gold = batch.targets[(batch.targets != IGNORE).any(-1)]
    logits = torch.zeros(*gold.shape, BPE.vocab_size)
    logits.scatter_(2, gold.clamp(min=0)[..., None], 50.0)
    logits[0, 0] = 0
    loss = torch.tensor(math.log(2))
    sums = made.measure(batch, ModelOutput(logits=logits, loss=loss))
    figures = made.figures(sums)
    stop = made.model_arguments()["stop"]
    size = sum(len(BPE.token_bytes[i]) for i in gold.flatten().tolist() if i not in (IGNORE, stop))
    assert list(figures) == ["bits_per_masked_byte", "word_accuracy", "loss"]
    assert figures["bits_per_masked_byte"] == pytest.approx(int((gold != IGNORE).sum()) / size)
    assert figures["word_accuracy"] == pytest.approx(1 - 1 / len(gold))


def recipe_of(folder, *overrides):
    """Documents that say one word again and again, so that each gap is filled by the others."""
    for word in COLOURS:
        (folder / f"{word}.txt").write_bytes(b" ".join([word.encode()] * 12))
    BPE.save(folder / "bpe")
    tree = {
        "seed": 1,
        "model": {"arch": "byte2word", "layers": 1, "d_model": 32, "heads": 2},
        "data": {
            "train": [f"{folder}/*.txt"],
            "heldout": [f"{folder}/*.txt"],
            "policy": "document",
            "tokenizer": f"{folder}/bpe",
        },
        "objective": {"kind": "masked_words", "mask_rate": 0.3},
        "optimizer": {"kind": "muon", "lr": 0.01, "muon_lr": 0.04},
        "train": {"steps": 60, "batch_bytes": 512, "context_bytes": 64, "dtype": "float32"},
        "evaluate": {"every": 60, "bytes": 1000},
    }
    return Recipe.from_dict(tree, overrides=overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    return train(recipe_of(folder), run_dir=folder / "run")


def test_a_trained_run_fills_gaps_with_words_of_its_text(run):
    found = package.load_filler(run).fill([b"red ", b" red ", b" red red"])
    assert [gap[0].word for gap in found] == [b" red", b" red"]
    assert all(1 >= gap[0].probability >= gap[1].probability > 0 for gap in found)


def test_the_subword_twin_fills_them_too(tmp_path):
    recipe = recipe_of(tmp_path, "model.input=pieces", "objective.read=pieces")
    run = train(recipe, run_dir=tmp_path / "run")
    found = package.load_filler(run).fill([b"red ", b" red ", b" red red"])
    assert [gap[0].word for gap in found] == [b" red", b" red"]
    with pytest.raises(BytelmError, match="predicts no next bytes"):
        package.load(run)


def test_fillings_are_the_likeliest_of_all_words_by_enumeration():
    model = filler()
    pieces = [None, None, *(bytes([97 + i]) for i in range(18))]
    found = Filler(model, pieces, window=50).fill([b"a ", b" b"], top=30)[0]
    with torch.no_grad():
        ids = torch.tensor([[97, model.mask, 32, 98]])
        logprobs = model(package.Batch(ids=ids)).logits[0].log_softmax(-1).exp().tolist()
    every = []
    for i in range(2, 20):
        every.append(logprobs[0][i] * logprobs[1][1])
        for j in range(2, 20):
            two = logprobs[0][i] * logprobs[1][j]
            every += [two * logprobs[2][1], *(two * logprobs[2][k] for k in range(2, 20))]
    expected = sorted(every, reverse=True)[:30]
    assert [f.probability for f in found] == pytest.approx(expected, rel=1e-9)


def test_the_command_prints_the_text_and_the_words(run, capfd):
    with pytest.raises(SystemExit) as exit:
        command_line(["fill", str(run), "--text", "blue [MASK] blue blue", "--json"])
    assert exit.value.code in (0, None)
    found = json.loads(capfd.readouterr().out)
    assert found["text"] == "blue blue blue blue"
    assert found["gaps"][0][0]["word"] == " blue" and len(found["gaps"][0]) == 5


@pytest.mark.parametrize(
    ("parts", "message"), [([b"no gap"], "has no gap"), ([b"a" * 200, b"b"], "reads 64")]
)
def test_texts_that_cannot_be_filled_are_refused(run, parts, message):
    with pytest.raises(BytelmError, match=message):
        package.load_filler(run).fill(parts)


def test_runs_of_other_kinds_are_refused_by_name(run):
    with pytest.raises(BytelmError, match="bytelm fill"):
        package.load_classifier(run)
    with pytest.raises(BytelmError, match="predicts no next bytes"):
        package.load(run)


def test_a_tokenizer_is_needed(tmp_path):
    tree = recipe_of(tmp_path).model_dump(exclude_unset=True)
    del tree["data"]["tokenizer"]
    with pytest.raises(RecipeError, match="name one with"):
        Recipe.from_dict(tree)
