"""Id maps: rows of the released tables, and logits that come back under our ids."""

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.nn.tables import id_map
from bytelm.vocab import ByteVocab, TokenVocab

VOCAB = ByteVocab(sentinels=3)


def oracle(table):
    """Our id -> row as the releases document it; ids without a row are left out."""
    eos, bos, pad = VOCAB.eos, VOCAB.bos, VOCAB.pad
    if table == "hnet":
        return {**{b: b for b in range(254)}, bos: 254, eos: 255}
    if table == "byt5":
        sentinels = {VOCAB[f"sentinel_{k}"]: 258 - k for k in range(3)}
        return {**{b: b + 3 for b in range(256)}, bos: 0, pad: 0, eos: 1, **sentinels}
    return {**{b: b + 4 for b in range(256)}, pad: 0, bos: 1, eos: 2, VOCAB["sep"]: 3}


@pytest.mark.parametrize(("table", "rows"), [("hnet", 256), ("byt5", 384), ("blt", 260)])
def test_ids_and_rows_translate_as_the_releases_number_them(table, rows):
    ids, expected = id_map(table, VOCAB), oracle(table)
    assert ids.rows == rows
    logits = torch.randn(2, 3, rows)
    ours = ids.logits_of(logits)
    assert ours.shape == (2, 3, VOCAB.size)
    for symbol in range(VOCAB.size):
        if symbol in expected:
            assert ids.rows_of(torch.tensor([[symbol]])).tolist() == [[expected[symbol]]]
            assert torch.equal(ours[..., symbol], logits[..., expected[symbol]])
            continue
        assert torch.isneginf(ours[..., symbol]).all()
        if symbol == VOCAB.pad:
            assert ids.rows_of(torch.tensor([symbol])).tolist() == [0]
        else:
            with pytest.raises(BytelmError, match="cannot be fed to a released"):
                ids.rows_of(torch.tensor([97, symbol]))


@pytest.mark.parametrize("table", ["hnet", "byt5", "blt"])
def test_bytes_and_the_end_never_share_a_row(table):
    row = id_map(table, VOCAB).row
    used = [r for r in row[:257] if r >= 0]
    assert len(used) == len(set(used))


def test_gradients_reach_every_row_that_has_an_id():
    ids = id_map("hnet", VOCAB)
    logits = torch.zeros(1, ids.rows, dtype=torch.float64, requires_grad=True)
    torch.log_softmax(ids.logits_of(logits), -1)[0, 97].backward()
    assert logits.grad.isfinite().all() and logits.grad.all()


def test_our_own_tables_are_left_alone():
    for vocab in (VOCAB, TokenVocab(size=300, bos=256, eos=257, pad=258, sha256="0")):
        ids = id_map("own", vocab)
        x = torch.arange(4)
        assert ids.rows == vocab.size and ids.rows_of(x) is x and ids.logits_of(x) is x


def test_tables_of_bytes_refuse_tokens_and_too_many_sentinels():
    with pytest.raises(BytelmError, match=r"data\.tokenizer"):
        id_map("blt", TokenVocab(size=300, bos=256, eos=257, pad=258, sha256="0"))
    with pytest.raises(BytelmError, match="256 sentinels"):
        id_map("byt5", ByteVocab(sentinels=300))
