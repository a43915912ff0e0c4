"""Every limit of unpacking strikes on every road that reads documents, and every error names the
setting that this road has: an option of the command, or a setting of [data] of the recipe."""

import gzip
import json
import os
import re
from dataclasses import fields

import pytest
import zstandard

from bytelm.cli.reading import ReadingOptions
from bytelm.data.settings import SETTINGS
from bytelm.data.sources import Limits
from bytelm.recipe_sections import DataSettings
from tests.data.containers import zip_of

RECIPE = """
[train]
steps = 1
batch_bytes = 64
context_bytes = 32
device = "cpu"
"""
MODELS = {
    "bytes": 'model = {arch = "transformer", layers = 1, d_model = 16, heads = 2}\n',
    "labels": 'model = {arch = "encoder", layers = 1, d_model = 16, heads = 2}\n'
    'objective = {kind = "classification", labels = "kind"}\n',
    "pairs": 'model = {arch = "t5", d_model = 16, heads = 2}\n'
    'objective = {kind = "seq2seq"}\n',
}  # fmt: skip
TEXT = b"The people of " * 3000


def records(**more: object) -> bytes:
    """Two lines that a classifier and a sequence-to-sequence model can be trained on."""
    pair = {"text": "x", "source": "s", "target": "t"}
    return "".join(json.dumps({**pair, "kind": kind, **more}) + "\n" for kind in "ab").encode()


RECORDS = records(more=TEXT.decode())


def zstd(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=14)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


FILES = {
    "text.txt.gz": gzip.compress(TEXT),
    "text.txt.zst": zstd(TEXT),
    "nested.zip": zip_of({"in.zip": zip_of({"a": TEXT})}),
    "members.zip": zip_of({"a": TEXT, "b": b"2", "c": b"3"}),
    "records.jsonl.gz": gzip.compress(RECORDS),
    "records.jsonl.zst": zstd(RECORDS),
    "small.jsonl": records(),
    "small.txt": TEXT[:2000],
}
# setting: (file that strikes it, the same as records, too little, enough)
LIMITS = {
    "max_unpacked": ("text.txt.gz", "records.jsonl.gz", "10k", "1MiB"),
    "max_ratio": ("text.txt.gz", "records.jsonl.gz", 2, 100_000),
    "max_nesting": ("nested.zip", None, 0, 1),
    "max_members": ("members.zip", None, 2, 3),
    "max_window": ("text.txt.zst", "records.jsonl.zst", "1k", "1MiB"),
}
# {file} is what is read, {option} a setting as an option, {setting} as one of [data]
ROADS = {
    "data build": "data build {file} --out {out} {option}",
    "data build split": "data build {file} {files}/some --heldout 0.5 --out {out} {option}",
    "data inspect": "data inspect {file} {option}",
    "eval": "eval {runs}/bytes {file} {option}",
    "eval primed": "eval {runs}/bytes {files}/small.txt --primed {file} {option}",
    "eval labels": "eval {runs}/labels {file} {option}",
    "eval pairs": "eval {runs}/pairs {file} {option}",
    "tokenizer train": "tokenizer train {file} --vocab-size 264 --out {out} {option}",
    "tokenizer inspect": "tokenizer inspect {runs}/tokenizer {file} {option}",
    "tokenizer evaluate": "tokenizer evaluate {runs}/tokenizer {file} {option}",
    "train": "train {runs}/bytes.toml data.train=['{file}'] --run {out} {setting}",
    "train weights": "train {runs}/bytes.toml data.train=['{files}/small.txt','{file}'] "
    "data.weights=[1.0,1.0] --run {out} {setting}",
    "train heldout": "train {runs}/bytes.toml data.train=['{files}/small.txt'] "
    "data.heldout=['{file}'] evaluate.every=1 evaluate.final=false --run {out} {setting}",
    "closing report": "train {runs}/bytes.toml data.train=['{files}/small.txt'] "
    "data.heldout=['{file}'] evaluate.every=0 --run {out} {setting}",
    "train labels": "train {runs}/labels.toml data.train=['{file}'] --run {out} {setting}",
    "train pairs": "train {runs}/pairs.toml data.train=['{file}'] --run {out} {setting}",
    "report of pairs": "train {runs}/pairs.toml data.train=['{files}/small.jsonl'] "
    "data.heldout=['{file}'] evaluate.every=0 --run {out} {setting}",
}
OVER_RECORDS = ("labels", "pairs")
AT_ONCE = ("data build", "eval", "eval pairs", "train", "train pairs")  # the others are slow tests


def case(*values: str, quick: bool) -> object:
    marks = () if quick else (pytest.mark.slow,)
    return pytest.param(*values, id="-".join(values), marks=marks)


CASES = [
    case(road, limit, quick=limit == "max_unpacked" or road in ("eval", "train"))
    for road in ROADS
    for limit in LIMITS
    if LIMITS[limit][1] or not road.endswith(OVER_RECORDS)
]


