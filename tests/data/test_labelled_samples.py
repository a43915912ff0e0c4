"""The samples that the encoder's and the encoder-decoder's recipes learn from: what is in them."""

import gzip
import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[2]
FORMATS, PAIRS = ROOT / "data" / "formats", ROOT / "data" / "pairs"


@pytest.fixture(scope="module")
def makers():
    sys.path.insert(0, str(ROOT / "benchmarks" / "fetch"))
    try:
        import make_formats
        import make_pairs
    finally:
        sys.path.pop(0)
    return make_formats, make_pairs


def rows_of(name: str) -> list[dict]:
    return parquet.read_table(FORMATS / f"{name}.parquet").to_pylist()


def test_formats_are_what_their_script_makes_of_the_other_samples(makers):
    for name, *parts in zip(
        ("train", "heldout"), makers[0].languages(), makers[0].executables(), strict=True
    ):
        made = {key: text for part in parts for key, text in part.items()}
        assert {row["path"]: row["text"] for row in rows_of(name)} == made
        assert all(row["path"].startswith(f"{row['label']}/") for row in rows_of(name))


def test_no_held_out_document_is_in_the_training_data():
    train, heldout = rows_of("train"), rows_of("heldout")
    assert {row["label"] for row in train} == {row["label"] for row in heldout}
    everything = b"\0".join(row["text"] for row in train)
    for row in heldout:
        assert row["text"][:256] not in everything, row["path"]


def test_pairs_are_what_their_script_draws_and_no_source_is_in_both_files(makers):
    _, make_pairs = makers
    every = make_pairs.sources()
    parts = {"heldout": every[: make_pairs.HELDOUT], "train": every[make_pairs.HELDOUT :]}
    for name, sources in parts.items():
        lines = gzip.decompress((PAIRS / f"{name}.jsonl.gz").read_bytes()).splitlines()
        expected = [{"source": s, "target": make_pairs.task(s)} for s in sources]
        assert [json.loads(line) for line in lines] == expected
    assert not set(parts["heldout"]) & set(parts["train"])


def test_the_task_can_be_undone(makers):
    _, make_pairs = makers
    for source in make_pairs.sources()[:200]:
        assert make_pairs.task(make_pairs.task(source)) == source
