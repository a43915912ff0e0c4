"""What `generate`, `generate_batch` and `infill` write, byte for byte as it was recorded.

Models are tiny and in float64, and nothing is trained: a text changes only if decoding does. To
record another set, run this file: `python -m tests.lm.test_golden_texts`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bytelm.lm.generate import generate, generate_batch
from bytelm.lm.infill import infill
from bytelm.lm.protocol import ByteLM
from tests.exact.test_converter import MODES
from tests.lm.contract import ensemble, hnet, ngram, transformer

pytestmark = pytest.mark.filterwarnings("ignore:the model has none of the formats")

GOLDEN = Path(__file__).with_name("golden_texts.json")
MODELS: dict[str, Callable[[], ByteLM]] = {
    "ngram": ngram,
    "transformer": transformer,
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "bayes": lambda: ensemble("bayes"),
    **{f"converted, {mode}": lambda lm=lm: lm for mode, lm in MODES.items()},
}


def texts(lm: ByteLM) -> dict[str, str]:
    """Every way of writing, as Latin-1 text (one character per byte)."""
    found = {
        "greedy": generate(lm, b"the ", max_bytes=20, temperature=0),
        "sampled": generate(lm, b"the ", max_bytes=20, seed=7),
        "filtered": generate(
            lm, b"th", max_bytes=20, seed=3, temperature=1.3, top_k=40, top_p=0.95, min_p=0.01
        ),
        "stopped": generate(lm, b"th", max_bytes=20, seed=5, stop=[b"e", b"h "]),
        "context": generate(lm, b"t", max_bytes=12, seed=2, context=[b"then "]),
        "infilled": infill(lm, prefix=b"the", suffix=b"e", max_bytes=4, candidates=5, seed=1),
    }
    rows = generate_batch(lm, [b"", b"then", b"t"], max_bytes=15, seed=11)
    found |= {f"batch {i}": row.data + row.finish.encode() for i, row in enumerate(rows)}
    if min(lm.start(b"th").logprobs().tolist()) > -100:  # every byte has some probability
        found["utf8"] = generate(lm, b"th", max_bytes=15, seed=4, temperature=2, utf8=True)
        found["regex"] = generate(lm, b"th", max_bytes=9, seed=4, regex="[a-e]{2,}|é+")
    return {name: text.decode("latin-1") for name, text in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_texts_are_those_recorded(name):
    assert texts(MODELS[name]()) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    recorded = {name: texts(make()) for name, make in MODELS.items()}
    GOLDEN.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
