"""The options of reading are the same for every command, and what is skipped is reported."""

import gzip
import io
import json
import tarfile

import pytest
import typer
from typer.testing import CliRunner

from bytelm.cli.app import app
from bytelm.cli.reading import ReadingOptions
from bytelm.data.settings import SETTINGS, to_bytes
from bytelm.data.sources import Limits, Reading
from bytelm.errors import BytelmError, DataError

COMMANDS = (
    *("data build", "data inspect", "eval"),
    *("tokenizer train", "tokenizer inspect", "tokenizer evaluate"),
)
OPTIONS = ["--field", "--raw", "--strict", "--skip-errors"]


def run(*args: str):
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path):
    """A folder with a link in an archive, a file with a wrong name, and a damaged one."""
    path = tmp_path / "in"
    path.mkdir()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "target"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(link)
    (path / "a.tar").write_bytes(out.getvalue())
    (path / "b.txt.gz").write_bytes(b"no gzip at all, " * 9)
    (path / "c.txt.gz").write_bytes(gzip.compress(b"text " * 99)[:-3])
    (path / "d.txt").write_bytes(b"words " * 99)
    return path


def found(report: dict) -> dict[str, int]:
    kinds = {**report["skipped"], **report["taken_whole"]}
    return {kind: value["count"] for kind, value in kinds.items()}


NOTED = {"link": 1, "misnamed file": 1, "damaged file": 1}


def test_every_limit_has_its_option_in_every_command():
    names = ["--" + name.replace("_", "-") for name in SETTINGS if name.startswith("max_")]
    group = typer.main.get_command(app)
    for command in COMMANDS:
        found = group
        for part in command.split():
            found = found.commands[part]
        known = {name for parameter in found.params for name in parameter.opts}
        assert known >= {*OPTIONS, *names}, command


def test_options_become_the_reading():
    options = ReadingOptions(max_unpacked="2GiB", max_ratio=9.5, max_nesting=1, max_window="1k")
    limits = Limits(unpacked_bytes=2 << 30, ratio=9.5, nesting=1, window_bytes=1024)
    assert options.reading() == Reading(limits=limits)
    assert ReadingOptions().reading() == Reading()
    with pytest.raises(DataError, match="members must be at least 1, not 0"):
        ReadingOptions(max_members=0).reading()
    with pytest.raises(BytelmError, match="2GiB"):
        to_bytes("much")


@pytest.mark.parametrize("split", [(), ("--heldout", "0.5", "--seed", "2")])
def test_a_build_reports_what_it_left_out(tmp_path, folder, split):
    with pytest.raises(DataError, match=r"c.txt.gz: .*cut short.*--skip-errors"):
        run("data", "build", folder, "--out", tmp_path / "c")
    (tmp_path / "in" / "e.txt").write_bytes(b"more")
    args = ["data", "build", folder, "--out", tmp_path / "d", "--skip-errors", "--json", *split]
    report = run(*args)
    assert found(report) == NOTED
    assert sum(corpus["documents"] for corpus in report["corpora"]) == 3
    (place,) = report["skipped"]["damaged file"]["places"]
    assert "c.txt.gz" in place and "cut short" in place


def test_an_inspection_reports_what_it_left_out(folder):
    report = run("data", "inspect", folder, "--skip-errors", "--json")
    assert found(report) == NOTED and report["documents"] == 2
    with pytest.raises(DataError, match="--strict: misnamed file"):
        run("data", "inspect", folder, "--strict")


def test_tokenizer_training_reports_what_it_left_out(tmp_path, folder):
    args = ["--vocab-size", "270", "--out", tmp_path / "t", "--skip-errors", "--json"]
    assert found(run("tokenizer", "train", folder, *args)) == NOTED


def test_limits_reach_every_command(tmp_path, folder):
    (folder / "c.txt.gz").write_bytes(gzip.compress(bytes(100_000)))
    for args in (
        ["data", "build", folder, "--out", tmp_path / "c"],
        ["data", "inspect", folder],
        ["tokenizer", "train", folder, "--vocab-size", "270", "--out", tmp_path / "t"],
    ):
        with pytest.raises(DataError, match=r"more than 51,200 bytes.*--max-unpacked"):
            run(*args, "--max-unpacked", "50k")


def test_a_resumed_build_reports_what_the_first_part_left_out(tmp_path, folder, monkeypatch):
    from bytelm.data import Document
    from bytelm.data.corpus import build

    monkeypatch.setattr(build, "MARK_SECONDS", 0)
    (folder / "z.txt").write_bytes(b"the last")
    add = build.Builder._add

    def interrupted(self: object, number: int, document: Document) -> None:
        if document.data == b"the last":
            raise KeyboardInterrupt
        add(self, number, document)

    monkeypatch.setattr(build.Builder, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build(folder, tmp_path / "c", reading=Reading(skip_errors=True))
    monkeypatch.setattr(build.Builder, "_add", add)
    reading, told = Reading(skip_errors=True), []
    build.build(folder, tmp_path / "c", reading=reading, notify=told.append)
    assert "resuming" in told[0]
    assert dict(reading.notes.counts) == NOTED
