"""Covers of real tokenizers at every cut of awkward strings; no model needed.

For each cut of a text: some token prefix of the canonical frontier is what the encoding of the
whole text has before its straddling token (completeness), each prefix spells what it should
(correctness), none comes twice, and there are few of them. The references are the libraries' own
encodings.
"""

import json

import pytest

from benchmarks.exact_packages import package_file
from bytelm.exact import TabularLM
from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.token_tree import TokenTree
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.gguf_tokenizer import EXPRESSIONS, read_gguf_tokenizer, read_metadata
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.exact.tokenizers.tables import TokenizerTables, byte_level, merge_encoder
from bytelm.exact.tokenizers.tokenizer_files import read_rwkv, read_tiktoken

pytestmark = pytest.mark.slow

CL100K = EXPRESSIONS["llama-bpe"]
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

EDGES = [
    "The quick brown fox's den; don't, we'll, I'VE, they'RE 'sup y'all'd've",
    "a\n\nb\n\n\nc\r\n\r\n d \n \n  e\t\tf   g\u0085h\u2028i\u00a0j\u3000k",
    "   leading and trailing   ",
    "\n\n  0. item\n    code(x)\n\treturn\n\n",
    "1 12 123 1234 12345 123456 1234567 ٣٤٥٦ ५६७८ １２３４ 3.14159e-10 v1.2.3",
    "你好，世界。今天天气 日本語カタカナひらがな漢字 한국어 문장",
    "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 e\u0301a\u0308 n\u0303o \u202eabc\u202c \ufeffx",
    "a\x00b\x7fc <|endoftext|> <s>[INST] </s> <unk> <0x0A>",
    "∑∫√∞≠ α→β x²+y³ ½ Ⅷ camelCaseHTMLParser snake_case __init__",
    "def f(x):\n    if x:\n\t\treturn {'a': [1, 2]}  # note\n\n\n\nclass A: ...",
    "ſ's 'ſ \u2019s don\u2019t İI ǅ ªº",
    "....!!!???---===***///\\\\\\ ((({{{[[[ \n...\n---\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa                    bbbbbbbb",
]

# Segmentations of equal score, "((" "(" or "(" "((": the library decides by the rounding of float32
# sums from the start of the text, so an encoding restarted further on may decide otherwise.
TIES = EDGES[-2:]


def gpt2() -> TokenizerTables:
    ids = json.loads(package_file("gpt2-vocab").read_text())
    lines = package_file("gpt2-merges").read_text().split("\n")[1:]
    merges = [tuple(map(byte_level, line.split(" "))) for line in lines if " " in line]
    vocab = [None] * len(ids)
    for token, i in ids.items():
        vocab[i] = byte_level(token)
    return TokenizerTables(
        vocab, merge_encoder(vocab, merges, expression_spans(*EXPRESSIONS["gpt-2"]))
    )


TABLES = {
    "gpt2": gpt2,
    "cl100k": lambda: read_tiktoken(package_file("cl100k"), expression_spans(*CL100K)),
    "o200k": lambda: read_tiktoken(package_file("o200k"), expression_spans(*O200K)),
    "llama3": lambda: read_tiktoken(package_file("llama3"), expression_spans(*CL100K)),
    "smollm2": lambda: read_gguf_tokenizer(read_metadata(package_file("smollm2"))),
    "mistral-v1": lambda: read_sentencepiece(package_file("mistral-v1")),
    "mistral-v3": lambda: read_sentencepiece(package_file("mistral-v3")),
    "unigram-j2": lambda: read_sentencepiece(package_file("j2")),
    "rwkv": lambda: read_rwkv(package_file("rwkv")),
}


@pytest.fixture(scope="module", params=TABLES)
def tables(request) -> TokenizerTables:
    found = TABLES[request.param]()
    found.name = request.param
    return found


