"""The automaton of a pre-tokenizer against the library: its cuts of whole texts, and that the ways
it cuts the beginning of a text are just those that continuations make, by brute force over the
expression's own alphabet (one character per class)."""

import itertools
import random

import pytest
from tokenizers import Regex, pre_tokenizers

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.character_sets import CharacterClasses, members
from bytelm.exact.tokenizers.expression import literal, parse
from bytelm.exact.tokenizers.gguf_tokenizer import EXPRESSIONS
from bytelm.exact.tokenizers.piece_automaton import BEHAVIORS, PieceAutomaton, Split
from bytelm.exact.tokenizers.pre_tokenizers import piece_automaton
from bytelm.exact.tokenizers.pretokenized import expression_spans

DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# name -> expressions, and how far a continuation must reach to show each cut
CASES: dict[str, tuple[tuple[str, ...], int]] = {
    "gpt-2": (EXPRESSIONS["gpt-2"], 2),
    "gpt-2 behind digits": (EXPRESSIONS["smollm"], 2),
    "cl100k": (EXPRESSIONS["llama-bpe"], 2),
    "deepseek-v3": ((r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK), 2),
    "bloom": ((r" ?[^(\s|[.,!?…。，、।۔،])]+",), 2),
    "digits from the right": ((r"\d{1,3}(?=(\d{3})+\b)|\d+|[^\d\s]+|\s+(?!\S)|\s+",), 5),
    "digits cut at no width": ((r"(?=(\d{3})+(?!\d))", r"\d+|\s+|[^\d\s]"), 5),
    "possessive": ((r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}|[^\s\p{L}]++[\r\n]*+|\s++$|\s",), 2),
    "boundaries": ((r"\b[a-c]+\B|(?<=[a-c])x|(?<!x)y+?|\Aab|b\z",), 2),
    "lazy and nested": ((r"(?:a+?b|a){1,2}|(?i:k)(?:b|)c", r"b"), 3),
    "ranges": ((r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+", r"\s?[!-/:-~！-／：-～]+", r"\s+$", r"[一-龥가-퟿]+"), 2),
}


def library(expressions, behavior="isolated", invert=False):
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(e), behavior, invert) for e in expressions]
    )
    return lambda text: [span for _, span in cut.pre_tokenize_str(text)]


def strings(alphabet, longest):
    for length in range(longest + 1):
        yield from map("".join, itertools.product(alphabet, repeat=length))


@pytest.mark.parametrize("name", CASES)
def test_whole_texts_are_cut_as_the_library_cuts_them(name):
    expressions, _ = CASES[name]
    automaton, theirs = expression_spans(*expressions), library(expressions)
    rng = random.Random(0)
    alphabet = list(automaton.classes.samples)
    texts = list(strings(alphabet, 2)) + [
        "".join(rng.choices(letters, k=rng.randint(3, 16)))
        for letters in (alphabet, "1 \n'sab", "12a", "xyabck ")
        for _ in range(400)
    ]
    for text in texts:
        assert automaton.spans(text) == theirs(text), (name, text)


def check_beginnings(expressions, reach, longest, alphabet):
    automaton, theirs = expression_spans(*expressions), library(expressions)
    continuations = list(strings(automaton.classes.samples, reach))
    for text in strings(alphabet, longest):
        symbols = automaton.symbols(text)
        found = {
            (cuts, ends)
            for state, cuts in automaton.runs(symbols)
            for ends in (True, False)
            if (automaton.can_cut if ends else automaton.can_grow)[state]
        }
        expected = set()
        for after in continuations:
            starts = [a for a, _ in theirs(text + after)] if text + after else []
            cuts = tuple(a for a in starts if a < len(text)) or (0,)
            expected.add((cuts, not after or not text or len(text) in starts))
        if not text:  # nothing stands before the first character
            found, expected = {c for c, _ in found}, {c for c, _ in expected}
        assert found == expected, (expressions, text)


