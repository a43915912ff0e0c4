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
    """About `size` bytes of each kind, an equal share from each file, in pieces."""
    found = {}
    for kind, names in _FILES.items():
        share = size // len(names)
        data = [(root / name).read_bytes()[:share] for name in names]
        found[kind] = [text[i : i + piece] for text in data for i in range(0, len(text), piece)]
    return found