def test_commands_and_recipes_have_the_same_settings():
    """Described once, in the words of both; every limit but the floor of the ratio is one."""
    assert [field.name for field in fields(ReadingOptions)] == list(SETTINGS)
    described = {name: field.description for name, field in DataSettings.model_fields.items()}
    assert SETTINGS.items() <= described.items()
    limits = {field.name for field in fields(Limits)} - {"floor_bytes"}
    assert (
        {Limits.setting(name) for name in limits}
        == {*LIMITS}
        == {n for n in SETTINGS if "max" in n}
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files to read, a recipe and a trained run of each family, and a tokenizer."""
    from bytelm.tokenizer import BinaryBPE
    from bytelm.training import train

    files, runs = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("runs")
    for name, data in FILES.items():
        (files / name).write_bytes(data)
    (files / "some").mkdir()
    for number in range(9):
        (files / "some" / f"{number}.txt").write_bytes(b"%d" % number)
    for name, model in MODELS.items():
        small = files / ("small.txt" if name == "bytes" else "small.jsonl")
        policy = "concat" if name == "bytes" else "truncate"
        data = f"data = {{train = ['{small}'], policy = '{policy}'}}\n"
        (runs / f"{name}.toml").write_text(model + data + RECIPE)
        train(str(runs / f"{name}.toml"), run_dir=runs / name)
    BinaryBPE.from_merges([(97, 98)]).save(runs / "tokenizer")
    return {"files": str(files), "runs": str(runs)}


@pytest.fixture
def no_floor(monkeypatch):
    """Judge the ratio of small files, too."""
    monkeypatch.setitem(Limits.__init__.__kwdefaults__, "floor_bytes", 1)


def argv(road, places, out, file, **settings):
    """The command of a road with some settings, as options or as overrides."""
    values = {name: str(value).lower() for name, value in settings.items()}
    options = [
        f"--{name.replace('_', '-')}" + ("" if value == "true" else f"={value}")
        for name, value in values.items()
    ]
    filled = {**places, "out": str(out), "file": os.path.join(places["files"], file)}
    words = []
    for word in ROADS[road].split():
        if word == "{option}":
            words += options
        elif word == "{setting}":
            words += [f"data.{name}={value}" for name, value in values.items()]
        else:
            words.append(word.format(**filled))
    return words


def file_for(road, limit):
    return LIMITS[limit][1 if road.endswith(OVER_RECORDS) else 0]


@pytest.mark.parametrize(("road", "limit"), CASES)
def test_a_limit_strikes_and_can_be_raised(road, limit, places, bytelm, tmp_path, no_floor):
    little, enough = LIMITS[limit][2:]
    raised = {**({} if limit == "max_ratio" else {"max_ratio": 100_000})}
    file = file_for(road, limit)
    _, told = bytelm(
        *argv(road, places, tmp_path / "a", file, **raised, **{limit: little}), status=2
    )
    reachable = ROADS[road].endswith("{setting}")
    name = f"data.{limit}=" if reachable else f"--{limit.replace('_', '-')}"
    other = "--max" if reachable else "data.max"
    assert name in told and file in told and other not in told, told
    assert ("data.skip_errors=true" if reachable else "--skip-errors") in told
    assert told.count("\n") == told.rstrip().count("\n") + 1 and "Traceback" not in told
    bytelm(*argv(road, places, tmp_path / "b", file, **raised, **{limit: enough}))


@pytest.mark.parametrize("road", [case(road, quick=road in AT_ONCE) for road in ROADS])
def test_strict_and_skip_errors_hold_on_every_road(road, places, bytelm, tmp_path):
    """What is misnamed is an error or a note; what is damaged is a note or an error."""
    folder = tmp_path / "in"
    folder.mkdir()
    if road.endswith(OVER_RECORDS):
        odd, damaged = ("a.jsonl", records(text=None, target=None)), ("b.jsonl.gz", RECORDS)
        (folder / "c.jsonl").write_bytes(records())
    else:
        odd, damaged = ("a.txt.gz", b"no gzip at all, " * 9), ("b.txt.gz", TEXT)
        (folder / "c.txt").write_bytes(TEXT[:999])
    (folder / odd[0]).write_bytes(odd[1])
    strict, skip = ("data.strict=true", "data.skip_errors=true")
    if not ROADS[road].endswith("{setting}"):
        strict, skip = ("--strict", "--skip-errors")
    _, told = bytelm(*argv(road, places, tmp_path / "a", folder, strict=True), status=2)
    assert f"{strict}: " in told
    (folder / damaged[0]).write_bytes(gzip.compress(damaged[1])[:-3])
    _, told = bytelm(*argv(road, places, tmp_path / "b", folder), status=2)
    assert re.search(rf"/b\..*: .*cut short.*{skip}", told), told
    _, told = bytelm(*argv(road, places, tmp_path / "c", folder, skip_errors=True))
    assert "skipped 1 damaged file: " in told and "cut short" in told
