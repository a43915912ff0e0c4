"""What unpacking may cost is limited alike, whatever the container."""

import gzip
import io
import json
import lzma

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bytelm.data.sources import Limits
from bytelm.errors import DataError
from tests.data.containers import tar_of, zip_of
from tests.data.test_skipped import read, write


def bombs() -> dict[str, bytes]:
    zeros = bytes(4 << 20)
    rows = io.BytesIO()
    parquet.write_table(pa.table({"text": [zeros.decode()]}), rows, compression="zstd")
    line = json.dumps({"text": zeros.decode("latin-1").replace("\0", "0")}).encode()
    return {
        "x.txt.gz": gzip.compress(zeros),
        "x.txt.zst": zstandard.ZstdCompressor().compress(zeros),
        "x.tar.xz": lzma.compress(tar_of({"a": zeros})),
        "x.zip": zip_of({"a": zeros}),
        "x.whl": zip_of({"in.zip": zip_of({"a": zeros})}),
        "x.jsonl.gz": gzip.compress(line),
        "x.parquet": rows.getvalue(),
    }


@pytest.mark.parametrize("name", bombs())
def test_limits_are_the_same_on_all_roads(tmp_path, name):
    path = write(tmp_path / name, bombs()[name])
    assert sum(map(len, read(path)[0])) >= 4 << 20
    for limits, option in (
        (Limits(floor_bytes=1 << 20), "--max-ratio"),
        (Limits(unpacked_bytes=1 << 20), "--max-unpacked"),
    ):
        with pytest.raises(DataError, match=f"{name}.*{option}"):
            read(path, limits=limits)
        assert read(path, limits=limits, skip_errors=True) == ([], {"damaged file": 1})
