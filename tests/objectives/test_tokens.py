"""Windows of bytes as rows of ids: nothing lost, nothing twice, nothing seen across an edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data import IGNORE, Windows
from bytelm.errors import BytelmError
from bytelm.objectives import Setup
from bytelm.objectives.tokens import Tokens
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.vocabulary import token_vocab
from bytelm.vocab import END
from tests.data.test_windows import open_documents

BPE = BinaryBPE.train([b"she sells sea shells by the sea shore " * 9], vocab_sizes=[285])[285]
OBJECTIVE = Tokens(Tokens.Config(), Setup(open_tokenizer=lambda: BPE))
VOCAB = OBJECTIVE.vocab
documents = st.lists(st.binary(max_size=12) | st.just(b"the sea shells"), min_size=1, max_size=6)


def sequences(batch) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of every sequence of a batch, read off its document ids and lengths."""
    found = []
    for row, length in enumerate(batch.lengths.tolist()):
        assert batch.targets[row, length:].eq(IGNORE).all()
        ids, targets = batch.ids[row, :length].numpy(), batch.targets[row, :length].numpy()
        apart = np.zeros(length) if batch.document_ids is None else batch.document_ids[row, :length]
        cuts = np.flatnonzero(np.diff(apart)) + 1
        found += zip(
            (part.tolist() for part in np.split(ids, cuts)),
            (part.tolist() for part in np.split(targets, cuts)),
            strict=True,
        )
    return found


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(1, 40), st.integers(1, 5))
def test_every_byte_and_end_is_in_one_target_and_inputs_are_the_targets_before(data, length, rows):
    windows = Windows(open_documents(data), length=length, shuffle=False)
    spelled, raw_bytes = [], 0
    for start in range(0, windows.count, rows):
        samples = np.arange(start, min(start + rows, windows.count))
        batch = OBJECTIVE.batch(windows, samples)
        raw_bytes += batch.raw_bytes
        wanted = windows.rows(samples)
        pieces = [
            piece
            for symbols, n in zip(wanted.symbols, wanted.lengths, strict=True)
            for piece in np.split(symbols[:n], np.flatnonzero(symbols[: n - 1] == END) + 1)
        ]
        found = sequences(batch)
        for ids, targets in found:
            assert ids == [VOCAB.bos, *targets[:-1]]
        got = sorted(targets for _, targets in found)
        assert got == sorted(
            [*BPE.encode(bytes(piece[piece != END].tolist())).tolist()]
            + [VOCAB.eos] * int(piece[-1] == END)
            for piece in pieces
        )
        spelled += [piece[piece != END].astype(np.uint8).tobytes() for piece in pieces]
    assert b"".join(spelled) == b"".join(data)
    assert raw_bytes == sum(map(len, data))


def test_rows_are_filled_by_best_fit_instead_of_padded():
    data = [b"shells " * 4] * 3 + [bytes(range(100, 140))]
    windows = Windows(open_documents(data), length=64, policy="document", shuffle=False)
    batch = OBJECTIVE.batch(windows, np.arange(4))
    assert batch.ids.shape == (2, 41)  # three short sequences share the row beside the long one
    assert batch.document_ids is not None
    assert len(sequences(batch)) == 4


def test_a_tokenizer_without_the_ends_of_a_text_is_refused():
    bare = BinaryBPE.from_merges(np.zeros((0, 2)), special_tokens=["<|start|>", "<|pad|>"])
    with pytest.raises(BytelmError, match=r"<\|end\|>"):
        token_vocab(bare)
