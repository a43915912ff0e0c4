"""The texts of the conversion benchmarks: English prose, Python code and Chinese and Japanese.

All are files of this repository, so a result can be repeated: the prose and the scripts are samples
of `data/`, the code is the package's own (which no published model has seen).
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FILES = {
    "english": ("data/prose/heldout.txt",),
    "code": ("bytelm/vocab.py", "bytelm/lm/protocol.py", "bytelm/arch/base.py"),
    "cjk": ("data/scripts/han-chinese-simplified.txt", "data/scripts/kana-japanese.txt"),
}


def texts(size: int, *, piece: int = 512, root: Path = ROOT) -> dict[str, list[bytes]]:
    """About `size` bytes of each kind, an equal share from each file, in pieces that start where a
    text might: at a line or, in a line too long for a piece, at a word."""
    found = {}
    for kind, names in _FILES.items():
        share = size // len(names)
        found[kind] = [
            part for name in names for part in split((root / name).read_bytes()[:share], piece)
        ]
    return found


def split(text: bytes, size: int) -> list[bytes]:
    """`text` in pieces of at most `size` bytes that end at a line's end, else after a blank, else
    between two UTF-8 characters."""
    pieces = []
    while text:
        end = len(text)
        if end > size:
            end = max(text.rfind(b"\n", 0, size), 0) + 1
            if end < size // 2:
                end = text.rfind(b" ", 0, size) + 1
            if end < size // 2:
                end = size
                while text[end] & 0xC0 == 0x80:
                    end -= 1
        pieces.append(text[:end])
        text = text[end:]
    return pieces
