"""zip files and what is one under another name: wheels, jars, Android packages, .npz."""

import zipfile
from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Budget, Members


@dataclass(frozen=True)
class ZipSource(ArchiveSource):
    """The members of a zip file, in the order of its directory."""

    suffixes = (".zip", ".whl", ".jar", ".apk", ".npz", ".egg", ".aar", ".war", ".nupkg")

    @staticmethod
    def members(stream: IO[bytes], name: str, budget: Budget) -> Members:
        with zipfile.ZipFile(stream) as archive:
            for info in archive.infolist():
                if not info.filename.endswith("/"):  # is_dir() fails on a name of no characters
                    with archive.open(info) as member:
                        yield info.filename, budget.read(member)
