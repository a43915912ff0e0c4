"""Interrupted training: the merges so far and the digest of what they were found on.

A checkpoint is a small .npz beside the result, written whole or not at all, at most every so often,
and removed when training is done. Resuming from one gives the merges an unbroken run gives.
"""

import io
import time
from pathlib import Path

import numpy as np

from bytelm.errors import CheckpointError
from bytelm.files import write_bytes

NAME = "training.npz"
EVERY_S = 30.0


class Checkpoints:
    """Keeps `folder/training.npz` up to date while training reports to it."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self._saved = time.monotonic()
        self._latest: tuple[np.ndarray, str] | None = None
        self._wrote = False

    def report(self, merges: np.ndarray, corpus_sha256: str) -> None:
        """Notes progress; writes now and then."""
        self._latest = merges, corpus_sha256
        if time.monotonic() - self._saved > EVERY_S:
            self.save()

    def save(self) -> None:
        """Writes what was reported last, if anything was."""
        if self._latest is None:
            return
        merges, digest = self._latest
        data = io.BytesIO()
        np.savez_compressed(data, merges=merges, corpus_sha256=np.array(digest))
        write_bytes(self.path, data.getvalue())
        self._saved = time.monotonic()
        self._wrote = True

    def discard(self) -> None:
        """Takes back what this run wrote, and the folder if nothing else is in it."""
        if self._wrote:
            self.remove()
            if not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    def load(self) -> tuple[np.ndarray, str]:
        """The merges and the digest of the corpus; `CheckpointError` if there is no usable one."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return stored["merges"], str(stored["corpus_sha256"])
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} does not exist: nothing to resume") from None
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        self.path.unlink(missing_ok=True)
