"""ByT5 against transformers' own implementation, and the layouts both are stored in."""

import pytest
import torch
from transformers import T5Config as TheirConfig
from transformers import T5ForConditionalGeneration
from transformers.models.t5 import modeling_t5

import bytelm
from bytelm.data import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.lm.beam import beam_search
from bytelm.lm.seq2seq import Seq2SeqLM
from bytelm.vocab import ByteVocab

SIZES = {
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 80,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "vocab_size": 384,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "relative_attention_max_distance": 40,
    "dropout_rate": 0.1,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SOURCES = [b"The quick brown fox jumps over a dog, and then once more.", b"\xff\x00 no UTF-8", b""]
TARGETS = [b"le renard", b"x", b"\xfe\x80"]


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def pair(request, monkeypatch):
    """(theirs, ours) with the same random weights."""
    if request.param == torch.float64:  # theirs takes the root of a float32 mean in any model
        monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", exact_norm)
    torch.manual_seed(0)
    theirs = T5ForConditionalGeneration(TheirConfig(**SIZES)).to(request.param).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1, 0.3)
        theirs.lm_head.weight.mul_(0.3)
    ours = bytelm.hub.from_official("byt5", SIZES, theirs.state_dict()).eval()
    return theirs, ours


def exact_norm(self, x):
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def their_batch(rows, *, end, start=False):
    """Ids of ByT5's tokenizer: bytes + 3, EOS 1, padding and start 0; and the mask."""
    ids = [[*[0] * start, *(byte + 3 for byte in row), *[1] * end] for row in rows]
    width = max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return torch.tensor([row + [0] * (width - len(row)) for row in ids]), mask


def our_batch():
    vocab, source = ByteVocab(), bytelm.data.batch.byte_rows(SOURCES)
    rows = [[vocab.bos, *target] for target in TARGETS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [vocab.pad] * (width - len(row)) for row in rows])
    targets = torch.full_like(ids, -100)
    for b, target in enumerate(TARGETS):
        targets[b, : len(target) + 1] = torch.tensor([*target, vocab.eos])
    return Batch(ids=ids, targets=targets, source=source)


@torch.no_grad()
def test_encoder_decoder_and_loss_equal_those_of_transformers(pair):
    theirs, ours = pair
    dtype = ours.lm_head.weight.dtype
    ids, mask = their_batch(SOURCES, end=True)
    inputs, _ = their_batch(TARGETS, end=False, start=True)
    labels, kept = their_batch(TARGETS, end=True)
    batch = our_batch()
    expected = theirs.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    memory = ours.encode(batch.source).hidden
    assert (memory.values - expected)[mask.bool()].abs().max() < TOLERANCE[dtype]
    output = theirs(
        input_ids=ids,
        attention_mask=mask,
        decoder_input_ids=inputs,
        labels=labels.masked_fill(kept == 0, -100),
    )
    found = ours(batch)
    logits = torch.cat([output.logits[..., 3:259], output.logits[..., 1:2]], dim=-1)
    assert (found.logits[..., :257] - logits)[kept.bool()].abs().max() < TOLERANCE[dtype]
    assert abs(found.loss - output.loss) < TOLERANCE[dtype]


@torch.no_grad()
@pytest.mark.parametrize("beams, penalty", [(1, 0.0), (4, 1.0), (4, 0.0), (3, 2.0)])
def test_greedy_and_beam_search_write_what_transformers_writes(pair, beams, penalty):
    theirs, ours = pair
    with torch.no_grad():  # an end within reach, and only bytes: nothing else is a text of ours
        theirs.lm_head.weight[1] += 0.15 * theirs.lm_head.weight[40:200].mean(0)
    ours = bytelm.hub.from_official("byt5", SIZES, theirs.state_dict())
    ids, mask = their_batch(SOURCES, end=True)
    barred = [[row] for row in (0, 2, *range(259, 384))]
    written = theirs.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=beams,
        length_penalty=penalty,
        early_stopping="never",
        max_new_tokens=12,
        bad_words_ids=barred,
        renormalize_logits=True,
        do_sample=False,
    )
    lm = Seq2SeqLM(ours, window=100)
    for source, row in zip(SOURCES, written.tolist(), strict=True):
        text = bytes(i - 3 for i in row[1:] if 3 <= i < 259)
        best = beam_search(lm, beams=beams, max_bytes=12, length_penalty=penalty, context=source)[0]
        assert best.data == text, (source, best)
    texts = [bytelm.generate(lm, context=source, temperature=0, max_bytes=12) for source in SOURCES]
    assert len(set(texts)) > 1


def test_weights_round_trip_both_ways():
    torch.manual_seed(0)
    theirs = T5ForConditionalGeneration(TheirConfig(**SIZES))
    model = bytelm.hub.from_official("byt5", SIZES, theirs.state_dict())
    config, weights = bytelm.hub.to_official(model)
    again = T5ForConditionalGeneration(TheirConfig(**config))
    assert not again.load_state_dict(weights, strict=False).unexpected_keys
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"vocab_size": 32128}, "vocab_size is 32128"),
        ({"d_kv": None}, "it has no d_kv"),
    ],
)
def test_configurations_of_other_models_are_refused(changes, found):
    with pytest.raises(BytelmError, match=found):
        bytelm.hub.from_official("byt5", {**SIZES, **changes})


def test_weights_of_another_layout_are_refused():
    state = bytelm.hub.to_official(bytelm.hub.from_official("byt5", SIZES))[1]
    with pytest.raises(CheckpointError, match="0 names missing .*, 1 unknown .'extra'"):
        bytelm.hub.from_official("byt5", SIZES, {**state, "extra": torch.ones(1)})
    del state["shared.weight"]
    with pytest.raises(CheckpointError, match=r"1 names missing \['shared.weight'\]"):
        bytelm.hub.from_official("byt5", SIZES, state)
    with pytest.raises(CheckpointError, match="shape"):
        wider = {**SIZES, "d_ff": 96}
        bytelm.hub.from_official(
            "byt5", wider, bytelm.hub.to_official(bytelm.hub.from_official("byt5", SIZES))[1]
        )
