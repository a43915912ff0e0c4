"""Windows, chunks and positions: exact beyond each of them, limited to it, or refused by name."""

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.exact import convert
from bytelm.exact.models.attention_check import Limit, length_limits, spans_of
from bytelm.exact.models.huggingface import HuggingFaceLM, token_lm
from bytelm.exact.token_lm import PendingParent, extend_trees

transformers = pytest.importorskip("transformers")
from tests.exact.test_huggingface import SIZE, llama, tokenizer  # noqa: E402

SHAPE = dict(
    vocab_size=SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4,
)  # fmt: skip
WORDS = [None, *([b"x"] * (SIZE - 1))]


def make(name: str, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **options})
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def mistral(window: int):
    return make("Mistral", sliding_window=window, max_position_embeddings=256)


def phimoe(window: int):
    return make(
        "Phimoe", sliding_window=window, max_position_embeddings=256, num_local_experts=4,
        num_experts_per_tok=2, head_dim=8,
    )  # fmt: skip


def llama4(chunk: int):
    torch.manual_seed(0)
    config = transformers.Llama4TextConfig(
        **SHAPE, attention_chunk_size=chunk, max_position_embeddings=256, head_dim=8,
        num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=48, floor_scale=8192,
        pad_token_id=0,
    )  # fmt: skip
    return transformers.Llama4ForCausalLM(config).eval()


def rows_of(lm, texts):
    """(n, V) of the adapter for each text, all side by side."""
    caches = [lm.open() for _ in texts]
    requests = []
    for cache, text in zip(caches, texts, strict=True):
        root, _ = lm.root(cache)
        requests.append(
            (cache, [(PendingParent(i - 1) if i else root, t) for i, t in enumerate(text)])
        )
    return [logprobs for _, logprobs in extend_trees(lm, requests)]


def random_text(size: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, SIZE, (size,), generator=generator).tolist()


def assert_as_alone(model, lm, texts):
    for text, found in zip(texts, rows_of(lm, texts), strict=True):
        with torch.no_grad():
            own = model(torch.tensor([[0, *text]]), use_cache=False).logits[0, 1:]
        torch.testing.assert_close(found, own.log_softmax(-1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("span", [3, 16, 40])
@pytest.mark.parametrize("build", [mistral, phimoe, llama4])
def test_texts_cross_every_window_and_chunk_as_in_the_model_itself(build, span):
    model = build(span)
    lm = token_lm(model, WORDS, eos_ids=set(), start_ids=[0])
    assert lm.limit == 256  # the model's own: nothing had to be given up
    assert_as_alone(model, lm, [random_text(100, 1), random_text(71, 2)])


def test_the_check_leaves_the_windows_of_the_model_as_they_were():
    model = mistral(100)
    before = [(span.owner, span.name, span.value) for span in spans_of(model)]
    assert {value for _, _, value in before} == {100}
    token_lm(model, WORDS, eos_ids=set(), start_ids=[0])
    assert [(span.owner, span.name, span.value) for span in spans_of(model)] == before


def test_a_window_beyond_reach_limits_the_text_and_says_so():
    """A model that keeps its window where cutting does not reach it."""
    model = make("Llama", max_position_embeddings=1000)
    model.config.sliding_window = 700  # Llama reads no such setting: nobody can tell
    lm = token_lm(model, WORDS, eos_ids=set(), start_ids=[0])
    assert lm.limit == 699
    with pytest.raises(BytelmError, match=r"context is 699 \(exact up to here for its sliding_wi"):
        rows_of(lm, [random_text(700, 1)])
    model.config.sliding_window = 50  # below what one call holds
    with pytest.raises(BytelmError, match=r"whether its sliding_window \(50\) is kept"):
        token_lm(model, WORDS, eos_ids=set(), start_ids=[0])


def test_attention_that_forgets_its_window_is_never_read_beyond_it(monkeypatch):
    """The bug of old: the rule behind the masks is lost, as when only two tokens were compared."""
    from bytelm.exact.models import tree_attention

    monkeypatch.setattr(tree_attention, "tree_mask", lambda **_: None)
    with pytest.raises(BytelmError, match="Phimoe.*model type 'phimoe'.*cannot be read exactly"):
        token_lm(phimoe(6), WORDS, eos_ids=set(), start_ids=[0])
    with pytest.raises(BytelmError, match=r"whether its sliding_window \(100\) is kept"):
        token_lm(phimoe(100), WORDS, eos_ids=set(), start_ids=[0])
    long = make("Phimoe", sliding_window=900, head_dim=8, num_local_experts=4)
    assert token_lm(long, WORDS, eos_ids=set(), start_ids=[0]).limit == 899


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Bloom", dict(vocab_size=SIZE, hidden_size=32, n_layer=1, n_head=2), "bloom"),
        ("Mpt", dict(vocab_size=SIZE, d_model=32, n_layers=1, n_heads=2), "mpt"),
        ("Falcon", dict(**SHAPE, alibi=False), "falcon"),
        ("Gemma2", dict(**SHAPE, head_dim=8), "soft-capped"),
        ("GptOss", dict(**SHAPE, head_dim=8), "attention sinks"),
        ("Doge", SHAPE, "mask of its own"),
    ],
)
def test_attention_of_other_kinds_is_refused_by_name(name, options, words):
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**options)
    )
    with pytest.raises(BytelmError, match=f"(?i){words}") as raised:
        convert(model, tokenizer())
    assert "\n" not in str(raised.value)


LONG = {"rope_type": "longrope", "original_max_position_embeddings": 20,
        "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0,
           "original_max_position_embeddings": 20}  # fmt: skip


@pytest.mark.parametrize("rope", [LONG, DYNAMIC], ids=["longrope", "dynamic"])
def test_batch_mates_do_not_matter_where_positions_are_scaled_by_length(rope):
    model = llama(rope_parameters=rope)
    assert length_limits(model) == [Limit(20, f"positions scaled by length ({rope['rope_type']})")]
    lm = token_lm(model, WORDS, eos_ids=set(), start_ids=[0])
    assert isinstance(lm, HuggingFaceLM) and lm.limit == 20
    assert_as_alone(model, lm, [random_text(19, 1), random_text(7, 2)])
    with pytest.raises(BytelmError, match="exact up to here for positions scaled by length"):
        rows_of(lm, [random_text(7, 2), random_text(20, 1)])


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0,
         "original_max_position_embeddings": 20},
        {"rope_type": "llama3", "factor": 2.0, "rope_theta": 10000.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 20},
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_positions_scaled_by_constants_have_no_limit(rope):
    model = llama(rope_parameters=rope)
    lm = token_lm(model, WORDS, eos_ids=set(), start_ids=[0])
    assert lm.limit == 128
    assert_as_alone(model, lm, [random_text(60, 1), random_text(7, 2)])
