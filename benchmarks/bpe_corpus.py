"""Builds the executables corpus of the tokenizer family from pinned registry packages.

`lock` resolves `tokenizers/corpus.toml` with pip, npm and apt-get and records name, version and
SHA-256 of every downloaded archive in `corpus.lock.json`; `fetch` downloads exactly those and
refuses a file whose hash differs; `build` extracts the executables without running anything, names
their class by magic number and instruction set, drops repeated files, and takes files from each
package in turn until the class is full, so that no package and no platform floods the rest.
The split is by package: a package is wholly training or wholly held out on every platform.

    python benchmarks/bpe_corpus.py fetch --cache /tmp/bpe/dl
    python benchmarks/bpe_corpus.py build --cache /tmp/bpe/dl --out /tmp/bpe/corpus
"""

import argparse
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from bytelm.files import put_folder
from bytelm.tokenizer.formats import executable_class

ROOT = Path(__file__).resolve().parents[1] / "tokenizers"
LOCK = ROOT / "corpus.lock.json"
MAX_NESTING = 3


# ---- download ------------------------------------------------------------------------------


def download_wheel(spec: str, target: str, recipe: dict[str, Any], folder: Path) -> None:
    tags = [f"--platform={tag}" for tag in recipe["wheels"]["platforms"][target]]
    version = f"--python-version={recipe['wheels']['python']}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    run([*command, version, *tags, "-d", str(folder), spec])


def download_npm(spec: str, target: str, recipe: dict[str, Any], folder: Path) -> None:
    run(["npm", "pack", "--silent", "--pack-destination", str(folder), spec])


def download_deb(spec: str, target: str, recipe: dict[str, Any], folder: Path) -> None:
    """With a private apt root, so that the system's package lists are never touched."""
    root = folder.parents[1] / "apt" / target
    if not (root / "ready").exists():
        for part in ("state/lists/partial", "cache/archives/partial", "etc"):
            (root / part).mkdir(parents=True, exist_ok=True)
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        debian = recipe["debian"]
        line = f"deb [signed-by={keyring}] {debian['mirror']} {debian['suite']} main\n"
        (root / "etc/sources.list").write_text(line)
        (root / "status").touch()
        run(["apt-get", *apt_options(root, target), "-qq", "update"])
        (root / "ready").touch()
    run(["apt-get", *apt_options(root, target), "-qq", "download", spec], cwd=folder)


def apt_options(root: Path, architecture: str) -> list[str]:
    settings = {
        "Dir::State": root / "state",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Dir::Etc::sourcelist": root / "etc/sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def run(command: list[str], cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, capture_output=True, text=True)


DOWNLOAD = {"wheel": download_wheel, "npm": download_npm, "deb": download_deb}


def wanted(recipe: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Every (kind, target, spec, split) the recipe names; not every one exists."""
    for split in ("train", "heldout"):
        for target in recipe["wheels"]["platforms"]:
            for spec in recipe["wheels"][split]:
                yield {"kind": "wheel", "target": target, "spec": spec, "split": split}
        for target in recipe["debian"]["architectures"]:
            for spec in recipe["debian"][split]:
                yield {"kind": "deb", "target": target, "spec": spec, "split": split}
        for spec in recipe["debian"]["any"][split]:
            yield {"kind": "deb", "target": "amd64", "spec": spec, "split": split}
        for spec in recipe["npm"][split]:
            yield {"kind": "npm", "target": "any", "spec": spec, "split": split}


def download(entry: dict[str, str], recipe: dict[str, Any], cache: Path) -> dict[str, Any] | None:
    """Downloads one archive into its own folder; None if the registry has none for this target."""
    slug = "-".join(entry[key] for key in ("kind", "target", "spec")).replace("/", "_")
    folder = cache / "files" / slug
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            DOWNLOAD[entry["kind"]](entry["spec"], entry["target"], recipe, folder)
        except subprocess.CalledProcessError:
            folder.rmdir()
            return None
    (file,) = folder.iterdir()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {**entry, "file": file.name, "sha256": digest, "bytes": file.stat().st_size}


def pinned(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with the exact version that was resolved, read from the archive's file name."""
    spec = entry["spec"]
    if entry["kind"] == "deb":
        spec = spec + "=" + entry["file"].split("_")[1].replace("%3a", ":")
    if entry["kind"] == "npm" and "@" not in spec[1:]:
        stem = spec.lstrip("@").replace("/", "-")
        spec = spec + "@" + entry["file"].removeprefix(stem + "-").removesuffix(".tgz")
    return {**entry, "spec": spec}


def lock(recipe: dict[str, Any], cache: Path) -> None:
    entries = list(wanted(recipe))
    for target in recipe["debian"]["architectures"]:  # one package first: it fetches the lists
        first = {"kind": "deb", "target": target, "spec": "dash", "split": "heldout"}
        download(first, recipe, cache)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda entry: download(entry, recipe, cache), entries))
    kept = [pinned(entry) for entry in found if entry]
    missing = [entry for entry, got in zip(entries, found, strict=True) if not got]
    LOCK.write_text(json.dumps({"archives": kept}, indent=0) + "\n")
    total = sum(entry["bytes"] for entry in kept)
    print(f"{len(kept)} archives, {total / 2**20:.0f} MiB; {len(missing)} do not exist:")
    for entry in missing:
        print("  ", entry["kind"], entry["target"], entry["spec"])


