"""Converted models under the contract of every `ByteLM`: the same tests, other cases."""

import pytest
import torch

from bytelm.exact import convert
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.protocol import ByteLM
from tests.exact.test_converter import MODES
from tests.lm.contract import Case, ngram
from tests.lm.test_contract import *  # noqa: F403  (the contract)


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
