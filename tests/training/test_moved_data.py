"""Data is known by its content: it may move, have any name, and lie in any container."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from bytelm.errors import DataError, RecipeError
from bytelm.run import Run
from bytelm.training import train
from tests.training.runs import TEXT, outcome, tiny_recipe


@pytest.fixture
def half(tmp_path):
    """A recipe of 12 steps, a run of it that was stopped after 6, and one that was not."""
    recipe = tiny_recipe(tmp_path, "train.keep_last=9")
    whole = train(recipe, run_dir=tmp_path / "whole")
    run = shutil.copytree(whole, tmp_path / "run")
    for step in (9, 12):
        shutil.rmtree(run / "trainer" / f"step-{step:08d}")
    return recipe, run, whole


def test_a_run_resumes_when_its_data_has_moved(tmp_path, half):
    """Issue 9, case 61: the paths had to be the same, although the content is hashed."""
    recipe, run, whole = half
    (tmp_path / "new").mkdir()
    for name in ("train.txt", "heldout.txt"):
        shutil.move(tmp_path / name, tmp_path / "new" / name)
    there = recipe.override(
        [f'data.train=["{tmp_path}/new/train.txt"]', f'data.heldout=["{tmp_path}/new/held*.txt"]']
    )
    train(there, run_dir=run, resume=True)
    assert outcome(run)[1] == outcome(whole)[1]
    assert outcome(run)[0] == outcome(whole)[0]


@pytest.mark.parametrize("changed", ["train", "heldout"])
def test_other_content_under_the_same_name_is_refused(tmp_path, half, changed):
    recipe, run, _ = half
    path = tmp_path / f"{changed}.txt"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises((DataError, RecipeError), match="other data|not what .* was begun with"):
        train(recipe, run_dir=run, resume=True)


def test_the_same_text_in_any_place_is_the_same_training(tmp_path, half):
    """Plain, compressed, as a record, in a folder, behind a name that is not UTF-8."""
    recipe, _, whole = half
    packed = {
        "a.txt.gz": gzip.compress(TEXT),
        "b.jsonl": json.dumps({"text": TEXT.decode()}).encode(),
        "folder/c": TEXT,
    }
    for name, data in packed.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(odd).write_bytes(TEXT)
    paths = [*(f"{tmp_path}/{name}" for name in packed), f"{tmp_path}/folder", odd]
    for number, path in enumerate(paths):
        there = recipe.override([f'data.train=["{path}"]'])
        run = train(there, run_dir=tmp_path / f"run{number}")
        assert outcome(run)[1] == outcome(whole)[1], path
    assert Run(run).recipe().data.train == ["file:" + f"{tmp_path}/caf%E9.txt"]
    resumed = train(Run(run).recipe(), run_dir=run, resume=True)
    assert outcome(resumed)[1] == outcome(whole)[1]


def test_how_the_same_documents_are_read_may_change_on_resume(tmp_path):
    """As after records were packed otherwise, and their field renamed."""
    text = TEXT.decode()
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"words": text}).encode()))
    recipe = tiny_recipe(tmp_path, "train.keep_last=9", f'data.train=["{tmp_path}/a.jsonl"]')
    whole = train(recipe, run_dir=tmp_path / "whole")
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "trainer" / "step-00000012")
    there = recipe.override([f'data.train=["{tmp_path}/b.jsonl.gz"]', "data.max_unpacked=1GiB"])
    with pytest.raises(DataError, match="choose one with data.field"):
        train(there, run_dir=run, resume=True)
    train(there.override(["data.field=words"]), run_dir=run, resume=True)
    assert outcome(run)[1] == outcome(whole)[1]
