"""Make `tokenizers/words-4k`: pieces of words, for masked words and for the subword baselines.

Run it as `python benchmarks/fetch/make_words.py`; it needs `data/prose/train.txt` only, of which it
reads the first `BYTES`. Every word is a document of its own (cut as `nn/words.py` cuts, with the
space in front), so no token reaches across words and a text's ids are those of its words.
"""

from pathlib import Path

import numpy as np

from bytelm.objectives.masked_words import words_of
from bytelm.tokenizer import BinaryBPE

ROOT = Path(__file__).resolve().parents[2]
BYTES, SIZE = 1_500_000, 4096


def main() -> None:
    text = np.fromfile(ROOT / "data" / "prose" / "train.txt", np.uint8)[:BYTES]
    bpe = BinaryBPE.train(words_of(text), vocab_sizes=[SIZE])[SIZE]
    bpe.save(ROOT / "tokenizers" / "words-4k")


if __name__ == "__main__":
    main()
