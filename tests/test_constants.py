"""Every whole-number constant of models and decoding: crossed by a test, here or where it says.

Growth units, blocks, batch sizes and look-ahead bound memory or time, never results. So each is set
to values below, at and above what a small text reaches, and the numbers must stay. A new constant
fails the first test until it is listed with what crosses it. Arguments with such a default (the
chunk of a scan) are crossed where they are tested (tests/nn/test_ssd.py).
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bytelm
from bytelm.lm.draft import PromptLookup
from bytelm.lm.generate import generate_batch
from tests.exact.test_converter import MODES
from tests.lm import subwords
from tests.lm.contract import hnet, transformer

TEXT = b"then there he the\nother n re he there the " * 2


def steps(lm) -> Tensor:
    """All distributions of two texts that grow in turns, then joined with a third."""
    state, found = lm.start_batch([b"", b"the"]), []
    for i in range(30):
        state = state.feed([TEXT[i : i + 1], TEXT[i : i + 2] if i % 3 else b""])
        found.append(state.logprobs())
    joined = state.join([lm.start_batch([TEXT[:40]])]).feed([b"a", b"", TEXT[:9]])
    return torch.cat([*found, joined.logprobs(), joined.logprob.view(-1, 1).expand(-1, 257)])


def scores(lm) -> Tensor:
    texts = [TEXT, b"", b"t", TEXT[:17]]
    return torch.cat(lm.score_batch_with_end(texts, context=[b"he", None, b"", b"th"]))


def read() -> Tensor:
    """Scores, and what comes after ragged prompts."""
    texts = [TEXT, b"", b"t", TEXT[:17]]
    models = transformer(window=200), hnet(["m1", ["t1", ["T1"], "m1"], "m1"])
    after = [lm.start_batch(texts).feed([b"a", TEXT, b"", b"the"]).logprobs() for lm in models]
    return torch.cat([scores(transformer()), *(part.flatten() for part in after)])


def native() -> Tensor:
    return torch.cat([steps(transformer(window=50, stride=20)), steps(hnet(["m1", ["T1"], "m1"]))])


def read_ahead() -> Tensor:
    """Distributions after pieces of which only the beginning is kept, time and again."""
    found = []
    for lm in (transformer(window=50, stride=20), hnet(["m1", ["T1"], "m1"])):
        state, at = lm.start_batch([b"", b"the"]), 0
        for kept in (1, 3, 2, 4, 1, 5, 2, 3):
            ahead = state.read_ahead([TEXT[at : at + 6], TEXT[: at % 7]])
            counts = [min(kept, len(row)) for row in ahead.logprobs]
            found.append(torch.cat(ahead.logprobs))
            state, at = ahead.state(counts), at + counts[0]
        found.append(state.feed([b"a", b"he"]).logprobs())
    return torch.cat(found)


def written() -> Tensor:
    lm = transformer(window=200, stride=100)
    prompts = [TEXT[:n] for n in (0, 1, 5, 63, 64, 65, 70, 84)]
    rows = generate_batch(lm, prompts, max_bytes=6, rows=5)
    return torch.tensor([list(row.data.ljust(7, b".")) for row in rows])


def written_alone() -> Tensor:
    """Log P of texts of several models, each written byte by byte."""
    models = transformer(window=50, stride=20), hnet(["m1", ["T1"], "m1"])
    rows = [generate_batch(lm, [TEXT[:n]], max_bytes=70)[0] for lm in models for n in (0, 9)]
    return torch.tensor([[row.logprob, *row.data.ljust(71, b".")] for row in rows])


def drafted() -> Tensor:
    lm = transformer(window=200, stride=100)
    options = {"max_bytes": 12, "temperature": 0, "draft": PromptLookup(shortest=1)}
    rows = generate_batch(lm, [TEXT[:30], b"the th"], **options)
    return torch.tensor([list(row.data.ljust(12, b".")) for row in rows])


def written_together() -> Tensor:
    """The same of texts that are written in one batch, by compiled kernels."""
    lm = hnet(["m1", ["T1"], "m1"])
    rows = generate_batch(lm, [TEXT[:n] for n in (0, 4, 9)], max_bytes=20, backend="compiled")
    return torch.tensor([[row.logprob, *row.data.ljust(21, b".")] for row in rows])


def fed() -> Tensor:
    """log P after pieces of several lengths, asked each time."""
    lm, found = transformer(layers=1, window=30, stride=10), []
    state, at = lm.start(), 0
    for size in (3, 1, 20, 2, 2, 15, 1, 7):
        state, at = state.feed(TEXT[at : at + size]), at + size
        found.append(state.logprob)
    return torch.tensor(found, dtype=torch.float64)


def converted() -> Tensor:
    found = [scores(lm) for lm in MODES.values()]
    pieces = [TEXT[:7], TEXT[7:15], TEXT[15:24], TEXT[24:]]
    for lm in MODES.values():
        state = lm.start_batch([b"", b"n"])
        for piece in pieces:
            state = state.feed([piece, piece[:3]])
        found += [state.logprob, state.logprobs().flatten()]
    return torch.cat(found)


def subword_tokens() -> Tensor:
    tokens = subwords.transformer().tokens
    return torch.stack([row.sum() for row in tokens.score_batch_with_end([TEXT, b"", TEXT[:20]])])


def llama() -> Tensor:
    pytest.importorskip("transformers")
    from bytelm.exact import convert
    from tests.exact.test_huggingface import llama, tokenizer

    return scores(convert(llama().to(torch.float64), tokenizer(), mode="canonical"))


def llama_steps() -> Tensor:
    """A model that fills its calls up with what a text will likely need."""
    pytest.importorskip("transformers")
    from bytelm.exact import convert
    from tests.exact.test_huggingface import llama, tokenizer

    model, tables = llama().to(torch.float64), tokenizer()
    return torch.cat([steps(convert(model, tables, mode=mode)) for mode in ("all", "canonical")])


# constant -> (values to cross, what is computed)
CROSSED: dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]] = {
    "bytelm.nn.cache._GROWTH": ((1, 7, 63, 1000), native),
    "bytelm.nn.stepping.ops._COPIED": ((0, 300), written_alone),
    "bytelm.nn.stepping.stack._FIRST_ROOM": ((1, 7, 1000), written_alone),
    "bytelm.nn.stepping.stack.MOST_ROWS": ((0, 1, 2), written_together),
    "bytelm.nn.cache._DOUBLED": ((0, 64, 10**6), native),
    "bytelm.lm.decoder.BATCH_POSITIONS": ((1, 50, 10**6), read),
    "bytelm.lm.decoder._PAIRS": ((1, 50, 700, 10**9), read),
    "bytelm.lm.decoder.MOST_UNREAD": ((0, 2, 5, 10**6), read_ahead),
    "bytelm.lm.subword._BATCH_LOGITS": ((1, 9000, 10**9), subword_tokens),
    "bytelm.lm.generation._SHORT": ((1, 5, 10**6), written),
    "bytelm.lm.speculative._FIRST_REACH": ((1, 3, 100), drafted),
    "bytelm.lm.running_logprob.POSITIONS_PER_STEP": ((0, 1, 4, 10**6), fed),
    "bytelm.exact.advance._ROWS_PER_CALL": ((1, 2, 5, 10**6), converted),
    "bytelm.exact.advance._PREFETCH_FROM": ((1, 10**6), converted),
    "bytelm.exact.advance._DRY_RUNS": ((0, 1, 50), converted),
    "bytelm.exact.converter._HELD_NUMBERS": ((1, 600, 10**9), converted),
    "bytelm.exact.models.canonical._MASKS": ((0, 1, 3), converted),
    "bytelm.exact.draft._FREE_ROWS": ((0, 8), llama_steps),
    "bytelm.exact.draft._FARTHEST": ((0, 1, 3), llama_steps),
    "bytelm.exact.models.tree_lm.MASK_NUMBERS": ((1, 300), llama),
    "bytelm.exact.models.tree_lm._LEAST_ROWS": ((1, 2), llama),
    "bytelm.exact.models.tree_lm._MANY_ROWS": ((1, 1000), llama),
    "bytelm.exact.models.tree_attention._BLOCK": ((1, 2, 5), llama),
    "bytelm.exact.token_tree.ROWS_PER_BLOCK": ((1, 3), converted),
    "bytelm.exact.models.tree_lm.ROWS_PER_CALL": ((1, 2, 30), llama_steps),
    "bytelm.exact.tokenizers.cursor._WINDOW": ((1, 2, 100), converted),
    "bytelm.exact.models.tree_lm.ROWS_PER_FORWARD": ((1, 3, 10**6), llama),
    "bytelm.exact.models.tree_attention._FIRST_CAPACITY": ((1, 3, 500), llama),
}

# constants that decide something else than memory or time, and where they are tested
ELSEWHERE = {
    "bytelm.lm.classifier.BATCH_POSITIONS": "tests/lm/test_classifier.py",
    "bytelm.lm.constraint._FARTHEST": "tests/lm/test_generate.py (lengths in messages)",
    "bytelm.lm.dfa.MAX_STATES": "tests/lm/test_generate.py (patterns too large)",
    "bytelm.lm.dfa.DEAD": "tests/lm/test_regex.py",
    "bytelm.lm.infill.SAMPLES": "tests/lm/test_infill.py",
    "bytelm.lm.infill._ROUNDS": "tests/lm/test_infill.py (one candidate at a time)",
    "bytelm.lm.ngram.MAX_ORDER": "tests/lm/test_ngram.py",
    "bytelm.lm.ngram._BITS": "tests/lm/test_ngram.py",
    "bytelm.lm.regex._CLASSES": "tests/lm/test_regex.py (flags)",
    "bytelm.lm.regex.MAX_NFA_STATES": "tests/lm/test_generate.py (patterns too large)",
    "bytelm.nn.ngrams._FACTOR": "tests/nn/test_ngrams.py (rows are spread)",
    "bytelm.nn.ngrams.BEFORE": "tests/nn/test_ngrams.py",
    "bytelm.nn.ngrams._FOLD": "tests/nn/test_ngrams.py (rows are spread)",
    "bytelm.nn.ngrams._WORD": "tests/nn/test_ngrams.py (wrap-around)",
    "bytelm.nn.quantized._ALIGNMENT": "tests/hub/test_quantize.py (weights anywhere)",
    "bytelm.nn.tables.NONE": "tests/nn",
    "bytelm.nn.fused.SMALLEST": "tests/nn/test_fused.py",
    "bytelm.nn.fused._ROWS": "tests/nn/test_fused.py (threads)",
    "bytelm.lm.decoding._PAYS": "tests/lm/test_decoding.py (what auto chooses)",
    "bytelm.lm.decoding._ONE_THREAD": "tests/lm/test_decoding.py (what auto chooses)",
    "bytelm.nn.words._QUOTED_LETTER": "tests/nn/test_words.py (the regular expression)",
    "bytelm.nn.words._STATES": "tests/nn/test_words.py (the regular expression)",
    "bytelm.nn.cache._SEALED": "tests/arch/test_stepper_contract.py (states taken on the way)",
    "bytelm.exact.deferred.LOOKBACK": "tests/exact/test_deferred.py",
    "bytelm.exact.reactivation._FALLBACK_BEAM": "tests/exact/test_impossible.py",
    "bytelm.exact.text_beam._HYPOTHESES": "tests/exact/test_impossible.py (narrow beams)",
    "bytelm.exact.tokenizers.added_cursor._CHARACTER": "tests/exact/test_added_text.py",
    "bytelm.exact.tokenizers.piece_automaton.STATES": "tests/exact/test_piece_automaton.py",
    "bytelm.exact.tokenizers.expression._LARGEST": "tests/exact/test_piece_automaton.py",
    "bytelm.exact.tokenizers.expression_program._LONGEST": "tests/exact/test_piece_automaton.py",
    "bytelm.exact.tokenizers.character_sets.CODE_POINTS": "tests/exact/test_piece_automaton.py",
    "bytelm.exact.gguf_header._DIMENSIONS": "tests/exact/test_gguf_header.py",
    "bytelm.exact.gguf_header._NESTING": "tests/exact/test_gguf_header.py",
    "bytelm.exact.templates._STEPS": "tests/exact/test_templates.py",
    "bytelm.exact.templates._LARGEST_NUMBER": "tests/exact/test_templates.py",
    "bytelm.exact.templates._LONGEST_TEXT": "tests/exact/test_templates.py",
    "bytelm.exact.templates._MEMORY": "tests/exact/test_templates.py",
    "bytelm.exact.fitting._ROOM": "tests/exact/test_fitting.py",
    "bytelm.exact.models.attention_check.CHECKED": "tests/exact/test_attention_check.py",
    "bytelm.exact.models.attention_check._ROWS": "tests/exact/test_attention_check.py",
    "bytelm.exact.models.attention_check._CUT": "tests/exact/test_attention_check.py",
    "bytelm.exact.models.model_directory._LARGEST_CONFIG": (
        "tests/exact/test_hostile_directories.py"
    ),
}


def constants() -> set[str]:
    """Module-level whole numbers with a name in capitals, of nn, lm and exact."""
    found = set()
    root = Path(bytelm.__file__).parent
    for path in (path for part in ("nn", "lm", "exact") for path in (root / part).rglob("*.py")):
        module = ".".join(("bytelm", *path.relative_to(root).with_suffix("").parts))
        nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
        names = [node.targets[0].id for node in nodes if isinstance(node.targets[0], ast.Name)]
        for name in filter(str.isupper, names):
            if type(getattr(importlib.import_module(module), name)) is int:
                found.add(f"{module}.{name}")
    return found


def test_every_constant_is_crossed_by_a_test():
    assert constants() == CROSSED.keys() | ELSEWHERE.keys()
    for where in ELSEWHERE.values():
        assert Path(bytelm.__file__).parents[1].joinpath(where.split(" (")[0]).exists()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (values, _) in CROSSED.items() for value in values]
)
def test_what_bounds_memory_or_time_changes_no_number(name, value, monkeypatch):
    compute = CROSSED[name][1]
    module, attribute = name.rsplit(".", 1)
    expected = compute()
    monkeypatch.setattr(importlib.import_module(module), attribute, value)
    torch.testing.assert_close(compute(), expected, rtol=1e-9, atol=1e-9)
