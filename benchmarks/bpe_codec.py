"""Encoding and decoding speed of `BinaryBPE` beside Hugging Face, tiktoken and sentencepiece.

Same vocabulary, same held-out bytes, one thread, one process; MiB per CPU second, best of rounds
that alternate between the contenders. Hugging Face takes the latin-1 layout and strings made
beforehand, its time includes building the `.ids` lists (it has no other output). tiktoken is called
by its private method for one piece of bytes, sentencepiece takes our export and a CJK character a
byte. Ids are compared every time. The first call of ours in a process, which loads the compiled
core and builds tables, is reported apart.

    python -m benchmarks.bpe_codec --corpus /tmp/bpe/corpus/heldout
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from sentencepiece import SentencePieceProcessor
from tiktoken import Encoding
from tokenizers import Tokenizer

from benchmarks.common import store
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.sentencepiece_model import as_text

ROOT = Path(__file__).resolve().parents[1] / "tokenizers"
NAMES = ("binary-4k", "binary-16k", "binary-64k")
ROUNDS = 3
BASELINES = ("hf", "tiktoken", "sentencepiece")
PIECES = {"8 KiB": 1 << 13, "1 MiB": 1 << 20}


def sample(corpus: Path, size: int) -> bytes:
    files = sorted(path for path in corpus.rglob("*.bin") if path.parent.name != "apk")
    random.Random(1).shuffle(files)
    data = bytearray()
    for path in files:
        data += path.read_bytes()[: 1 << 18]
        if len(data) >= size:
            break
    return bytes(data[:size])


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def contenders(bpe: BinaryBPE) -> dict[str, tuple[Callable[[Any], Any], Callable[[bytes], Any]]]:
    """name -> (encode one prepared piece, prepare a piece)."""
    hf = Tokenizer.from_str(bpe.to_json(layout="latin-1").decode())
    hf.encode_special_tokens = True
    ranks = {bpe.codec.token(i): i for i in range(len(bpe.codec))}
    spp = SentencePieceProcessor(model_proto=bpe.to_sentencepiece())
    tik = Encoding(name="b", pat_str="(?s:.)", mergeable_ranks=ranks, special_tokens={})
    return {
        "ours": (partial(bpe.encode, threads=1), bytes),
        "hf": (lambda text: hf.encode(text).ids, lambda piece: piece.decode("latin-1")),
        "tiktoken": (tik._encode_single_piece, bytes),
        "sentencepiece": (spp.encode, as_text),
    }


def measure_encoding(bpe: BinaryBPE, data: bytes, length: int) -> dict[str, float]:
    pieces = [data[i : i + length] for i in range(0, len(data), length)]
    best: dict[str, float] = {}
    want = [bpe.encode(piece).tolist() for piece in pieces]
    made = contenders(bpe)
    for _ in range(ROUNDS):
        for name, (encode, prepare) in made.items():
            ready = [prepare(piece) for piece in pieces]
            spent, found = seconds(lambda encode=encode, ready=ready: [encode(x) for x in ready])
            first = 7 if name == "tiktoken" else 0
            assert [[i + first for i in ids] for ids in found] == want, name
            best[name] = min(best.get(name, spent), spent)
    return {name: round(len(data) / 2**20 / spent, 2) for name, spent in best.items()}


def measure_decoding(bpe: BinaryBPE, data: bytes) -> dict[str, float]:
    ids = bpe.encode(data)
    hf = Tokenizer.from_str(bpe.to_json(layout="latin-1").decode())
    listed = ids.tolist()
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        spent, found = seconds(lambda: bpe.decode(ids, threads=1))
        assert found == data
        best["ours"] = min(best.get("ours", spent), spent)
        spent, found = seconds(lambda: hf.decode(listed, skip_special_tokens=False))
        assert found.encode("latin-1") == data
        best["hf"] = min(best.get("hf", spent), spent)
    return {name: round(len(data) / 2**20 / spent, 2) for name, spent in best.items()}


def table(rows: list[dict[str, Any]]) -> list[list[object]]:
    lines: list[list[object]] = [
        ["vocabulary", "what", "ours", *BASELINES, *(f"ours / {name}" for name in BASELINES)]
    ]
    for row in rows:
        speed = row["mib_per_cpu_s"]
        ratios = [f"{speed['ours'] / speed[n]:.1f}" if n in speed else "" for n in BASELINES]
        cells = [speed.get(name, "") for name in ("ours", *BASELINES)]
        lines.append([row["vocabulary"], row["what"], *cells, *ratios])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--mib", type=int, default=4)
    options = parser.parse_args()
    data, rows = sample(options.corpus, options.mib << 20), []
    for name in NAMES:
        bpe = BinaryBPE.load(ROOT / name)
        first, _ = seconds(lambda bpe=bpe: bpe.decode(bpe.encode(b"abc")))
        row = {"vocabulary": name, "first_call_cpu_s": round(first, 2)}
        for what, length in PIECES.items():
            speed = measure_encoding(bpe, data, length)
            rows.append({**row, "what": f"encode, {what} pieces", "mib_per_cpu_s": speed})
        rows.append({**row, "what": "decode", "mib_per_cpu_s": measure_decoding(bpe, data)})
    store("bpe_codec", {"mib": options.mib, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
