"""Byte2Word: what a word's vector may depend on, BERT's own encoder as an oracle, and its size.

That an encoder's rows are alone and padding is not there is in `test_encoder_contract.py`.
"""

import pytest
import torch

from bytelm.arch.byte2word import Byte2Word, Byte2WordConfig
from bytelm.data.batch import IGNORE, Batch, byte_rows
from bytelm.errors import BytelmError
from bytelm.nn.bert import BertEncoder
from bytelm.nn.segments import Segments
from bytelm.vocab import ByteVocab, TokenVocab
from tests.arch.cases import default_dtype, make

MASK = ByteVocab()["mask"]
TOKENS = TokenVocab(size=40, bos=0, eos=1, pad=2, sha256="0")


def words(model, text: bytes, *, padded: int = 0):
    """(C, D) the vectors of the words of a text before the encoder, possibly in a padded batch."""
    batch = byte_rows([text, b"x" * padded])
    segments = Segments(batch.ids.shape[1], batch.lengths)
    plan = model.plan(batch.ids, segments)
    with torch.no_grad():
        return model.embeddings(batch.ids, plan, segments)[0, : int(plan.counts[0])]


def filler(vocab=None, **settings) -> Byte2Word:
    """A model that predicts up to 3 of 20 pieces."""
    if vocab is not None:
        settings["input"] = "pieces"
    config = Byte2WordConfig(layers=1, d_model=16, heads=2, **settings)
    mask = MASK if vocab is None else 3
    torch.manual_seed(0)
    with default_dtype(torch.float64):
        return Byte2Word(
            config, vocab or ByteVocab(), pieces=20, word_pieces=3, mask=mask, stop=1
        ).eval()


def test_a_words_vector_is_made_from_its_own_bytes_alone():
    model = make("byte2word")
    first, other = words(model, b"the cat sat"), words(model, b"our cat ran off")
    assert torch.equal(first[1], other[1])
    assert (first[0] - other[0]).abs().max() > 0.1
    assert torch.equal(words(model, b" cat cat")[0], words(model, b" cat cat")[1])


def test_words_that_change_places_change_them_in_the_vectors_too():
    model = make("byte2word")
    assert torch.equal(words(model, b" cat dog"), words(model, b" dog cat").flip(0))


def test_padding_and_the_longest_word_allowed_change_no_words_vector():
    model = make("byte2word")
    text = b"the cat"
    for padded in (0, 3, 50):
        assert torch.equal(words(model, text), words(model, text, padded=padded))
    longer = Byte2WordConfig(**{**model.config.model_dump(), "max_word": 9})
    with default_dtype(torch.float64):
        roomy = Byte2Word(longer, ByteVocab(), labels=model.labels).eval()
    state = model.state_dict()
    places = torch.cat((state["embeddings.places.weight"], torch.randn(3, 32).double()))
    roomy.load_state_dict(state | {"embeddings.places.weight": places})
    assert torch.equal(words(model, text), words(roomy, text))


def test_without_keys_a_word_finds_the_mean_of_its_values():
    model = make("byte2word")
    embed = model.embeddings
    with torch.no_grad():
        embed.Wk.weight.zero_()
        x = embed.bytes(torch.tensor(list(b" cat"))) + embed.places.weight[:4]
        expected = x.mean(0) + embed.out_proj(embed.Wv(x).mean(0))
    assert (words(model, b"a cat")[1] - expected).abs().max() < 1e-12


def test_attention_is_softmax_over_the_words_own_bytes_head_by_head():
    model = make("byte2word")
    embed, H = model.embeddings, model.config.word_heads
    with torch.no_grad():
        x = embed.bytes(torch.tensor(list(b" cat"))) + embed.places.weight[:4]
        q = embed.Wq(x.mean(0) + embed.query).view(H, -1)
        k, v = (layer(x).view(4, H, -1) for layer in (embed.Wk, embed.Wv))
        heads = [(k[:, h] @ q[h] / k.shape[-1] ** 0.5).softmax(0) @ v[:, h] for h in range(H)]
        expected = x.mean(0) + embed.out_proj(torch.cat(heads))
    assert (words(model, b"a cat")[1] - expected).abs().max() < 1e-12


def test_the_encoder_is_berts():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=5,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=17,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
    )
    theirs = transformers.BertModel(config, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.2)
    ours = BertEncoder(24, layers=3, heads=3, hidden=40, positions=17).double()
    copy_bert(theirs, ours)
    x = torch.randn(3, 17, 24, dtype=torch.float64)
    lengths = torch.tensor([17, 9, 1])
    mask = (torch.arange(17) < lengths[:, None]).long()
    with torch.no_grad():
        expected = theirs(inputs_embeds=x, attention_mask=mask).last_hidden_state
        found = ours(x, Segments(17, lengths))
    valid = mask.bool()
    assert (found[valid] - expected[valid]).abs().max() < 1e-10


