"""Hugging Face data sets, streamed or saved.

The library is used as a reader only: its shuffling and resuming are not relied on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from bytelm.data.sources.base import Document, Reading, Source
from bytelm.data.sources.records import read_record
from bytelm.errors import DataError, MissingExtraError, unknown_name


@dataclass(frozen=True)
class HubSource(Source):
    """A Hugging Face data set: "hf:NAME?split=train&config=en&streaming=true", or a saved folder.

    `NAME` is what `datasets.load_dataset` takes, or a folder written by `save_to_disk`.
    """

    name: str
    reading: Reading
    split: str = "train"
    config: str | None = None
    streaming: bool = True

    scheme = "hf"

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        """From the "hf:" form; `DataError` for an option it does not know."""
        name, _, query = str(spec).removeprefix("hf:").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        allowed = ("split", "config", "streaming")
        for key in options:
            if key not in allowed:
                raise DataError(unknown_name("option", key, allowed) + f" in {spec!r}")
        streaming = options.pop("streaming", "true")
        if streaming not in ("true", "false"):
            raise DataError(f"streaming must be true or false in {spec!r}, not {streaming!r}")
        return cls(name=name, reading=reading, streaming=streaming == "true", **options)

    def __iter__(self) -> Iterator[Document]:
        for number, record in enumerate(self._load()):
            found = read_record(
                record, reading=self.reading, source=f"hf:{self.name}", place=f"row {number}"
            )
            if found is not None:
                yield found

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "hf", "reading a Hugging Face data set") from error
        if (Path(self.name) / "state.json").is_file():
            return datasets.load_from_disk(self.name)
        if (Path(self.name) / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(self.name)
            if self.split not in splits:
                raise DataError(unknown_name("split", self.split, splits))
            return splits[self.split]
        try:
            return datasets.load_dataset(
                self.name, self.config, split=self.split, streaming=self.streaming
            )
        except (datasets.exceptions.DatasetNotFoundError, ConnectionError, ValueError) as error:
            raise DataError(f"the data set {self.name!r} cannot be loaded: {error}") from error