@pytest.mark.parametrize("name", CASES)
def test_beginnings_are_cut_in_every_way_that_a_continuation_makes_and_no_other(name):
    expressions, reach = CASES[name]
    rng = random.Random(1)
    samples = expression_spans(*expressions).classes.samples
    for _ in range(2):
        check_beginnings(expressions, reach, 3, rng.sample(samples, min(3, len(samples))))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_beginnings_over_the_whole_alphabet(name):
    expressions, reach = CASES[name]
    samples = expression_spans(*expressions).classes.samples
    check_beginnings(expressions, reach, 3 if len(samples) < 8 else 2, samples)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_behaviors_are_those_of_the_library(behavior, invert):
    names = {"mergedwithprevious": "merged_with_previous", "mergedwithnext": "merged_with_next"}
    expression = ["ab|c| "]
    if behavior == "removed":
        with pytest.raises(BytelmError, match="drops characters"):
            PieceAutomaton([Split(parse(expression[0]), behavior, invert)])
        return
    automaton = PieceAutomaton([Split(parse(expression[0]), behavior, invert)])
    theirs = library(expression, names.get(behavior, behavior), invert)
    for text in strings("abc x", 4):
        assert automaton.spans(text) == theirs(text), text


def test_dropping_what_cannot_occur_drops_nothing():
    """As some files of OpenAI's encodings say it: keep the matches, remove what lies between."""
    kept = Split(parse(r"\s+|\S+"), "removed", invert=True)
    assert PieceAutomaton([kept]).spans("a b") == [(0, 1), (1, 2), (2, 3)]


COMPONENTS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "Digits", "individual_digits": False},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True, "trim_offsets": True},
    {"type": "Split", "pattern": {"String": "a."}, "behavior": "Isolated", "invert": False},
    {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    },
]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: "-".join(map(str, c.values())))
def test_components_cut_as_the_library_does(component):
    import json

    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {}, "merges": []}
    shell = {"version": "1.0", "added_tokens": [], "model": model}
    shell["pre_tokenizer"] = {"invert": False, **component}
    theirs = Tokenizer.from_str(json.dumps(shell)).pre_tokenizer
    automaton = piece_automaton(component)
    for text in strings("a1½.— \n", 4):
        assert automaton.spans(text) == [span for _, span in theirs.pre_tokenize_str(text)], text


@pytest.mark.parametrize(
    "expression, why",
    [
        (r"(a)\1", r"the escape \\1"),
        (r"(?>ab)c", "the group"),
        (r"(?<=ab)c", "a lookbehind of more than one character"),
        (r"(?:ab)*+", "a possessive repetition of more than one character"),
        (r"a(?=b(?=cd))", "a lookahead inside a lookahead"),
        (r"(?i:ss)", "which one character folds to"),
        (r"a{1000}", r"the repetition \{1000\}"),
        (r"(?:(?:a{200}){200}){200}", "instructions"),
        (r"a(?=(?:[ab]*a[ab]{30})c)|[ab]", "an automaton of more than 20,000 states"),
        ("(a", "a group without"),
        ("[a", "a class without"),
        ("*a", "nothing to repeat"),
    ],
)
def test_what_no_forward_automaton_follows_is_refused_by_name(expression, why):
    with pytest.raises(BytelmError, match=why):
        expression_spans(expression)


def test_a_literal_matches_itself_alone():
    assert PieceAutomaton([Split(literal("."))]).spans("a.b") == [(0, 1), (1, 2), (2, 3)]


def test_sets_of_characters_are_the_library_s_own():
    assert members(r"\s")[[0x20, 0x3000, 0x61]].tolist() == [True, True, False]
    assert members("(?i:k)").nonzero()[0].tolist() == [ord("K"), ord("k"), 0x212A]  # Kelvin
    ranges = members(r"[\x{40000}-\x{60000}a]")
    assert ranges.sum() == 0x20002 and ranges[[0x40000, 0x60000]].all()
    classes = CharacterClasses([r"\p{L}", "[a-z]"])
    assert len(classes) == 3 and classes.within(0x61, 0x7B) == [int(classes.of[0x61])]


@pytest.mark.slow
@pytest.mark.parametrize("source", [r"\p{L}", r"\s", r"\p{N}", r"\p{P}", r"\w", "[^一-龥\\s]"])
def test_asking_for_some_characters_is_asking_for_all(source):
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    cut = pre_tokenizers.Split(Regex(f"(?:{source})+"), "removed", invert=True)
    found = set()
    for _, (start, end) in cut.pre_tokenize_str("".join(map(chr, codes))):
        found.update(codes[start:end])
    assert found == set(members(source).nonzero()[0].tolist())
