"""What a text costs the tokenizer's side: operations and memory per byte, counted, not timed, must
not grow with the text, also where nothing ends a piece or a window."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import bytelm
from bytelm.exact import TabularLM
from bytelm.exact.converter import ByteConverter
from bytelm.exact.models.canonical import CanonicalLM
from bytelm.exact.tokenizers import encoders
from bytelm.exact.tokenizers.added import behind_added
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.gguf_tokenizer import EXPRESSIONS
from bytelm.exact.tokenizers.piece_automaton import PieceAutomaton
from bytelm.exact.tokenizers.piece_cursor import PieceEncoding
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.tables import merge_encoder
from bytelm.exact.tokenizers.token_node import TokenString
from tests.exact.tiny import TOKENIZERS

ROOT = Path(__file__).parents[2]
N = 600  # bytes; compared with a third of them

draw = random.Random(3)
TEXTS = {
    "english": (ROOT / "data/prose/heldout.txt").read_bytes()[:N],
    "dna": bytes(draw.choices(b"ACGT", k=N)),
    "zeros": bytes(N),
    "blanks": b" " * N,
    "random bytes": draw.randbytes(N),
    "identifier": "".join(draw.choices("abcdefgh_XYZ019", k=N)).encode(),
    "marks": "".join(draw.choices("aé\u0301\u0e01\u0e34", k=N // 2)).encode()[:N],
    "chinese": (ROOT / "data/scripts/han-chinese-simplified.txt").read_bytes()[:N],
}


def binary(*expressions: str):
    """Binary BPE's merges, behind expressions."""
    bpe = bytelm.BinaryBPE.load(ROOT / "tokenizers/binary-4k")
    vocab = list(bpe.token_bytes)
    merges = [(bpe.codec.token(a), bpe.codec.token(b)) for a, b in bpe.codec.merges.tolist()]
    spans = expression_spans(*expressions) if expressions else None
    return vocab, merge_encoder(vocab, merges, spans)


def greedy():
    vocab, _ = binary()
    return vocab, encoders.GreedyEncoder(PrefixTrie(vocab))


def added_blanks():
    """GPT-2's expression behind a search for runs of blanks, as GPT-NeoX has it."""
    vocab, inner = binary(*EXPRESSIONS["gpt-2"])
    runs = [b" " * n for n in range(2, 25)]
    added = {run: len(vocab) + i for i, run in enumerate(runs)}
    return [*vocab, *runs], behind_added(inner, [added])


ENCODERS = {
    "merges": binary,
    "gpt-2": lambda: binary(*EXPRESSIONS["gpt-2"]),
    "llama-3": lambda: binary(*EXPRESSIONS["llama3"]),
    "digits apart": lambda: binary(*EXPRESSIONS["smollm"]),
    "greedy": greedy,
    "added blanks": added_blanks,
}


class Operations:
    """Counts what cursors ask of their parts, each call once for each byte that it is given."""

    def __init__(self, monkeypatch):
        self.count = 0
        self._watch(monkeypatch, PrefixTrie, "narrow", lambda *given: 1)
        self._watch(monkeypatch, BytePairs, "merge", lambda pairs, piece: len(piece))
        self._watch(monkeypatch, PieceAutomaton, "symbols", lambda automaton, text: len(text))
        self._watch(monkeypatch, PieceEncoding, "push", lambda *given: 1)

    def _watch(self, monkeypatch, owner, name, cost):
        inner = getattr(owner, name)

        def counted(*given):
            self.count += cost(*given)
            return inner(*given)

        monkeypatch.setattr(owner, name, counted)


def walk(encoder, trie: PrefixTrie, data: bytes):
    cursor = encoder.begin(TokenString(trie), trie)
    for byte in data:
        cursor = cursor.push(byte)
        assert cursor.here()
    return cursor


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_operations_per_byte_do_not_grow_with_the_text(make, monkeypatch):
    operations = Operations(monkeypatch)
    vocab, encoder = make()
    trie = PrefixTrie(vocab)
    for kind, text in TEXTS.items():
        walk(encoder, trie, text)  # what is found once for a vocabulary and an alphabet is found
        counts = []
        for size in (N // 3, N):
            operations.count = 0
            walk(encoder, trie, text[:size])
            counts.append(operations.count / size)
        assert counts[1] <= 1.2 * counts[0] + 1, kind
        assert counts[1] <= 60, (kind, counts)


def kept(encoder, trie: PrefixTrie, data: bytes) -> tuple[int, int]:
    """Bytes of memory that the cursor at the end of a text holds, and its tokens."""
    tracemalloc.start()
    held = walk(encoder, trie, data)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    node, tokens = held.here()[-1], 0
    while node is not None:
        node, tokens = node.parent, tokens + 1
    return size, tokens


@pytest.mark.parametrize("name", ["merges", "digits apart", "greedy"])
def test_what_a_text_keeps_is_its_token_string(name):
    vocab, encoder = ENCODERS[name]()
    trie = PrefixTrie(vocab)
    for kind in ("english", "zeros", "random bytes", "identifier"):
        text = TEXTS[kind][:480]
        walk(encoder, trie, text)
        short, few = kept(encoder, trie, text[:120])
        long, many = kept(encoder, trie, text)
        assert long - short <= 600 * (many - few) + 50_000, (kind, short, few, long, many)
        assert short <= 600 * few + 150_000, (kind, short, few)


CANONICALISED = {
    "zeros": lambda n: b"a" * n,
    "repeats": lambda n: (b"abcab" * n)[:n],
    # without c: "abca" and "ccc" have two best unigram encodings, equal but for rounding
    "random": lambda n: bytes(np.random.default_rng(3).choice([97, 98], n).tolist()),
}


@pytest.mark.parametrize("text", CANONICALISED.values(), ids=CANONICALISED)
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_masks_of_a_canonicalised_model_are_found_again_however_long_the_text(
    make, text, monkeypatch
):
    vocab, encoder = make()
    law = np.random.default_rng(1).dirichlet(np.ones(len(vocab) + 1))
    masks: list[int] = []  # the windows that masks were found for, where there are windows
    find = CanonicalLM._find_valid

    def counted(self, node):
        masks.append(len(getattr(node.cursor, "window", b"")))
        return find(self, node)

    monkeypatch.setattr(CanonicalLM, "_find_valid", counted)
    lm = TabularLM(lambda h: law, [*vocab, None], eos_ids={len(vocab)})
    converter = ByteConverter(lm, encoder, mode="canonicalised", beam=1, epsilon=0)
    converter.score(text(200))
    first = len(masks)
    converter.score(text(800))
    assert max(masks) <= 6 * max(map(len, vocab))
    if not max(masks):
        assert len(masks) <= 1.5 * first
