"""The header of a GGUF file is walked against what the file really holds."""

import struct

import pytest

pytest.importorskip("gguf")
from bytelm.errors import CheckpointError
from bytelm.exact.gguf_header import check_gguf

STRING, ARRAY, UINT8, UINT32 = 8, 9, 0, 4


def text(data: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "Q", len(data)) + data


def entry(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, content: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + content


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, 0)


def nested(depth: int) -> bytes:
    value = array(UINT8, 1, b"\0")
    for _ in range(depth):
        value = array(ARRAY, 1, value)
    return value


def file_of(entries: list[bytes], tensors: list[bytes], *, counts=None, version=3) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, *(counts or (len(tensors), len(entries))))
    return head + b"".join(entries) + b"".join(tensors) + bytes(4096)


SOUND = {
    "nothing": (file_of([], []), []),
    "values": (
        file_of(
            [
                entry(b"a", UINT32, bytes(4)),
                entry(b"b", STRING, text(b"text")),
                entry(b"c", ARRAY, array(STRING, 2, text(b"x") + text(b""))),
                entry(b"d", ARRAY, nested(4)),
            ],
            [tensor(b"t", (4, 8)), tensor(b"u", (2, 2, 2, 2)), tensor(b"v", ())],
        ),
        [(4, 8), (2, 2, 2, 2), ()],
    ),
    "version 2": (file_of([], [tensor(b"t", (3,))], version=2), [(3,)]),
    "the other order": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0) + bytes(99), []),
}
HUGE = 1 << 60
BROKEN = {
    "empty": (b"", "too short"),
    "another file": (b"PK\3\4" + bytes(99), "does not begin with GGUF"),
    "version": (file_of([], [], version=9), "version 9"),
    "entries": (file_of([], [], counts=(0, HUGE)), "more than the file holds"),
    "tensors": (file_of([], [], counts=(HUGE, 0)), "more than the file holds"),
    "array": (file_of([entry(b"a", ARRAY, array(UINT8, HUGE, b""))], []), "more than the file"),
    "strings": (file_of([entry(b"a", ARRAY, array(STRING, HUGE, b""))], []), "more than the file"),
    "string": (file_of([entry(b"a", STRING, struct.pack("<Q", HUGE))], []), "more than the file"),
    "name": (file_of([struct.pack("<Q", HUGE)], []), "more than the file"),
    "type": (file_of([entry(b"a", 99, b"")], []), "no type 99"),
    "inner type": (file_of([entry(b"a", ARRAY, array(99, 1, b""))], []), "no type 99"),
    "depth": (file_of([entry(b"a", ARRAY, nested(5))], []), "nested too deeply"),
    "dimensions": (file_of([], [tensor(b"t", (1,) * 5)]), "5 dimensions"),
    "size": (file_of([], [tensor(b"t", (HUGE, HUGE))]), "larger than the file"),
    "quantisation": (file_of([], [tensor(b"t", (1,), 999)]), "unknown type 999"),
    "cut": (file_of([entry(b"a" * 9000, UINT32, bytes(4))], [])[:50], "more than the file holds"),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_headers_give_the_shapes_of_the_tensors(name, tmp_path):
    data, shapes = SOUND[name]
    (tmp_path / "m.gguf").write_bytes(data)
    assert check_gguf(tmp_path / "m.gguf") == shapes


@pytest.mark.parametrize("name", BROKEN)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(name, tmp_path):
    data, message = BROKEN[name]
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as raised:
        check_gguf(tmp_path / "m.gguf")
    assert str(raised.value).startswith(str(tmp_path / "m.gguf")) and "\n" not in str(raised.value)
