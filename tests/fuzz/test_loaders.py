"""Whatever happens to a file that a loader reads: it is refused in one sentence, or it works.

Never another exception, a traceback, a hang, a crash of native code or a huge allocation. A worker
process damages and loads (worker.py); `python -m tests.fuzz.run` does it for any number.
"""

import pytest

pytest.importorskip("transformers")
pytest.importorskip("gguf")
from tests.fuzz.formats import FORMATS
from tests.fuzz.run import GOOD, fuzz

QUICK = ("hf config", "gguf", "run config", "binary bpe")  # in the ordinary run


@pytest.mark.parametrize("name", QUICK)
def test_some_damages(name):
    found = fuzz(name, count=15, seed=1)
    assert not found.faults
    assert found.counts.total() == 15 and found.counts["refused"] > 0
    assert set(found.counts) <= set(GOOD)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_damages(name):
    found = fuzz(name, count=10_000)
    assert not found.faults
    assert found.counts.total() == 10_000 and found.counts["refused"] > 0
