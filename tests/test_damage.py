"""What a damaged file raises becomes one sentence, and nothing is built that it cannot fill."""

import gzip
import json

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

import bytelm
from bytelm.damage import gunzip, malformed, one_line, parse_json, read_object
from bytelm.errors import BytelmError, CheckpointError, DataError, MissingExtraError
from bytelm.model_bounds import bounded_by


@pytest.mark.parametrize(
    ("raise_it", "message"),
    [
        (lambda: {}["vocab"], "it has no 'vocab'"),
        (lambda: [][3], "IndexError: list index out of range"),
        (lambda: None.get("x"), "AttributeError: 'NoneType' object has no attribute 'get'"),
        (lambda: int("x"), "invalid literal for int"),
        (lambda: bytearray(1 << 60), "it asks for more memory than there is"),
        (lambda: TypeAdapter(int).validate_python("x"), ": Input should be a valid integer"),
        (lambda: parse_json("[" * 100_000), "it is nested too deeply"),
        (lambda: b"\xff".decode(), "can't decode byte 0xff"),
        (lambda: float("a\nb" * 999), r"could not convert .* \.\.\. .*'$"),
    ],
)
def test_whatever_a_wrong_shape_raises_is_the_error_of_the_file(raise_it, message):
    with pytest.raises(DataError, match="^f is not a vocabulary, or is damaged: .*" + message) as e:
        with malformed("f", "a vocabulary", error=DataError):
            raise_it()
    assert "\n" not in str(e.value) and len(str(e.value)) < 300


def test_what_is_no_damage_passes():
    for error in (AssertionError("ours"), FileNotFoundError("f"), KeyboardInterrupt()):
        with pytest.raises(type(error)), malformed("f", "a vocabulary"):
            raise error
    missing = MissingExtraError("gguf", "hf", "loading")
    with pytest.raises(MissingExtraError) as raised, malformed("f", "a vocabulary"):
        raise missing
    assert raised.value is missing
    with pytest.raises(CheckpointError) as raised, malformed("f", "a vocabulary"):
        raise DataError("a\nb" + "x" * 5000)  # a file's own text in a message of ours
    assert str(raised.value).startswith("a b") and len(str(raised.value)) == 1000


class PanicException(BaseException):
    """As pyo3 raises it for a failed check in Rust."""


def test_a_panic_of_a_library_in_rust_is_damage():
    with pytest.raises(CheckpointError, match="PanicException: index out of bounds"):
        with malformed("f", "a vocabulary"):
            raise PanicException("index out of bounds")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1]", "holds a list, not a JSON object"),
        (b"", "is not JSON of a thing"),
        (b"\xff", "is not JSON of a thing"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b'{"a": "' + b"x" * 100 + b'"}', "has 109 bytes, and a thing at most 99"),
    ],
)
def test_read_object_takes_objects_alone(data, message, tmp_path):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_object(tmp_path / "f", "a thing", largest=99 if len(data) < 200 else 1 << 20)


def test_a_compressed_file_is_bounded():
    assert gunzip(gzip.compress(b"x" * 50), largest=50) == b"x" * 50
    with pytest.raises(ValueError, match="more than 49 bytes"):
        gunzip(gzip.compress(b"x" * 50), largest=49)
    for broken in (gzip.compress(b"x" * 50)[:-9], b"\x1f\x8bx", gzip.compress(b"x")[:-1] + b"?"):
        with pytest.raises(ValueError, match="stream is damaged"):
            gunzip(broken)


def test_one_line_keeps_both_ends():
    assert one_line("abc" * 99, longest=20) == "abcabcabca ... bcabc"


class Deep(nn.Module):
    def __init__(self, layers: int, width: int, buffer: int = 1):
        super().__init__()
        self.register_buffer("mask", torch.empty(buffer))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))


@pytest.mark.parametrize(
    "sizes", [(10**12, 4), (2, 10**6), (2, 4, 1 << 29)], ids=["deep", "wide", "buffer"]
)
def test_a_model_is_no_larger_than_its_weights(sizes):
    shapes = [(4, 4), (4,)] * 2
    with torch.device("meta"):
        with bounded_by(shapes, "here"):
            Deep(2, 4)
        with pytest.raises(CheckpointError, match="in here asks for a larger model"):
            with bounded_by(shapes, "here"):
                Deep(*sizes)
        Deep(3, 10**6)  # outside nothing is bounded


def test_other_threads_are_not_bounded():
    from concurrent.futures import ThreadPoolExecutor

    with bounded_by([(1,)], "here"), torch.device("meta"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: len(Deep(2000, 2).layers)).result() == 2000


@pytest.mark.parametrize("setting", [{"layers": 10**9}, {"hidden": 10**9}, {"d_model": 10**8}])
def test_a_run_that_asks_for_a_huge_model_is_refused_at_once(setting, tmp_path):
    from tests.lm.contract import transformer
    from tests.lm.runs import save_run

    save_run(transformer(), tmp_path, arch="transformer")
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"].update(setting)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BytelmError) as raised:
        bytelm.load(tmp_path)
    assert "\n" not in str(raised.value)
