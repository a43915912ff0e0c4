"""Training time, memory and merges of `BinaryBPE.train` beside Hugging Face and sentencepiece.

Every contender gets the same pieces in the same order and runs in a process of its own; CPU seconds
(user + system, all threads) and wall seconds are taken around the training call only, the peak
resident set from the kernel. Ours is called twice in a fresh process: the first call, on 64 bytes,
loads or compiles the core and is reported apart. sentencepiece takes no bytes, so each byte
becomes one CJK character; it refreshes its candidates now and then only, so its merges differ.
A case is MiB:vocabulary:piece, or MiB:vocabulary:piece:limit for ours alone inside a memory limit
in MiB. `--series` adds ours alone from 16 to 400 MB. What is not measured again stays stored.

    python -m benchmarks.bpe_train --corpus /tmp/bpe/corpus/train --series
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CASES = ("16:4096:4096", "16:4096:8192", "64:65536:8192")
REPEATS = 3  # of ours, which takes seconds; the run with the median CPU time is told
SERIES = tuple(f"{size}:65536:8192" for size in (16, 64, 128, 256, 400))
LIMITED = "400:65536:8192:1792"
SPECIALS = ["<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|cls|>", "<|sep|>", "<|mask|>"]


def sample(corpus: Path, megabytes: int) -> list[bytes]:
    """Whole files in a fixed random order until the size is reached; the last one is cut."""
    files = sorted(path for path in corpus.rglob("*.bin"))
    random.Random(0).shuffle(files)
    left, documents = megabytes << 20, []
    for path in files:
        documents.append(path.read_bytes()[:left])
        left -= len(documents[-1])
        if left == 0:
            break
    return documents


def cut(documents: list[bytes], length: int) -> Iterator[bytes]:
    for data in documents:
        for start in range(0, len(data), length):
            yield data[start : start + length]


def drained(documents: list[bytes]) -> Iterator[bytes]:
    """Hands the documents over, so that only the trainer holds them."""
    documents.reverse()
    while documents:
        yield documents.pop()


def timed(train: Callable[[], list[tuple[bytes, bytes]] | None]) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    merges = train()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    row = {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2)}
    if merges is not None:
        digest = hashlib.sha256(b"".join(len(x).to_bytes(4) + x for m in merges for x in m))
        row |= {"merges": len(merges), "merges_sha256": digest.hexdigest()[:16]}
    return row | {"peak_mib": round(peak_kib() / 1024)}


def peak_kib() -> int:
    """Of this process alone; getrusage counts what the parent held when it started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def run_ours(
    documents: list[bytes], vocabulary: int, piece: int, limit: int | None = None
) -> dict[str, Any]:
    from bytelm.tokenizer.trainer import train_merges

    start = time.process_time()
    train_merges([bytes(64)], ids=258, piece_length=piece)
    load = time.process_time() - start
    result: list[Any] = []

    def call() -> None:
        memory = None if limit is None else limit << 20
        found = train_merges(
            drained(documents),
            ids=vocabulary - 7,
            piece_length=piece,
            max_memory=memory,
            threads=1,
        )
        result.append(found)

    row = timed(call)
    token = [bytes([value]) for value in range(256)]
    merges = []
    for left, right in result[0].merges:
        merges.append((token[left], token[right]))
        token.append(token[left] + token[right])
    return timed(lambda: merges) | row | {"load_cpu_s": round(load, 2)}


def run_hf(documents: list[bytes], vocabulary: int, piece: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=SPECIALS,
        initial_alphabet=[chr(value) for value in range(256)],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    pieces = [data.decode("latin-1") for data in cut(documents, piece)]
    row = timed(lambda: tokenizer.train_from_iterator(pieces, trainer))
    stored = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [(a.encode("latin-1"), b.encode("latin-1")) for a, b in stored]
    return timed(lambda: merges) | row


def run_sentencepiece(documents: list[bytes], vocabulary: int, piece: int) -> dict[str, Any]:
    import sentencepiece

    to_cjk = {value: 0x4E00 + value for value in range(256)}
    lines = [data.decode("latin-1").translate(to_cjk) for data in cut(documents, piece)]

    def call() -> None:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=tempfile.mkdtemp() + "/model",
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=1.0,
            max_sentence_length=8 * piece,
            max_sentencepiece_length=16,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            split_by_whitespace=False,
            num_threads=1,
            minloglevel=2,
        )

    return timed(call)


CONTENDERS = {"ours": run_ours, "hf": run_hf, "sentencepiece": run_sentencepiece}


def one(name: str, case: str, corpus: Path) -> dict[str, Any]:
    megabytes, *rest = (int(part) for part in case.split(":"))
    return CONTENDERS[name](sample(corpus, megabytes), *rest)


def table(rows: list[dict[str, Any]]) -> list[list[object]]:
    lines: list[list[object]] = [
        ["MiB", "vocabulary", "piece", "trainer", "CPU s", "wall s", "peak MiB", "merges"]
        + ["CPU ratio", "CPU ns per byte"]
    ]
    base = {row["case"]: row["cpu_s"] for row in rows if row["trainer"] == "ours"}
    for row in sorted(rows, key=lambda r: ([int(x) for x in r["case"].split(":")], r["cpu_s"])):
        size, vocabulary, piece, *limit = row["case"].split(":")
        name = row["trainer"] + "".join(f", at most {mib} MiB" for mib in limit)
        cells = [size, vocabulary, piece, name, row["cpu_s"], row["wall_s"], row["peak_mib"]]
        cells += [row.get("merges_sha256", "(its own)"), f"{row['cpu_s'] / base[row['case']]:.1f}"]
        lines.append([*cells, round(row["cpu_s"] / int(size) / 2**20 * 1e9)])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainer", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--case", action="append", default=[], help="MiB:vocabulary:piece[:limit]")
    parser.add_argument("--series", action="store_true", help="ours alone from 16 to 400 MB")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one(options.trainer[0], options.case[0], options.corpus)))
        return
    from benchmarks.common import RESULTS, store  # brings torch, which no child should pay for

    runs = [(case, name) for case in options.case or CASES for name in options.trainer]
    if options.series:
        runs += [(case, "ours") for case in (*SERIES, LIMITED) if (case, "ours") not in runs]
    stored = RESULTS / "bpe_train.json"
    rows = json.loads(stored.read_text())["runs"] if stored.exists() else []
    for case, name in runs:
        command = [sys.executable, "-m", "benchmarks.bpe_train", name, "--case", case, "--child"]
        command += ["--corpus", str(options.corpus)]
        times = []
        for _ in range(REPEATS if name == "ours" and case in CASES else 1):
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            times.append(json.loads(out.splitlines()[-1]))
            print(case, name, times[-1], flush=True)
        row = sorted(times, key=lambda row: row["cpu_s"])[len(times) // 2]
        row |= {"cpu_s_each": [row["cpu_s"] for row in times]}
        rows = [r for r in rows if (r["case"], r["trainer"]) != (case, name)]
        rows.append({"case": case, "trainer": name, **row})
    store("bpe_train", {"runs": rows}, table(rows))


if __name__ == "__main__":
    main()