def fetch(recipe: dict[str, Any], cache: Path) -> None:
    for entry in json.loads(LOCK.read_text())["archives"]:
        got = download({k: entry[k] for k in ("kind", "target", "spec", "split")}, recipe, cache)
        if got is None:
            sys.exit(f"{entry['spec']} for {entry['target']} can no longer be downloaded")
        if got["sha256"] != entry["sha256"]:
            sys.exit(f"{got['file']}: SHA-256 is {got['sha256']}, the lock says {entry['sha256']}")


# ---- extract and split ---------------------------------------------------------------------


def members(data: bytes, name: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file in an archive, archives inside archives included."""
    if depth == MAX_NESTING:
        yield name, data
    elif data[:8] == b"!<arch>\n" and name.endswith(".deb"):
        offset = 8
        while offset + 60 <= len(data):
            size = int(data[offset + 48 : offset + 58])
            body = data[offset + 60 : offset + 60 + size]
            if data[offset:].startswith(b"data.tar.xz"):
                yield from members(lzma.decompress(body), name + "/data.tar", depth + 1)
            offset += 60 + size + size % 2
    elif name.endswith((".tar", ".tgz")):
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            for item in archive:
                stream = archive.extractfile(item) if item.isfile() else None
                if stream is not None:
                    yield from members(stream.read(), item.name, depth + 1)
    elif data[:4] == b"PK\x03\x04":
        if name.endswith(".apk"):
            yield name, data
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for item in archive.infolist():
                if not item.is_dir():
                    yield from members(archive.read(item), item.filename, depth + 1)
    else:
        yield name, data


def extract(recipe: dict[str, Any], cache: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """(split, class, package, bytes) of every executable of a sensible size, each once."""
    limits, seen = recipe["limits"], set()
    for entry in json.loads(LOCK.read_text())["archives"]:
        slug = "-".join(entry[key] for key in ("kind", "target", "spec")).replace("/", "_")
        folder = cache / "files" / slug
        if not folder.exists():  # a locked version of a spec that the recipe leaves open
            names = [p for p in (cache / "files").iterdir() if (p / entry["file"]).exists()]
            folder = names[0]
        archive = (folder / entry["file"]).read_bytes()
        for _, data in members(archive, entry["file"]):
            kind = executable_class(data)
            digest = hashlib.sha256(data).digest()
            fits = limits["file_min"] <= len(data) <= limits["file_max"]
            if kind and fits and digest not in seen:
                seen.add(digest)
                yield entry["split"], kind, entry["spec"].split("=")[0], data


def build(recipe: dict[str, Any], cache: Path, out: Path) -> None:
    """Writes out/SPLIT/CLASS/NUMBER-PACKAGE.bin and a manifest; the same lock, the same bytes."""
    staged: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    for number, (split, kind, package, data) in enumerate(extract(recipe, cache)):
        label = package.replace("/", "_").split("@", 2)[-1 if package[0] == "@" else 0]
        path = staging / "all" / f"{number:06d}-{label}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        staged[split, kind][package].append(path)
    manifest = []
    for (split, kind), packages in sorted(staged.items()):
        share = 1 if kind in recipe["limits"]["whole_file_classes"] else 2
        for path in round_robin(packages, class_limit(recipe, split, kind), share):
            target = staging / split / kind / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            digest = hashlib.sha256(target.read_bytes()).hexdigest()
            row = {"split": split, "class": kind, "file": path.name, "sha256": digest}
            manifest.append({**row, "bytes": target.stat().st_size})
    shutil.rmtree(staging / "all")
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=0) + "\n")
    put_folder(staging, out)
    report(manifest)


def class_limit(recipe: dict[str, Any], split: str, kind: str) -> int:
    limits = recipe["limits"]
    return (
        limits["heldout_class"]
        if split == "heldout"
        else (limits["train"].get(kind, limits["train_class"]))
    )


def round_robin(packages: dict[str, list[Path]], limit: int, share: int) -> Iterator[Path]:
    """One file of each package in turn until `limit` bytes; no file over 1/share of the limit."""
    queues = [list(files) for _, files in sorted(packages.items())]
    total = 0
    while any(queues):
        for queue in queues:
            if queue:
                path = queue.pop(0)
                size = path.stat().st_size
                if size <= limit // share and total + size <= limit:
                    total += size
                    yield path


def report(manifest: list[dict[str, Any]]) -> None:
    size: Counter[tuple[str, str]] = Counter()
    for row in manifest:
        size[row["split"], row["class"]] += row["bytes"]
    for split, kind in sorted(size):
        print(f"{split:8s} {kind:16s} {size[split, kind] / 2**20:7.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["lock", "fetch", "build"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipe = tomllib.loads((ROOT / "corpus.toml").read_text())
    cache = options.cache.resolve()
    if options.step == "build":
        build(recipe, cache, options.out.resolve())
    else:
        {"lock": lock, "fetch": fetch}[options.step](recipe, cache)


if __name__ == "__main__":
    main()
