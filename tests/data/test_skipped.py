"""What is left out or taken as it stands is counted, with its place; strict makes it an error, and
skip_errors turns errors into such notes."""

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bytelm.data import Reading, open_source
from bytelm.data.corpus.records import RecordFields, open_records
from bytelm.data.sources import Limits
from bytelm.errors import DataError
from tests.data.containers import ar_of, tar_of, zip_of


def read(path, **options) -> tuple[list[bytes], dict[str, int]]:
    reading = Reading(**options)
    found = [document.data for document in open_source(path, reading=reading)]
    return found, dict(reading.notes.counts)


def write(path, data: bytes):
    path.write_bytes(data)
    return path


# ---- archives -----------------------------------------------------------------------------------


def tar_with(*infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in infos:
            archive.addfile(info)
    return out.getvalue()


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def linked_zip() -> bytes:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, "target")
        archive.writestr("real", b"data")
    return out.getvalue()


def changed(archive: bytes, flag: int = 0, method: int | None = None) -> bytes:
    """A zip file of one member with other flags, or another method, in both headers."""
    data = bytearray(archive)
    at = data.index(b"PK\x01\x02")
    for flags, methods in ((6, 8), (at + 8, at + 10)):
        data[flags] |= flag
        if method is not None:
            data[methods : methods + 2] = struct.pack("<H", method)
    return bytes(data)


def damaged_content() -> bytes:
    data = bytearray(zip_of({"a": b"some bytes"}, method=0))
    data[data.index(b"some")] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    "name, data, kind, documents",
    [
        ("x.tar", tar_with(special(tarfile.SYMTYPE)), "link", []),
        ("x.tar", tar_with(special(tarfile.LNKTYPE)), "link", []),
        ("x.tar", tar_with(special(tarfile.CHRTYPE)), "device", []),
        ("x.tar", tar_with(special(tarfile.BLKTYPE)), "device", []),
        ("x.tar", tar_with(special(tarfile.FIFOTYPE)), "device", []),
        ("x.zip", linked_zip(), "link", [b"data"]),
        ("x.whl", zip_of({"in.zip": linked_zip()}), "link", [b"data"]),
    ],
)
def test_what_has_no_bytes_of_its_own_is_counted(tmp_path, name, data, kind, documents):
    path = write(tmp_path / name, data)
    assert read(path) == (documents, {kind: 1})
    with pytest.raises(DataError, match=f"strict: {kind}.*{name}"):
        read(path, strict=True)


@pytest.mark.parametrize(
    "data, kind",
    [
        (changed(zip_of({"a": b"x"}), flag=1), "encrypted member"),
        (changed(zip_of({"a": b"x"}), method=97), "unsupported member"),
        (damaged_content(), "damaged member"),
    ],
)
def test_what_cannot_be_read_is_an_error_or_counted(tmp_path, data, kind):
    path = write(tmp_path / "x.zip", data)
    for options in ({}, {"strict": True}):
        with pytest.raises(DataError, match="x.zip, member a.*--skip-errors"):
            read(path, **options)
    assert read(path, skip_errors=True) == ([], {kind: 1})
    whole = write(tmp_path / "y.whl", zip_of({"1": b"one", "in.zip": data, "2": b"two"}))
    with pytest.raises(DataError, match="in.zip, member a"):
        read(whole)
    assert read(whole, skip_errors=True) == ([b"one", b"two"], {kind: 1})


def test_the_rest_of_a_damaged_file_is_skipped_with_its_place(tmp_path):
    damaged = bytearray(tar_of({"1": b"one", "2": b"two", "3": b"three"}))
    damaged[1024 + 3] ^= 1
    write(tmp_path / "b.tar", bytes(damaged))
    write(tmp_path / "c.txt", b"more")
    with pytest.raises(DataError, match=r"b.tar: .*header is damaged.*at byte 1024"):
        read(tmp_path)
    reading = Reading(skip_errors=True)
    found = [document.data for document in open_source(tmp_path, reading=reading)]
    assert found == [b"one", b"more"]
    (place,) = reading.notes.report()["skipped"]["damaged file"]["places"]
    assert "b.tar" in place and "byte 1024" in place


