"""What a terminal could obey never reaches it through the name of a file."""

import pytest

from bytelm.cli.app import run
from bytelm.errors import DataError, unknown_name

ODD = "a\x1b[31m\nb\x07\x9b.txt"


@pytest.mark.parametrize(
    "command",
    [
        ["data", "inspect", "{folder}/c\x1b.txt"],
        ["data", "build", "{folder}/c\x1b.txt", "--out", "{folder}/x"],
        ["eval", "{folder}/run\x1b", "{folder}/c"],
        ["train", "transformer-tiny", 'data.train=["{folder}/c"]', "--run", "{folder}/r"],
        ["data", "build", "{folder}/in", "--out", "{folder}/in/{odd}", "--heldout", "0.5"],
    ],
)
def test_messages_hold_no_control_characters(tmp_path, command, capfd):
    """Issue 9, case 12: error lists printed the names of the folder's files as they are."""
    for folder in (tmp_path, tmp_path / "in"):
        folder.mkdir(exist_ok=True)
        (folder / ODD).write_bytes(b"x")
    with pytest.raises(SystemExit) as stopped:
        run([part.format(folder=tmp_path, odd=ODD) for part in command])
    assert stopped.value.code == 2
    told = capfd.readouterr()
    assert "error: " in told.err
    assert all(c.isprintable() or c == "\n" for c in told.err + told.out)


def test_lists_of_names_stay_on_their_line():
    listed = unknown_name("file", "x", [ODD])
    assert "\n" not in listed and r"a\x1b[31m\nb\x07\x9b.txt" in listed
    assert isinstance(DataError(listed), ValueError)


def test_messages_of_long_work_hold_no_control_characters(capsys):
    """Training tells what its data leaves out, names and all."""
    from bytelm.progress import ProgressDisplay

    display = ProgressDisplay()
    display.message(f"skipped 1 link: {ODD}")
    display.close()
    told = capsys.readouterr().err
    assert r"a\x1b[31m" in told and all(c.isprintable() or c == "\n" for c in told)