def copy_bert(theirs, ours) -> None:
    """The weights of a `BertModel`; its token type 0 goes into the positions."""
    table = theirs.embeddings
    types = table.token_type_embeddings.weight[0]
    state = {
        "positions.weight": table.position_embeddings.weight + types,
        "norm.weight": table.LayerNorm.weight,
        "norm.bias": table.LayerNorm.bias,
    }
    for i, layer in enumerate(theirs.encoder.layer):
        own = layer.attention.self
        for kind in ("weight", "bias"):
            parts = [getattr(part, kind) for part in (own.query, own.key, own.value)]
            pairs = {
                "Wqkv": torch.cat(parts),
                "out_proj": getattr(layer.attention.output.dense, kind),
                "norm1": getattr(layer.attention.output.LayerNorm, kind),
                "fc1": getattr(layer.intermediate.dense, kind),
                "fc2": getattr(layer.output.dense, kind),
                "norm2": getattr(layer.output.LayerNorm, kind),
            }
            state |= {f"blocks.{i}.{name}.{kind}": value for name, value in pairs.items()}
    ours.load_state_dict(state)


def test_a_masked_word_leaks_neither_its_bytes_nor_their_number():
    model = filler()
    ids = torch.tensor([[*b"the", MASK, *b" sat on", MASK, *b" mat"]])
    output = model(Batch(ids=ids))
    assert output.logits.shape == (2, 3, 20) and output.loss is None
    targets = torch.full((1, ids.shape[1], 3), IGNORE)
    targets[0, 3], targets[0, 11, 0] = torch.tensor([4, 5, 1]), 7
    loss = model(Batch(ids=ids, targets=targets)).loss
    logprobs = output.logits.log_softmax(-1)
    expected = -(logprobs[0, [0, 1, 2], [4, 5, 1]].sum() + logprobs[1, 0, 7]) / 4
    assert torch.allclose(loss, expected, atol=1e-12)
    none = model(Batch(ids=ids, targets=torch.full_like(targets, IGNORE)))
    assert float(none.loss.detach()) == 0
    nothing = model(byte_rows([b"no gap"]))
    assert nothing.logits.shape == (0, 3, 20)


@pytest.mark.parametrize("vocab", [None, TOKENS])
def test_every_parameter_of_a_model_that_fills_gets_a_gradient(vocab):
    model = filler(vocab)
    masked = model.mask
    ids = torch.tensor([[5, 6, masked, 7, 5], [masked, 9, 9, 2, 2]])
    targets = torch.full((2, 5, 3), IGNORE)
    targets[0, 2], targets[1, 0] = torch.tensor([4, 5, 6]), torch.tensor([7, 8, 1])
    model(Batch(ids=ids, targets=targets, lengths=torch.tensor([5, 3]))).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_pieces_are_words_of_their_own_for_the_subword_twin():
    model = filler(TOKENS)
    batch = Batch(ids=torch.tensor([[5, 3, 7], [9, 2, 2]]), lengths=torch.tensor([3, 1]))
    plan = model.plan(batch.ids, Segments(3, batch.lengths))
    assert plan.starts.tolist() == [[True] * 3, [True, False, False]]
    assert model(batch).logits.shape == (1, 3, 20)


def test_the_embedding_has_a_tenth_of_berts_parameters_at_its_size():
    sizes = {"layers": 1, "d_model": 768, "heads": 12}
    with torch.device("meta"):
        ours = Byte2Word(Byte2WordConfig(**sizes), ByteVocab(), labels=("a", "b"))
        vocab = TokenVocab(size=30522, bos=0, eos=1, pad=2, sha256="0")
        twin = Byte2Word(Byte2WordConfig(input="pieces", **sizes), vocab, labels=("a", "b"))
    D, max_word = 768, ours.config.max_word
    assert ours.embedding_parameters() == (ByteVocab().size + max_word + 1) * D + 4 * D * D
    assert twin.embedding_parameters() == 30522 * D
    assert 0.09 < ours.embedding_parameters() / twin.embedding_parameters() < 0.12


def test_what_a_recipe_gives_must_be_what_the_model_reads():
    for settings, vocab in (({"input": "pieces"}, ByteVocab()), ({}, TOKENS)):
        with pytest.raises(BytelmError, match=r"model\.input"):
            Byte2Word(Byte2WordConfig(**settings), vocab, labels=("a", "b"))


def test_more_words_than_positions_are_refused_by_their_number():
    model = filler(positions=4)
    with pytest.raises(BytelmError, match="6 words .* positions for 4"):
        model(byte_rows([b"a b c d e f"]))
