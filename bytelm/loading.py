"""`bytelm.load`: whatever a path holds, as a `ByteLM`.

Loaders are asked in turn whether a path is theirs: a run directory (what `bytelm train` leaves), a
Hugging Face model directory, a GGUF file, and those of other packages. A loader is one class and
one line in `bytelm.registry` (or an entry point in the group `bytelm.loaders`); the options that it
takes are the keyword arguments of its `load`, so an option that means nothing for a path is an
error and never ignored. Loading never runs code from the path: weights are safetensors, the
architecture is found by name in the registry.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from bytelm.device import choose_device
from bytelm.errors import BytelmError, CheckpointError
from bytelm.lm.classifier import Classifier
from bytelm.lm.filler import Filler
from bytelm.lm.native import NativeLM
from bytelm.lm.protocol import ByteLM
from bytelm.lm.seq2seq import Seq2SeqLM
from bytelm.model_paths import no_model
from bytelm.registry import LOADERS
from bytelm.run import Description, Run
from bytelm.run_model import load_model as load_model
from bytelm.vocab import ByteVocab, TokenVocab

if TYPE_CHECKING:
    from bytelm.exact.converter import Mode
    from bytelm.lm.subword import SubwordLM
    from bytelm.tokenizer import BinaryBPE

Device = str | torch.device


class Loader(Protocol):
    """Turns one kind of path into a `ByteLM`. Both methods are static.

    what   a noun phrase for error messages, such as "a run directory"
    load   takes the path and, as keyword arguments with defaults, those options of `bytelm.load`
           that mean something for this kind of model
    """

    what: str

    @staticmethod
    def accepts(path: Path) -> bool:
        """Whether `path`, which exists, is of this kind; a cheap look, without loading anything."""
        ...

    load: Any


class RunLoader:
    """What `bytelm train` leaves of a model over bytes, causal or sequence-to-sequence."""

    what = "a run over bytes"

    @staticmethod
    def accepts(path: Path) -> bool:
        return Run(path).has_model and not SubwordRunLoader.accepts(path)

    @staticmethod
    def load(
        path: Path,
        *,
        window: int | None = None,
        stride: int | None = None,
        device: Device = "cpu",
    ) -> NativeLM | Seq2SeqLM:
        description = Run(path).description()
        vocab = description.vocab
        assert isinstance(vocab, ByteVocab), "accepts told them apart"
        _refuse_encoder(path, description)
        kind = Seq2SeqLM if description.family == "seq2seq" else NativeLM
        return kind(
            load_model(path).to(device),
            window=_window(description) if window is None else window,
            stride=stride,
            specials={name: vocab[name] for name in description.specials},
        )


class SubwordRunLoader:
    """What `bytelm train` leaves of a model over tokens, with a copy of its tokenizer."""

    what = "a run over tokens"

    @staticmethod
    def accepts(path: Path) -> bool:
        return Run(path).has_model and isinstance(Run(path).description().vocab, TokenVocab)

    @staticmethod
    def load(
        path: Path,
        *,
        window: int | None = None,
        stride: int | None = None,
        device: Device = "cpu",
        mode: Mode = "canonical",
        beam: int = 8,
        epsilon: float = 1e-3,
    ) -> SubwordLM:
        from bytelm.lm.subword import SubwordLM

        _refuse_encoder(path, Run(path).description())
        model, bpe = load_model(path).to(device), _tokenizer(path)
        return SubwordLM(
            model,
            bpe,
            window=_window(Run(path).description()) if window is None else window,
            stride=stride,
            mode=mode,
            beam=beam,
            epsilon=epsilon,
        )


class _TokenModelLoader:
    """What both formats of tokenized models share: they are converted."""

    @staticmethod
    def load(
        path: Path,
        *,
        device: Device = "cpu",
        mode: Mode = "all",
        beam: int = 8,
        epsilon: float = 1e-3,
        start: Sequence[int] | None = None,
        ends: Sequence[int | str] = (),
        window: int | None = None,
        stride: int | None = None,
    ) -> ByteLM:
        from bytelm.exact import load_token_model

        return load_token_model(
            path,
            device=device,
            mode=mode,
            beam=beam,
            epsilon=epsilon,
            start=start,
            ends=ends,
            window=window,
            stride=stride,
        )


class GgufLoader(_TokenModelLoader):
    """A GGUF file, converted."""

    what = "a .gguf file"

    @staticmethod
    def accepts(path: Path) -> bool:
        return path.suffix == ".gguf" and path.is_file()


class HuggingFaceLoader(_TokenModelLoader):
    """A directory that transformers can load, converted."""

    what = "a Hugging Face model directory"

    @staticmethod
    def accepts(path: Path) -> bool:
        return (path / "config.json").is_file() and not Run(path).has_model


def load(
    path: str | Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: Device | None = None,
    mode: Mode | None = None,
    beam: int | None = None,
    epsilon: float | None = None,
    start: Sequence[int] | None = None,
    ends: Sequence[int | str] | None = None,
) -> ByteLM:
    """The model at `path`: a run directory, a Hugging Face model directory, or a .gguf file.

    window, stride        how long texts are read, in bytes (`SlidingContext`); default: a run's
                          context in training, all that a converted model can hold; half of that
    device                where the model computes: cpu (the default), cuda, cuda:1, mps, or auto,
                          the fastest there is
    mode, beam, epsilon   how a model over tokens is read as bytes (`bytelm.convert`)
    start                 ids of a converted model that stand before every text; default: what its
                          tokenizer says
    ends                  special tokens of a converted model, ids or names, that end a text besides
                          those it says itself

    None is the default of the model's kind. Raises `CheckpointError` for a path that is no model,
    and `BytelmError` for an option that its kind does not take.

    >>> load("runs/missing")
    Traceback (most recent call last):
    bytelm.errors.CheckpointError: there is no model at runs/missing: ...
    """
    path = Path(path)
    loader = _loader_of(path)
    options = {
        "window": window,
        "stride": stride,
        "device": None if device is None else choose_device(device),
        "mode": mode,
        "beam": beam,
        "epsilon": epsilon,
        "start": start,
        "ends": ends,
    }
    given = {name: value for name, value in options.items() if value is not None}
    allowed = _options(loader)
    for name in given:
        if name not in allowed:
            raise BytelmError(
                f"{name} is not an option of {path}, which is {loader.what}: it takes "
                f"{', '.join(allowed) or 'no options'}"
            )
    return loader.load(path, **given)


def options_of(path: str | Path) -> list[str]:
    """Names of the options that `load` takes for the model at `path`."""
    return _options(_loader_of(Path(path)))


def _options(loader: Loader) -> list[str]:
    first, *options = inspect.signature(loader.load).parameters
    return options


def _loader_of(path: Path) -> Loader:
    if path.exists():
        for _, loader in LOADERS.items():
            if loader.accepts(path):
                return loader
    raise CheckpointError(no_model(path))


def load_run(
    path: str | Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: Device = "cpu",
) -> NativeLM | Seq2SeqLM | SubwordLM:
    """The trained model of a run directory, over bytes or tokens, ready to predict bytes.

    Raises `CheckpointError` if the directory is damaged, `BytelmError` if its model is an encoder.
    """
    path = Path(path)
    loader = SubwordRunLoader if SubwordRunLoader.accepts(path) else RunLoader
    return loader.load(path, window=window, stride=stride, device=device)


def load_classifier(path: str | Path, *, device: Device | None = None) -> Classifier:
    """The trained encoder of a run directory, which gives labels to byte strings.

    It reads as many bytes of each as a row had in training. Raises `CheckpointError` for a path
    that is no run, and `BytelmError` for a run of another family.

    >>> load_classifier("runs/missing")
    Traceback (most recent call last):
    bytelm.errors.CheckpointError: runs/missing is not a run directory: ...
    """
    description = Run(Path(path)).description()
    model = load_model(path).to("cpu" if device is None else choose_device(device))
    encode = None
    if isinstance(description.vocab, TokenVocab):
        encode = _tokenizer(Path(path)).encode
    return Classifier(model, window=description.context_bytes, encode=encode)


def load_filler(path: str | Path, *, device: Device | None = None) -> Filler:
    """The trained encoder of a run directory, which finds words for the gaps of a text.

    Raises `CheckpointError` for a path that is no run, and `BytelmError` for a run that was not
    trained with objective.kind=masked_words.

    >>> load_filler("runs/missing")
    Traceback (most recent call last):
    bytelm.errors.CheckpointError: runs/missing is not a run directory: ...
    """
    path = Path(path)
    description = Run(path).description()
    model = load_model(path).to("cpu" if device is None else choose_device(device))
    reads_tokens = isinstance(description.vocab, TokenVocab)
    if not description.files:
        return Filler(model, (), window=description.context_bytes)  # which says what is wrong
    bpe = _tokenizer(path)
    return Filler(
        model,
        bpe.token_bytes,
        window=description.context_bytes,
        encode=(lambda text: bpe.encode(text).tolist()) if reads_tokens else None,
    )


def _refuse_encoder(path: Path, description: Description) -> None:
    """`BytelmError` for a run that predicts no next byte."""
    if description.family == "encoder":
        raise BytelmError(
            f"{path} is an encoder and predicts no next bytes: use `bytelm classify` (or "
            "bytelm.load_classifier), or `bytelm fill` (bytelm.load_filler)"
        )


def _tokenizer(path: Path) -> BinaryBPE:
    """The tokenizer that a run was trained with; `CheckpointError` if it is missing."""
    from bytelm.tokenizer import BinaryBPE  # its compiled codec, for which others never wait

    try:
        return BinaryBPE.load(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} was trained on the ids of a tokenizer and its tokenizer.json is missing: "
            "copy the one it was trained with there"
        ) from None


def _window(stored: Description) -> int:
    """Bytes of context by default: as in training, where BOS took a place."""
    return max(1, stored.context_bytes - 1)