def tree_of(tables: TokenizerTables) -> TokenTree:
    """A tree over the vocabulary; its model is never asked for more than the root."""
    size = len(tables.vocab_bytes)
    lm = TabularLM(lambda history: [1 / size] * size, tables.vocab_bytes)
    return TokenTree(lm, PrefixTrie(tables.vocab_bytes))


def spelled(tables: TokenizerTables, ids) -> bytes:
    return b"".join(tables.vocab_bytes[i] for i in ids)


def test_covers_at_every_cut_are_complete_correct_and_few(tables):
    root = tree_of(tables).root
    encoder: Encoder = tables.encoder
    for text in EDGES:
        data = text.encode()
        if tables.name == "unigram-j2" and text in TIES:
            continue
        ids = encoder.encode(data)
        if spelled(tables, ids) != data:
            raise AssertionError(f"{tables.name} does not spell {text!r}")
        ends = [len(spelled(tables, ids[:n])) for n in range(len(ids) + 1)]
        frontier, seen = CanonicalFrontier.after(encoder, root), {}
        for cut in range(len(data) + 1):
            here = frontier.here()
            names = [tuple(prefix.tokens()) for prefix, _ in here]
            assert len(set(names)) == len(names) <= 4, (text, cut)
            assert all(spelled(tables, name) == data[:cut] for name in names), (text, cut)
            seen[cut] = set(names)
            if cut in ends:
                true = tuple(ids[: ends.index(cut)])
                assert true in seen[cut], (tables.name, text, cut, data[max(0, cut - 9) : cut])
            else:
                start = max(end for end in ends if end < cut)
                assert tuple(ids[: ends.index(start)]) in seen[start], (tables.name, text, cut)
            if cut < len(data):
                frontier = frontier.push(data[cut])


PROSE = (
    b"A cover is a token string over the text. Most cuts have one; blank lines have two.\n\n"
    b'It was in 1969 that they didn\'t land: "not yet", she said (twice), and left.\n'
) * 5


def test_there_is_about_one_token_prefix_per_byte(tables):
    frontier, found = CanonicalFrontier.after(tables.encoder, tree_of(tables).root), 0
    for byte in PROSE:
        frontier = frontier.push(byte)
        found += len(frontier.here())
    assert len(PROSE) <= found <= 1.05 * len(PROSE)


@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3"])
def test_sentencepiece_windows_encode_as_the_library_does(name):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(package_file(name)))
    tables = TABLES[name]()
    for text in EDGES:
        if "\u2581" not in text and "<0x" not in text:
            assert tables.encoder.encode(b" " + text.encode()) == processor.encode(text)


def test_smollm2_encodes_as_its_transformers_tokenizer_with_digits_apart():
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    path = package_file("smollm2")
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tables = TABLES["smollm2"]()
    for text in EDGES:
        if "<|" in text or any(bytes([b]) not in tables.encoder.pairs.ids for b in text.encode()):
            continue
        assert tables.encoder.encode(text.encode()) == theirs.encode(text).ids


@pytest.mark.parametrize("name, pattern", [("cl100k", CL100K), ("o200k", O200K)])
def test_tiktoken_agrees(name, pattern):
    import tiktoken

    tables = TABLES[name]()
    ranks = {data: i for i, data in enumerate(tables.vocab_bytes) if data is not None}
    theirs = tiktoken.Encoding(name, pat_str=pattern[0], mergeable_ranks=ranks, special_tokens={})
    for text in EDGES:
        assert tables.encoder.encode(text.encode()) == theirs.encode(text)


def test_cover_counts_of_gpt2_are_the_published_ones():
    index = PrefixTrie(gpt2().vocab_bytes)
    golden = {
        b"Hello, worl": (176, 36_608),
        b"Hello, world": (352, 39_536),
        b"The capital of France is": (400_768, 109_409_664),
    }
    for text, (encodings, covers) in golden.items():
        assert index.count_encodings(text)[-1] == encodings
        assert index.count_covers(text) == covers
    assert index.count_encodings(b"In the kingdom of the blind, the ")[-1] == 7_962_624
