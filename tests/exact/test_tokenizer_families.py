"""Real tokenizer files of every family are read as their own libraries read them: the rows of the
table in docs/exact.md, one by one. Needs the packages (`python -m benchmarks.exact_packages`)."""

import subprocess

import pytest

from benchmarks.tokenizer_families import FAMILIES, good, judge

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", FAMILIES)
def test_the_row_of_the_table_holds(name):
    try:
        row = judge(name)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"the package cannot be had here: {error}")
    assert good(row), row
    assert ("refused" in row) == (name in ("Jurassic-2",)), row
