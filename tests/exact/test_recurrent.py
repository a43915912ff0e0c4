"""Recurrent and hybrid transformers models, randomly initialised, against their own forward."""

import math

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.exact import convert, load_token_model
from bytelm.exact.models.huggingface import HuggingFaceLM, token_lm
from bytelm.exact.models.recurrent import RecurrentLM, select_rows
from bytelm.exact.token_lm import PendingParent, extend_trees

transformers = pytest.importorskip("transformers")
from tests.exact.test_huggingface import SIZE, llama, tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers on its optional kernels
SMALL = {"vocab_size": SIZE, "hidden_size": 16, "num_hidden_layers": 2}
WIDE = {"initializer_range": 0.4, **SMALL}


def mamba():
    return transformers.MambaForCausalLM(transformers.MambaConfig(state_size=4, **WIDE))


def mamba2():
    config = transformers.Mamba2Config(
        state_size=4, num_heads=4, head_dim=8, n_groups=2, chunk_size=4, **WIDE
    )
    return transformers.Mamba2ForCausalLM(config)


def rwkv():
    config = transformers.RwkvConfig(attention_hidden_size=16, context_length=64, **SMALL)
    return transformers.RwkvForCausalLM(config)


def hybrid():
    config = transformers.Lfm2Config(
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=32,
        layer_types=["conv", "full_attention"], **WIDE,
    )  # fmt: skip
    return transformers.Lfm2ForCausalLM(config)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("make", [mamba, mamba2, rwkv, hybrid])
def test_forked_states_are_what_the_model_says_along_each_path(make):
    model = make()
    lm = token_lm(model, [None, *([b"x"] * (SIZE - 1))], eos_ids=set(), start_ids=[0, 5])
    assert isinstance(lm, RecurrentLM)
    root, first = lm.root(lm.open())
    rows, names = [], []
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        parent = int(torch.randint(-1, len(rows), (1,), generator=generator)) if rows else -1
        token = int(torch.randint(1, SIZE, (1,), generator=generator))
        rows.append((root if parent < 0 else PendingParent(parent), token))
        names.append((*(names[parent] if parent >= 0 else ()), token))
    ((nodes, logprobs),) = extend_trees(lm, [(None, rows)])
    more, later = lm.extend(None, [(nodes[3], 7), (nodes[12], 9), (nodes[3], 8)])  # states kept
    names += [(*names[3], 7), (*names[12], 9), (*names[3], 8)]
    found = torch.cat([first[None], logprobs, later])
    for name, row in zip([(), *names], found, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([[0, 5, *name]]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(row, expected.log_softmax(-1), rtol=0, atol=2e-5)
    assert lm.rows_evaluated == 2 + 20 + 3


def test_a_model_with_attention_alone_keeps_its_tree():
    lm = token_lm(llama(), [None, b"x"], eos_ids=set(), start_ids=[0])
    assert isinstance(lm, HuggingFaceLM)
    assert len(lm.vocab_bytes) == SIZE


@pytest.mark.parametrize("mode", ["all", "canonical"])
def test_a_recurrent_directory_loads_as_bytes(tmp_path, mode):
    mamba().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    lm = load_token_model(tmp_path, mode=mode)
    text = b"It's a test"
    scores = lm.score_with_end(text)
    state, total = lm.start(), 0.0
    for byte in text:
        logprobs = state.logprobs()
        assert float(logprobs.double().logsumexp(0)) == pytest.approx(0, abs=1e-6)
        total += float(logprobs[byte])
        state = state.feed(bytes([byte]))
    assert float(scores[:-1].sum()) == pytest.approx(total, abs=1e-3)
    assert -math.inf < total < 0


def test_a_state_kept_out_of_reach_is_said_so():
    config = transformers.RecurrentGemmaConfig(
        num_attention_heads=2, intermediate_size=32, lru_width=16, w_init_variance_scale=4.0,
        **{**SMALL, "num_hidden_layers": 3},
    )  # fmt: skip
    with pytest.raises(BytelmError, match="your own TokenLM"):
        convert(transformers.RecurrentGemmaForCausalLM(config), tokenizer())
    with pytest.raises(BytelmError, match="cannot be copied row by row"):
        select_rows(object(), torch.tensor([0]))
