"""The samples that the encoder's recipe learns from: what is in them."""

import sys
from pathlib import Path

import pytest
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ROOT / "data" / "formats"


@pytest.fixture(scope="module")
def maker():
    sys.path.insert(0, str(ROOT / "benchmarks" / "fetch"))
    try:
        import make_formats
    finally:
        sys.path.pop(0)
    return make_formats


def rows_of(name: str) -> list[dict]:
    return parquet.read_table(FORMATS / f"{name}.parquet").to_pylist()


def test_formats_are_what_their_script_makes_of_the_other_samples(maker):
    for name, *parts in zip(
        ("train", "heldout"), maker.languages(), maker.executables(), strict=True
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
