"""Converted models under the contract of every `ByteLM`: the same tests, other cases."""

import math

import pytest
import torch

from bytelm.exact import convert
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.generate import generate
from bytelm.lm.infill import infill
from bytelm.lm.protocol import ByteLM
from tests.exact.test_converter import MODES
from tests.lm.contract import Case, hnet, ngram
from tests.lm.test_contract import *  # noqa: F403  (the contract)

pytestmark = pytest.mark.filterwarnings("ignore:the model has none of the formats")


def tiny_llama() -> ByteLM:
    pytest.importorskip("transformers")
    from tests.exact.test_huggingface import llama, tokenizer

    return convert(llama().to(torch.float64), tokenizer(), epsilon=1e-2)


CASES = {
    **{name: Case(lambda lm=lm: lm, tolerance=1e-8) for name, lm in MODES.items()},
    "llama": Case(tiny_llama, tolerance=1e-5),
    "converted and native": Case(
        lambda: Ensemble([MODES["all"], MODES["canonical"], ngram()], "bayes"), tolerance=1e-8
    ),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def lm(case) -> ByteLM:
    return case.make()


def everyone() -> list[ByteLM]:
    """A native H-Net, a converted model, and a mixture of both with an n-gram model."""
    native, converted = hnet(["m1", ["T1"], "m1"]), MODES["all"]
    return [native, converted, Ensemble([native, converted, ngram()], "switch", rate=0.1)]


def test_one_call_takes_native_converted_and_mixed_models():
    """Generation, infilling, scoring and an ensemble of them all, with the same arguments."""
    for lm in (*everyone(), Ensemble(everyone(), "mixture")):
        assert len(generate(lm, b"then th", max_bytes=6, seed=1)) <= 6
        assert len(infill(lm, prefix=b"n ", suffix=b"e", max_bytes=3, candidates=4)) <= 3
        assert math.isfinite(lm.bits_per_byte(b"then there"))
        assert math.isfinite(lm.conditional_score(b"then ", b"there"))
