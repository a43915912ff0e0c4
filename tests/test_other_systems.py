"""What Windows and macOS lack is never needed: modules that are POSIX's own, fsync of folders."""

import errno
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bytelm.errors import DiskError
from bytelm.files import new_folder, write_text
from tests.import_graph import modules

ROOT = Path(__file__).parents[1]
_POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt")
_IMPORT_ALL = """
import importlib, importlib.abc, os, sys, types
import torch, numpy, datasets, numba, rich, typer  # theirs may ask what they like
blocked = {blocked!r}
for name in blocked:
    sys.modules[name] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
failed = []
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append((name, str(error)))
print(failed)
"""


def test_every_module_is_imported_without_what_only_posix_has():
    names = sorted(name for name in modules() if not name.endswith("__main__"))
    code = _IMPORT_ALL.format(blocked=_POSIX, modules=names)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_corpora_and_locks_work_with_the_locks_of_windows():
    """One process at a time, and a second one is refused, by way of a stand-in for msvcrt."""
    code = (
        "import sys, types, errno\n"
        "held = set()\n"
        "def locking(handle, mode, size):\n"
        "    import os\n"
        "    key = os.fstat(handle).st_ino\n"
        "    if key in held: raise OSError(errno.EACCES, 'held')\n"
        "    held.add(key)\n"
        "sys.modules['fcntl'] = None\n"
        "sys.modules['msvcrt'] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)\n"
        "import tempfile, pathlib\n"
        "from bytelm.locks import try_lock\n"
        "path = pathlib.Path(tempfile.mkdtemp()) / 'lock'\n"
        "first = try_lock(path)\n"
        "assert first is not None and try_lock(path) is None\n"
        "first.release()\n"
        "assert not path.exists()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_system_that_opens_no_folders_still_writes(tmp_path, monkeypatch, number):
    real = os.open

    def opened(path, flags, *rest, **named):
        if os.path.isdir(path):
            raise PermissionError(number, "no folders", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opened)
    write_text(tmp_path / "deep" / "a", "text")
    with new_folder(tmp_path / "new") as folder:
        (folder / "b").write_text("more")
    assert (tmp_path / "deep/a").read_text() + (tmp_path / "new/b").read_text() == "textmore"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
def test_a_disk_that_flushes_no_folders_still_writes(tmp_path, monkeypatch, number):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, "no folders")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_a_file_that_cannot_be_flushed_is_never_passed_over(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskError):
        write_text(tmp_path / "a", "text")
    assert list(tmp_path.iterdir()) == []


def test_names_of_files_are_lawful_everywhere_in_the_package():
    for path in (*(ROOT / "bytelm").rglob("*"), *(ROOT / "models").rglob("*")):
        assert not re.search(r'[<>:"|?*\\]', path.name), path


def test_the_metadata_says_what_it_is_for_and_what_it_runs_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"Operating System :: OS Independent", "Typing :: Typed"} <= set(project["classifiers"])
    required = {re.split(r"[<>=\[]", name)[0] for name in project["dependencies"]}
    used = {
        module
        for path in (ROOT / "bytelm").rglob("*.py")
        for module in re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), flags=re.M)
    }
    names = {"protobuf": "sentencepiece", "tomli-w": "tomli_w"}  # read by sentencepiece's module
    assert {name for name in required if names.get(name, name) not in used} == set()
