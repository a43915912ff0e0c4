"""What a corpus knows about its documents: where they were, and the columns kept with them."""

import json
from pathlib import Path

import pytest

from bytelm.data import Corpus, Reading, open_source
from bytelm.errors import DataError
from tests.data.containers import zip_of


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A folder per class, with an archive in one of them."""
    for name in ("elf/a.so", "elf/deep/b.so", "text/c.txt", "loose"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "in" / "text" / "d.zip").write_bytes(zip_of({"x/e.txt": b"member"}))
    return tmp_path / "in"


def test_paths_are_relative_to_what_was_opened(collection: Path) -> None:
    paths = [document.meta.get("path") for document in open_source(collection)]
    assert paths == ["elf/a.so", "elf/deep/b.so", "loose", "text/c.txt", "text/d.zip!x/e.txt"]
    paths = [document.meta.get("path") for document in open_source(f"{collection}/elf/**/*.so")]
    assert paths == ["a.so", "deep/b.so"]
    (document,) = open_source(collection / "loose")
    assert "path" not in document.meta


def test_a_built_corpus_gives_the_folder_as_a_label(collection: Path, tmp_path: Path) -> None:
    corpus = Corpus.build(collection, tmp_path / "c")
    assert corpus.column("folder") == ["elf", "elf", None, "text", "text"]
    assert corpus.column("length") == [len(corpus.document(i)) for i in range(5)]
    assert corpus.column("source")[0] == str(collection / "elf" / "a.so")


def test_plain_files_and_built_corpora_join(collection: Path, tmp_path: Path) -> None:
    built = Corpus.build(collection / "text" / "d.zip", tmp_path / "c")
    corpus = Corpus.concat([built, Corpus.open(f"{collection}/*/*.*")])
    assert corpus.column("folder") == ["x", "elf", "text", "text"]
    assert corpus.column("sha256")[1:] == [None] * 3 and corpus.column("sha256")[0]
    assert corpus.column("media") == ["text"] * 4


def test_columns_of_records_are_kept_as_text(tmp_path: Path) -> None:
    records = [{"text": "x", "label": "a", "n": 1}, {"text": "y", "label": "b", "n": 2}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "r.jsonl").write_text(lines)
    reading = Reading(columns=("label", "n"))
    corpus = Corpus.build(tmp_path / "r.jsonl", tmp_path / "c", reading=reading)
    assert (corpus.column("label"), corpus.column("n")) == (["a", "b"], ["1", "2"])
    settings = json.loads((tmp_path / "c" / "corpus.json").read_text())["settings"]
    assert settings["reading"]["columns"] == ["label", "n"]
    with pytest.raises(DataError, match="unknown field 'lable'; did you mean 'label'"):
        Corpus.build(tmp_path / "r.jsonl", tmp_path / "d", reading=Reading(columns=("lable",)))


def test_an_unknown_column_comes_with_the_nearest_match(collection: Path) -> None:
    corpus = Corpus.open(collection / "loose")
    assert corpus.column("folder") == [None]
    with pytest.raises(DataError, match="unknown column 'foldr'; did you mean 'folder'"):
        corpus.column("foldr")
    with pytest.raises(DataError, match="'length' is one that every document has"):
        Reading(columns=("length",))
