"""The run directory: the one thing training leaves behind, and all that other commands need.

    recipe.toml          the whole recipe; with it a folder is a run
    config.json          the model: architecture, its config, vocabulary, the context and the
                         special symbols it was trained with (`Description`)
    model.safetensors    the newest checkpoint's weights (a hard link where the disk has them)
    tokenizer.json       with data.tokenizer: the tokenizer whose ids the model reads; an objective
                         may keep other files, and config.json lists them under "files"
    metrics.jsonl        one row per line (training/metrics.py)
    evaluation.json      the closing report's figures
    trainer/step-N/      checkpoints to resume from (training/checkpoint.py): the last `keep_last`
    profile/trace.json   what log.profile_steps asked for (training/profile.py)
    tensorboard/, wandb/ what log.trackers asked for (training/trackers.py), and tracker-id, the
                         run's name among all runs of such a service
    .lock                held by the process that trains in it, while it does (locks.py)
    best/                config.json, recipe.toml, model.safetensors (and "files") of the best
                         held-out figure: a small run directory of its own

Whatever reads or writes a run directory asks `Run` where things are. The weights at the top are
replaced only after their checkpoint is complete, so a kill at any moment leaves a directory that
loads and resumes.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from bytelm.damage import malformed, one_line, read_object
from bytelm.errors import CheckpointError
from bytelm.files import disk_errors, link_file, sweep, write_bytes, write_file, write_text
from bytelm.recipe import Recipe
from bytelm.version import __version__
from bytelm.vocab import TokenVocab, Vocab, vocab_from_dict

if TYPE_CHECKING:
    from bytelm.arch.base import ByteModel

T = TypeVar("T")
WEIGHTS, RECIPE, CONFIG = "model.safetensors", "recipe.toml", "config.json"
_INFILLING = ("fim_prefix", "fim_suffix", "fim_middle")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What config.json says: enough to build the model again and to use it as it was trained.

    arch, family   name in the registry, and the family of models it is of
    config         the settings of that architecture
    vocab          ids of the model
    context_bytes  length of the windows it was trained on
    specials       names of the special symbols it met in training
    arguments      keyword arguments of the model besides config and vocabulary (JSON values, such
                   as the labels of a classifier); config.json has them under the same names
    files          names of other files in the directory that the model cannot be used without
    quantization   of a model whose matrices are whole numbers: `scheme`, the parts that it was told
                   to `keep`, and the names of the `layers` (`bytelm.hub.quantize`)
    """

    arch: str
    family: str
    config: Mapping[str, Any]
    vocab: Vocab
    context_bytes: int
    specials: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        model: "ByteModel",
        *,
        specials: tuple[str, ...],
        arguments: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> "Description":
        """The description of a recipe's model; the keyword arguments are the objective's."""
        return cls(
            arch=recipe.model.arch,
            family=model.family,
            config=model.config.model_dump(mode="json"),
            vocab=model.vocab,
            context_bytes=recipe.train.context_bytes,
            specials=specials,
            arguments=arguments or {},
            files=tuple(files or ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        quantized = {"quantization": dict(self.quantization)} if self.quantization else {}
        return {
            **self.arguments,
            **quantized,
            "bytelm": __version__,
            "arch": self.arch,
            "family": self.family,
            "config": dict(self.config),
            "vocabulary": self.vocab.to_dict(),
            "context_bytes": self.context_bytes,
            "specials": list(self.specials),
            "files": list(self.files),
        }

    @classmethod
    def read(cls, folder: Path) -> "Description":
        """That of a run directory; `CheckpointError` if config.json is missing or is another's."""
        stored = _read_config(folder)
        stored.pop("bytelm", None)  # the version that wrote it, for people
        with malformed(folder / CONFIG, "the description of a model"):
            return cls._of_stored(stored, folder)

    @classmethod
    def _of_stored(cls, stored: dict[str, Any], folder: Path) -> "Description":
        try:
            vocab = vocab_from_dict(stored.pop("vocabulary"))
            return cls(
                arch=_typed(stored.pop("arch"), str),
                family=_typed(stored.pop("family"), str),
                config=_typed(stored.pop("config"), dict),
                vocab=vocab,
                context_bytes=_typed(stored.pop("context_bytes"), int),
                specials=_specials(vocab, stored),
                files=_names(stored.pop("files", [])),
                quantization=stored.pop("quantization", None),
                arguments=stored,
            )
        except KeyError as error:
            raise CheckpointError(
                f"{folder / CONFIG} does not describe a model: it has no {error}"
            ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / CONFIG, "a model")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a run directory: it has no {CONFIG}") from None


def _typed(value: Any, kind: type[T]) -> T:
    """The value, if it is of its kind; `ValueError` otherwise."""
    if type(value) is not kind:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_typed(name, str) for name in _typed(value, list))


def _specials(vocab: Vocab, stored: dict[str, Any]) -> tuple[str, ...]:
    """The symbols a run was trained with. Runs written before these were stored name their
    objective instead: only "fim" met the infilling symbols, and every other symbol was allowed."""
    if "specials" in stored:
        return _names(stored.pop("specials"))
    if isinstance(vocab, TokenVocab):
        return ()
    infills = stored.pop("objective", None) == "fim"
    return tuple(name for name in vocab.specials if infills or name not in _INFILLING)


@dataclass(frozen=True)
class Run:
    """A run directory at `path`."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def profile(self) -> Path:
        return self.path / "profile" / "trace.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "trainer"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def best(self) -> "Run":
        """The directory of the best held-out figure so far."""
        return Run(self.path / "best")

    @property
    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / RECIPE).is_file()

    @property
    def has_model(self) -> bool:
        """Whether config.json is there and describes one of our models; `CheckpointError` if it
        is not JSON."""
        return (self.path / CONFIG).is_file() and "arch" in _read_config(self.path)

    def recipe(self) -> Recipe:
        """The recipe the run was last trained with."""
        return Recipe.load(self.path / RECIPE)

    def description(self) -> Description:
        """What config.json says."""
        return Description.read(self.path)

    def begin(
        self, recipe: Recipe, description: Description, *, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Make the directory and write what describes the model."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        write_text(self.path / RECIPE, recipe.to_toml())  # first: with it the folder is a run
        for name, content in (files or {}).items():
            write_bytes(self.path / name, content)
        text = json.dumps(description.to_dict(), indent=2) + "\n"
        write_text(self.path / CONFIG, text)
        with disk_errors(self.path):
            self.checkpoints.mkdir(exist_ok=True)
        sweep(self.checkpoints)

    def publish(self, weights: Path) -> None:
        """Make the safetensors file `weights` the run's model."""
        link_file(weights, self.weights)

    def publish_best(self, weights: Mapping[str, Tensor]) -> None:
        """Make the model with these weights the run's best."""
        best = self.best
        with disk_errors(best.path):
            best.path.mkdir(exist_ok=True)
        sweep(best.path)
        for name in (*self.description().files, RECIPE, CONFIG):
            write_bytes(best.path / name, (self.path / name).read_bytes())
        write_file(best.weights, lambda temporary: save_tensors(weights, temporary))

    def read_weights(self) -> dict[str, Tensor]:
        """Name -> tensor of the run's model, on the CPU; `CheckpointError` if damaged."""
        if not self.weights.is_file():
            raise CheckpointError(
                f"{self.weights} is missing: the run has not written a checkpoint yet, or it was "
                "not copied"
            )
        try:
            return load_tensors(self.weights)
        except SafetensorError as error:
            why = one_line(str(error))
            raise CheckpointError(
                f"{self.weights} is truncated or not a safetensors file ({why}): restore it from "
                f"the newest folder in {self.checkpoints.name}/, or train again with --resume"
            ) from None

    def write_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Keep the closing report's figures in evaluation.json."""
        write_text(self.evaluation, json.dumps(dict(figures)) + "\n")

    def tracker_id(self) -> str:
        """The run's name among all runs of a tracker: made once, then the same on every resume."""
        file = self.path / "tracker-id"
        if not file.is_file():
            write_text(file, uuid.uuid4().hex[:8])
        return file.read_text(encoding="utf-8")


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file that everybody may read."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    file.chmod(0o644)  # safetensors makes files that only their owner can read


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file, on the CPU; `SafetensorError` if it is none."""
    try:
        str(file).encode("utf-8")
    except UnicodeEncodeError:  # a name that safetensors takes for writing, not for reading
        return load(file.read_bytes())
    return load_file(file)
