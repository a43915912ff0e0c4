"""Interrupted training: the merges so far and the digest of what they were found on.

A checkpoint is a small .npz beside the result, written whole or not at all, at most every so often,
and removed when all that it holds was written. Resuming from one gives the merges an unbroken run
gives.
"""

import io
import time
from pathlib import Path

import numpy as np

from bytelm.damage import reason
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

    def keep(self, merges: np.ndarray | None, corpus_sha256: str | None) -> None:
        """Notes what an earlier run found, which no later report of fewer merges replaces."""
        if merges is not None and corpus_sha256 is not None:
            self._latest = merges, corpus_sha256

    def report(self, merges: np.ndarray, corpus_sha256: str) -> None:
        """Notes progress; writes now and then."""
        if self._latest is None or len(merges) >= len(self._latest[0]):
            self._latest = merges, corpus_sha256
        if time.monotonic() - self._saved > EVERY_S:
            self.save()

    def save(self) -> Path | None:
        """Writes what was reported last; -> where, or None if no merge was found yet."""
        if self._latest is None or not len(self._latest[0]):
            return None
        merges, digest = self._latest
        data = io.BytesIO()
        np.savez_compressed(data, merges=merges, corpus_sha256=np.array(digest))
        write_bytes(self.path, data.getvalue())
        self._saved = time.monotonic()
        return self.path

    def load(self) -> tuple[np.ndarray, str]:
        """The merges and the digest of the corpus; `CheckpointError` if there is no usable one."""
        try:
            content = io.BytesIO(self.path.read_bytes())  # np.load would leave a bad file open
            with np.load(content, allow_pickle=False) as stored:
                return _checked(stored["merges"]), str(stored["corpus_sha256"])
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} does not exist: nothing to resume") from None
        except Exception as error:  # a damaged zip file makes its readers raise many types
            raise CheckpointError(
                f"{self.path} cannot be read: {reason(error)}. Remove it, and train again from the "
                "start"
            ) from error

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        self.path.unlink(missing_ok=True)


def _checked(merges: np.ndarray) -> np.ndarray:
    """The stored merges; `ValueError` if each is not of two ids that exist before it."""
    if merges.ndim != 2 or merges.shape[1] != 2 or not np.issubdtype(merges.dtype, np.integer):
        raise ValueError(f"its merges have shape {merges.shape} and type {merges.dtype}")
    if (merges >= 256 + np.arange(len(merges))[:, None]).any():
        raise ValueError("a merge names a token that no earlier merge makes")
    return merges
