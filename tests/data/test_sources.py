"""Sources: every container gives back the bytes put in, in a fixed order."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bytelm.data import Document, Reading, Source, open_source
from bytelm.errors import DataError
from tests.data.containers import ARCHIVES, MEMBERS, ar_of, tar_of, zip_of

RECORDS = [
    {"text": "plain"},
    {"text": ""},
    {"text": "naïve 日本", "meta": {"body": "inner"}},
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(spec, **reading) -> list[bytes]:
    return [document.data for document in open_source(spec, reading=Reading(**reading))]


def test_a_folder_is_read_in_sorted_order_each_file_as_it_stands(tmp_path):
    for name in ("b/2.txt", "a.bin", "b/10.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert read(tmp_path) == [b"a.bin", b"b/10.txt", b"b/2.txt"]
    assert read(str(tmp_path / "**" / "*.txt")) == [b"b/10.txt", b"b/2.txt"]
    assert read([tmp_path / "b", tmp_path / "a.bin"])[-1] == b"a.bin"


def test_the_group_of_a_file_is_itself_or_its_folder(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1").write_bytes(b"1")
    for by_folder, group in ((False, "x/1"), (True, "x")):
        (document,) = open_source(tmp_path, reading=Reading(group_by_folder=by_folder))
        assert document.meta["group"] == group


@pytest.mark.parametrize("suffix", PACKERS)
def test_json_lines_in_any_compression(tmp_path, suffix):
    path = tmp_path / f"r.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](LINES))
    assert read(path) == [record["text"].encode() for record in RECORDS]
    assert read(path, raw=True) == [path.read_bytes()]


def test_fields_may_be_nested_and_groups_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": {"b": "deep"}, "repo": "r1"}\n\n{"a.b": "flat", "repo": "r2"}\n')
    documents = list(open_source(path, reading=Reading(field="a.b", group="repo")))
    assert [(d.data, d.meta["group"]) for d in documents] == [(b"deep", "r1"), (b"flat", "r2")]
    assert documents[1].meta["path"] == "line 3"


def test_lone_surrogates_survive(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "\\ud800"}\n')
    assert read(path) == [b"\xed\xa0\x80"]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"txet": "x"}', "did you mean 'txet'"),
        ('{"text": 5}', "is int, not text"),
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ('"text"', "unknown field 'text'"),
    ],
)
def test_broken_records_name_their_line(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read(path)


def test_broken_compression_is_named(tmp_path):
    for suffix, pack in PACKERS.items():
        if suffix:
            path = tmp_path / f"r.jsonl{suffix}"
            path.write_bytes(pack(LINES * 100)[:-9])
            with pytest.raises(DataError, match="r.jsonl"):
                read(path)


def test_parquet_text_and_binary_columns(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table({"text": ["a", "ü"], "raw": [b"\xff\x00", b""], "n": [1, 2]})
    parquet.write_table(table, path)
    assert read(path) == [b"a", "ü".encode()]
    assert read(path, field="raw") == [b"\xff\x00", b""]
    (document, _) = open_source(path, reading=Reading(group="text"))
    assert document.meta["group"] == "a"
    with pytest.raises(DataError, match="did you mean 'text'"):
        read(path, field="texts")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path)


def test_text_columns_that_are_not_utf8_keep_their_bytes(tmp_path):
    for kind in (pa.string(), pa.large_string()):
        wrong = pa.array([b"\xff\xfe", None], pa.binary()).view(pa.binary())
        wrong = wrong.cast(pa.large_binary()) if kind == pa.large_string() else wrong
        column = pa.Array.from_buffers(kind, 2, wrong.buffers())
        parquet.write_table(pa.table({"text": column.slice(0, 1)}), tmp_path / "t.parquet")
        assert read(tmp_path / "t.parquet") == [b"\xff\xfe"]


def test_saved_data_sets_of_the_datasets_library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one", "two"]})
    data.save_to_disk(tmp_path / "single")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "split")
    assert read(f"hf:{tmp_path / 'single'}") == [b"one", b"two"]
    assert read(f"hf:{tmp_path / 'split'}?split=train") == [b"one", b"two"]
    with pytest.raises(DataError, match="did you mean 'train'"):
        read(f"hf:{tmp_path / 'split'}?split=trian")
    with pytest.raises(DataError, match="did you mean 'streaming'"):
        open_source("hf:x?streamin=true")


def test_streaming_data_sets_are_read_in_order(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(LINES)
    assert read(f"hf:{tmp_path}") == [record["text"].encode() for record in RECORDS]


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_come_back_in_stored_order(tmp_path, name):
    (tmp_path / name).write_bytes(ARCHIVES[name])
    documents = list(open_source(tmp_path / name))
    assert [(d.meta["path"], d.data) for d in documents] == list(MEMBERS.items())
    assert {d.meta["group"] for d in documents} == {name}


@pytest.mark.parametrize("suffix", [s for s in PACKERS if s])
def test_a_compressed_file_is_one_document(tmp_path, suffix):
    path = tmp_path / f"book.txt{suffix}"
    path.write_bytes(PACKERS[suffix](b"call me"))
    (document,) = open_source(path)
    assert (document.data, document.meta["path"]) == (b"call me", "book.txt")


def test_a_debian_package_is_opened_through_its_tar(tmp_path):
    data = lzma.compress(tar_of({"./usr/bin/tool": b"\x7fELF"}))
    deb = ar_of({"debian-binary": b"2.0\n", "data.tar.xz": data})
    (tmp_path / "p.deb").write_bytes(deb)
    documents = {d.meta["path"]: d.data for d in open_source(tmp_path / "p.deb")}
    assert documents == {"debian-binary": b"2.0\n", "data.tar.xz!./usr/bin/tool": b"\x7fELF"}


def test_ar_long_names_of_both_kinds(tmp_path):
    table = b"a_very_long_member_name.o/\nanother_very_long_name.o/\n"
    system_v = b"!<arch>\n"
    for name, content in (("/", b"sym."), ("//", table), ("/27", b"two")):
        system_v += f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(content):<10}`\n".encode() + content
        system_v += b"\n" * (len(content) % 2)
    bsd = b"!<arch>\n" + f"{'#1/8':<16}{0:<12}{0:<6}{0:<6}{0:<8}{11:<10}`\n".encode()
    bsd += b"long.o\0\0abc\n"
    for name, content, expected in (
        ("v.a", system_v, ("another_very_long_name.o", b"two")),
        ("b.a", bsd, ("long.o", b"abc")),
    ):
        (tmp_path / name).write_bytes(content)
        (document,) = open_source(tmp_path / name)
        assert (document.meta["path"], document.data) == expected


def test_links_and_devices_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("real")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))
    assert read(tmp_path / "x.tar") == [b"data"]


@pytest.mark.parametrize("pack", [zip_of, tar_of, ar_of])
def test_names_that_climb_out_are_only_names(tmp_path, pack):
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    suffix = {zip_of: "zip", tar_of: "tar", ar_of: "a"}[pack]
    names = ["../../evil", "/abs/evil"]
    (inside / f"x.{suffix}").write_bytes(pack(dict.fromkeys(names, b"boo")))
    before = sorted(tmp_path.rglob("*"))
    documents = list(open_source(inside / f"x.{suffix}"))
    assert [d.data for d in documents] == [b"boo", b"boo"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"")
    with pytest.raises(DataError, match="did you mean 'corpus.txt'"):
        open_source(tmp_path / "corpsu.txt")
    with pytest.raises(DataError, match="no file matches"):
        open_source(str(tmp_path / "*.gz"))
    with pytest.raises(DataError, match="not int"):
        open_source(5)


def test_a_source_of_ones_own_is_used_as_it_is():
    class Squares(Source):
        def __iter__(self):
            return (Document(b"%d" % (i * i)) for i in range(3))

    assert read([Squares(), Squares()]) == [b"0", b"1", b"4"] * 2
