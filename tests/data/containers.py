"""Small archives of every kind, made in memory."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import zstandard


def zip_of(members: dict[str, bytes], *, method=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def ar_of(members: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


MEMBERS = {"a.txt": b"first", "dir/b.bin": bytes(range(256)), "empty": b""}
ARCHIVES = {
    "x.zip": zip_of(MEMBERS),
    "x.whl": zip_of(MEMBERS, method=zipfile.ZIP_STORED),
    "x.tar": tar_of(MEMBERS),
    "x.tar.gz": gzip.compress(tar_of(MEMBERS)),
    "x.tgz": gzip.compress(tar_of(MEMBERS)),
    "x.tar.xz": lzma.compress(tar_of(MEMBERS)),
    "x.tar.bz2": bz2.compress(tar_of(MEMBERS)),
    "x.tar.zst": zstandard.ZstdCompressor().compress(tar_of(MEMBERS)),
    "x.a": ar_of(MEMBERS),
}


def make_tree(folder: Path, files: dict[str, bytes]) -> Path:
    """Files in folders that are made on the way."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