@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz", "b.jsonl", "b.tar", "b.parquet"])
def test_a_file_that_may_not_be_read_is_an_error_or_skipped(tmp_path, monkeypatch, name):
    write(tmp_path / "a.txt", b"one")
    write(tmp_path / name, b"two")
    reach = Path.open

    def opened(self, *args, **options):
        if self.name == name:  # root may read what chmod forbids
            raise PermissionError(13, "Permission denied", str(self))
        return reach(self, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(DataError, match=f"{name}: Permission denied. --skip-errors"):
        read(tmp_path)
    assert read(tmp_path, skip_errors=True) == ([b"one"], {"unreadable file": 1})


def test_strict_and_skip_errors_contradict_each_other():
    with pytest.raises(DataError, match="choose one"):
        Reading(strict=True, skip_errors=True)


# ---- tar: what the library takes for the end ---------------------------------------------------

FOUR = {name: name.encode() * 700 for name in "abcd"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_flipped_bit_in_the_third_header_is_no_end(tmp_path, pack):
    """2 of 4 documents and status 0, also inside an intact .tar.gz."""
    data = bytearray(tar_of(FOUR))
    data[2 * (512 + 1024) + 5] ^= 1
    path = write(tmp_path / "x.tar.gz", pack(bytes(data)))
    with pytest.raises(DataError, match=r"x.tar.gz.*header is damaged.*at byte 3072"):
        read(path)


def test_a_tar_cut_at_a_member_border_is_an_error_and_joined_ones_are_read(tmp_path):
    data = tar_of(FOUR)
    for members in range(5):
        path = write(tmp_path / "x.tar", data[: members * (512 + 1024)])
        with pytest.raises(DataError, match="cut short: no end mark|is empty"):
            read(path)
    assert read(write(tmp_path / "x.tar", data + data))[0] == [*FOUR.values()] * 2


def test_an_empty_tar_is_one_with_an_end_mark(tmp_path):
    assert read(write(tmp_path / "x.tar", tar_of({}))) == ([], {})


SPARSE = ("old", "0.0", "0.1", "1.0")


@pytest.mark.parametrize("version", SPARSE)
def test_sparse_members_have_their_bytes(tmp_path, version):
    """`tar -S` members were passed over silently."""
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        for place in range(0, 1 << 20, 100_000):  # more pieces than one header holds
            stream.seek(place)
            stream.write(b"piece %d" % place)
        stream.truncate((1 << 20) + 5)
    how = ["--format=gnu"] if version == "old" else [f"--sparse-version={version}"]
    how = how if version == "old" else ["--format=posix", *how]
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-S", *how, "-C", tmp_path, "-cf", archive, "sparse"], check=True)
    assert archive.stat().st_size < 200_000, "it is sparse"
    assert read(archive) == ([path.read_bytes()], {})
    with pytest.raises(DataError, match="--max-unpacked"):
        read(archive, limits=Limits(unpacked_bytes=1 << 19))


# ---- the content decides -----------------------------------------------------------------------

TEXT = b"neither packed nor an archive, whatever its name says"


@pytest.mark.parametrize(
    "name",
    ["b.txt.gz", "b.bz2", "b.xz", "b.zst", "b.zip", "b.whl", "b.tar", "b.tar.gz", "b.tgz", "b.a"]
    + ["b.deb", "b.lib", "b.parquet"],
)
@pytest.mark.parametrize("content", [TEXT * 20, b"!<thin>\n" + TEXT * 9, bytes(range(1, 200)) * 9])
def test_a_wrong_name_is_noted_and_the_file_taken_as_it_stands(tmp_path, name, content):
    write(tmp_path / name, content)
    write(tmp_path / "z.txt", b"beside it")
    assert read(tmp_path) == ([content, b"beside it"], {"misnamed file": 1})
    with pytest.raises(DataError, match=f"strict: misnamed file.*{name}"):
        read(tmp_path, strict=True)


@pytest.mark.parametrize("name", ["in.zip", "in.tar.gz", "in.lib", "in.txt.xz"])
@pytest.mark.parametrize("pack", [zip_of, tar_of, ar_of])
def test_a_misnamed_member_does_not_refuse_the_whole_archive(tmp_path, name, pack):
    suffix = {zip_of: "whl", tar_of: "tar", ar_of: "a"}[pack]
    path = write(tmp_path / f"x.{suffix}", pack({"a": b"one", name: TEXT, "b": b"two"}))
    assert read(path) == ([b"one", TEXT, b"two"], {"misnamed file": 1})


@pytest.mark.parametrize(
    "name, data",
    [
        ("x.tar.gz", tar_of({"a": b"text"})),
        ("x.tar.gz", lzma.compress(tar_of({"a": b"text"}))),
        ("x.tar", gzip.compress(tar_of({"a": b"text"}), mtime=0)),
        ("x.zip", tar_of({"a": b"text"})),
        ("x.tar", zip_of({"a": b"text"})),
        ("x.txt.gz", zstandard.ZstdCompressor().compress(b"text")),
        ("x.jsonl.gz", b'{"text": "text"}\n'),
        ("x.jsonl", gzip.compress(b'{"text": "text"}\n', mtime=0)),
    ],
)
def test_another_format_than_the_name_says_is_read_by_its_content(tmp_path, name, data):
    assert read(write(tmp_path / name, data), strict=True) == ([b"text"], {})


@pytest.mark.parametrize("name", ["b.txt.gz", "b.tar.gz", "b.zip", "b.a", "b.xz", "b.parquet"])
@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_wrong_name_of_a_short_file_is_noted_too(tmp_path, name, size):
    path = write(tmp_path / name, TEXT[:size])
    assert read(path) == ([TEXT[:size]], {"misnamed file": 1})


@pytest.mark.parametrize(
    "name, data",
    [
        ("x.tar", b"cut"),
        ("x.txt.gz", b"\x1f"),
        ("x.tar.xz", b"\xfd7z"),
        ("x.zip", b"PK\x03"),
        ("x.a", b"!<ar"),
        ("x.parquet", b"PA"),
        ("x.jsonl.gz", b""),
        ("x.whl", b""),
    ],
)
def test_files_that_are_cut_to_next_to_nothing_are_errors(tmp_path, name, data):
    write(tmp_path / name, data)
    write(tmp_path / "z.txt", b"beside it")
    with pytest.raises(DataError, match=name):
        read(tmp_path)
    assert read(tmp_path, skip_errors=True) == ([b"beside it"], {"damaged file": 1})


def test_names_that_claim_nothing_are_never_opened(tmp_path):
    data = zip_of({"word/document.xml": b"<xml/>"})
    assert read(write(tmp_path / "report.docx", data)) == ([data], {})


# ---- records -----------------------------------------------------------------------------------

LINES = b'{"text": "one"}\n{"text": null}\nbroken\n{"txet": "x"}\n{"text": 5}\n{"text": "two"}\n'


def test_bad_records_are_counted_with_their_lines(tmp_path):
    path = write(tmp_path / "r.jsonl", LINES)
    with pytest.raises(DataError, match="line 3: not JSON.*--skip-errors"):
        read(path)
    reading = Reading(skip_errors=True)
    assert [d.data for d in open_source(path, reading=reading)] == [b"one", b"two"]
    skipped = reading.notes.report()["skipped"]
    assert {kind: found["count"] for kind, found in skipped.items()} == {
        "damaged record": 3,
        "null record": 1,
    }
    assert [p.split(", ")[1][:6] for p in skipped["damaged record"]["places"]] == [
        "line 3",
        "line 4",
        "line 5",
    ]


def test_nulls_are_counted_and_not_called_a_wrong_field(tmp_path):
    lines = write(tmp_path / "r.jsonl", b'{"text": null}\n{"text": "x"}\n')
    parquet.write_table(pa.table({"text": [None, "x"]}), tmp_path / "r.parquet")
    for path in (lines, tmp_path / "r.parquet"):
        assert read(path) == ([b"x"], {"null record": 1})
        with pytest.raises(DataError, match="field 'text' is null"):
            read(path, strict=True)


def test_records_with_null_fields_do_not_shift_the_fields_beside_them(tmp_path):
    """Texts and byte columns are told by their records, not counted."""
    path = tmp_path / "r.jsonl"
    fields = RecordFields(text="text", byte_columns=("source",))
    write(path, b'{"text": "1", "source": "a"}\n{"text": null, "source": "b"}\n')
    with path.open("ab") as stream:
        stream.write(b'{"text": "3", "source": "c"}\n')
    corpus = open_records(path, fields=fields)
    assert [corpus.document(i).tobytes() for i in range(2)] == [b"1", b"3"]
    assert list(corpus.column("source")) == [b"a", b"c"]
    write(path, b'{"text": "1", "source": null}\n')
    with pytest.raises(DataError, match="line 1: the field 'source' is null"):
        open_records(path, fields=fields)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_json_lines_called_json_are_records_and_json_values_are_documents(tmp_path, suffix):
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"c4.json{suffix}"
    lines = b'{"text": "one"}\n\n{"text": "two", "n": 2}\n'
    assert read(write(path, pack(lines)))[0] == [b"one", b"two"]
    other = b'{"name": "one"}\n{"name": "two"}\n'
    assert read(write(path, pack(other))) == ([other], {"misnamed file": 1})
    assert read(path, field="name")[0] == [b"one", b"two"]
    for value in (b'{"text": "one"}\n', json.dumps({"text": "x"}, indent=1).encode(), b"[1,\n2]"):
        assert read(write(path, pack(value))) == ([value], {})


def invalid_texts() -> dict[str, tuple[pa.Array, str]]:
    """Columns of two texts, the first of which is not UTF-8, and the field that names them."""
    raw = pa.array([b"\xff\xfe", b"ok"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    struct = pa.StructArray.from_arrays
    ends = pa.array([0, 1, 2])
    return {
        "plain": (text, "c"),
        "view": (text.cast(pa.string_view()), "c"),
        "dictionary": (text.dictionary_encode(), "c"),
        "nested": (struct([text], ["t"]), "c.t"),
        "nested dictionary": (struct([text.dictionary_encode()], ["t"]), "c.t"),
        "deep": (struct([struct([text], ["t"])], ["s"]), "c.s.t"),
        "beside a list": (struct([text, pa.ListArray.from_arrays(ends, text)], ["t", "l"]), "c.t"),
        "beside a map": (
            struct([text, pa.MapArray.from_arrays(ends, text, text)], ["t", "m"]),
            "c.t",
        ),
    }


@pytest.mark.parametrize("case", invalid_texts())
@pytest.mark.parametrize("dictionary", [True, False])
def test_texts_of_parquet_that_are_not_utf8_keep_their_bytes(tmp_path, case, dictionary):
    column, field = invalid_texts()[case]
    table = pa.table({"c": column})
    parquet.write_table(table, tmp_path / "t.parquet", use_dictionary=dictionary)
    assert read(tmp_path / "t.parquet", field=field) == ([b"\xff\xfe", b"ok"], {})
