"""Texts for comparing tokenizers: fragments of many scripts, blanks, code, digits, controls and
things that look like markers, put together at random."""

from __future__ import annotations

import random
from collections.abc import Iterable

COUNT = 200
FRAGMENTS = [
    *"The quick brown fox's den; don't, we'll, I'VE, they'RE 'sup y'all'd've".split(),
    "\n\n", "\n", "\r\n", " ", "  ", "    ", "\t", "\t\t", "\u00a0", "\u3000", "\u2028", "\u0085",
    "1", "12", "123", "1234", "12345", "123456", "1234567", "٣٤٥٦", "५६७८", "１２３４",
    "3.14159e-10", "v1.2.3", "½", "Ⅷ", "²", "你好，世界。", "今天天气", "日本語", "カタカナ",
    "ひらがな", "한국어", "문장", "ไทย", "हिन्दी", "العربية", "עברית", "Ελληνικά", "Русский",
    "ქართული", "አማርኛ", "தமிழ்", "ǅ", "ªº", "\U0001f469\u200d\U0001f467", "🇩🇪🇫🇷", "👍🏽",
    "e\u0301", "a\u0308", "\u202eabc\u202c", "\ufeff", "\u200b", "\U0010fffd",
    "\x00", "\x7f", "\x1b[0m", "\ufffd", "<0x0A>", "<|x|>", "<table>", "[INST]", "</s", "<unk",
    "∑∫√∞≠", "α→β", "camelCaseHTMLParser", "snake_case", "__init__", "def f(x):",
    "return {'a': [1]}", "// note", "#include <a.h>", "x+=y**2;", "....", "!!!", "???", "---",
    "===", "***", "///", "\\\\", "((", "[[", "{{", "“quoted”", "don\u2019t", "aaaaaaaaaaaaaaaa",
    "ACGTACGTTACG", "http://a.b/c?d=e", "\u2581", "ſ's", "İI", "naïve", "œuvre", "straße", "Ǆ",
    "𝔘𝔫𝔦", "ﬁ", "…", "،", "।",
]  # fmt: skip


def texts(own: Iterable[str] = (), without: Iterable[str] = ()) -> list[str]:
    """200 texts, with and without blanks between fragments.

    own: fragments of the tokenizer's own; without: what no text may spell.
    """
    rng, own, without = random.Random(7), list(own)[:12], [name for name in without if name]
    found = ["", "a", " a", "\n\na", "  two  blanks  "]
    while len(found) < COUNT:
        parts = rng.choices(FRAGMENTS, k=rng.randint(1, 12))
        if own and len(found) % 5 == 0:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(own))
        text = rng.choice(["", " ", " ", "\n"]).join(parts)
        if not any(name in text for name in without):
            found.append(text)
    return found
