"""The sections of a recipe: one small validated class each, one per `kind` where kinds differ.

A section forbids unknown fields, so a setting of another kind cannot be written down at all. The
fields of [model] and [objective] are those of the class that the registry names, beside which it
is validated; here these two sections only say which class that is.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bytelm.data.settings import SETTINGS, to_bytes
from bytelm.paths import to_text


def _in_order(numbers: list[int]) -> list[int]:
    if numbers[0] > numbers[1]:
        raise ValueError(f"first and last must be in order, not {numbers}")
    return numbers


def _is_curriculum(stages: list[list[float]]) -> list[list[float]]:
    shares = [stage[0] for stage in stages]
    if shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] >= 1:
        raise ValueError("shares of training must ascend from 0.0 and stay below 1")
    if any(length < 1 or length != int(length) for _, length in stages):
        raise ValueError("each stage is [share of training, bytes per row]")
    return stages


def _is_size(size: int | str) -> int | str:
    if to_bytes(size) < 1:
        raise ValueError(f"the limit must be at least 1 byte, not {size}")
    return size


def _not_float16(value: object) -> object:
    if value in ("float16", "fp16", "half"):
        raise ValueError(
            "numbers beyond 65,504 are infinite in it, which activations and gradients reach "
            "without loss scaling: use bfloat16, which has the range of float32"
        )
    return value


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
_one_or_more = BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
Paths = Annotated[list[Annotated[str, AfterValidator(to_text)]], _one_or_more]
Trackers = Annotated[list[Literal["tensorboard", "wandb", "trackio"]], _one_or_more]
Size = Annotated[int | str, AfterValidator(_is_size)]
Range = Annotated[list[Count], Field(min_length=2, max_length=2), AfterValidator(_in_order)]
Stage = Annotated[list[int | float], Field(min_length=2, max_length=2)]
Curriculum = Annotated[list[Stage], Field(min_length=1), AfterValidator(_is_curriculum)]
Policy = Literal["concat", "pack", "document", "truncate", "bucket", "record"]


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """`arch` and, beside it, the fields of that architecture's `Config`; and `from`, a run
    directory or the folder of a released checkpoint, with whose weights the model begins
    (`training.origin`)."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    arch: str = Field(description="name of the architecture in the registry")

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but `arch` and `from`."""
        return {name: v for name, v in (self.model_extra or {}).items() if name != "from"}

    @property
    def origin(self) -> str | None:
        """The path that `from` says."""
        return (self.model_extra or {}).get("from")


class ObjectiveSettings(Settings):
    """`kind` and, beside it, the fields of that objective's `Config`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    kind: str = Field("causal", description="name of the objective in the registry")

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but `kind`."""
        return dict(self.model_extra or {})


class DataSettings(Settings):
    """What is trained and evaluated on: files, folders, patterns, archives, records, data sets and
    built corpora, which mean the documents they mean to every other command, and how they are read.

    Relative paths start from the current folder, or else from the folder of the bundled samples.
    """

    train: Annotated[Paths, Field(min_length=1)] = Field(description="paths and patterns")
    heldout: Paths = Field([], description="paths and patterns that are never trained on")
    policy: Policy = Field("concat", description="how documents become rows (data/windows.py)")
    record_size: AtLeastOne | None = Field(None, description="bytes, for policy 'record'")
    weights: list[Positive] | None = Field(
        None, description="proportions in which rows are drawn from the paths in `train`"
    )
    skip: Annotated[list[Range], Field(max_length=16)] = Field(
        [], description="[[first, last], ...] sample numbers to leave out"
    )
    curriculum: Curriculum | None = Field(
        None, description="[[from share of training, bytes per row], ...]"
    )
    tokenizer: str | None = Field(
        None, description="a folder of tokenizers/: the model reads its ids, not bytes"
    )
    workers: Count = Field(
        0, description="processes that prepare batches in advance; 0 = the training process"
    )
    field: str | None = Field(None, description=SETTINGS["field"])
    raw: bool = Field(False, description=SETTINGS["raw"])
    strict: bool = Field(False, description=SETTINGS["strict"])
    skip_errors: bool = Field(False, description=SETTINGS["skip_errors"])
    max_unpacked: Size | None = Field(None, description=SETTINGS["max_unpacked"])
    max_ratio: Annotated[float, Field(ge=1)] | None = Field(None, description=SETTINGS["max_ratio"])
    max_nesting: Count | None = Field(None, description=SETTINGS["max_nesting"])
    max_members: AtLeastOne | None = Field(None, description=SETTINGS["max_members"])
    max_window: Size | None = Field(None, description=SETTINGS["max_window"])


class AdamWSettings(Settings):
    """AdamW for every parameter."""

    kind: Literal["adamw"] = Field(description="AdamW for every parameter")
    lr: Positive = Field(2e-3, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.1, description="decoupled, on matrices and tables only"
    )
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.95], description="decay of the running mean of gradients and of their squares"
    )
    eps: Positive = Field(1e-8, description="added to the root of the squares")
    clip: Annotated[float, Field(ge=0)] = Field(
        1.0, description="largest gradient norm; 0 = no clipping"
    )


class MuonSettings(AdamWSettings):
    """Muon for hidden matrices, AdamW (`lr`, `betas`, `eps`) for everything else."""

    kind: Literal["muon"] = Field(description="Muon for hidden matrices, AdamW for the rest")  # type: ignore[assignment]
    muon_lr: Positive = Field(0.02, description="peak learning rate of Muon")
    momentum: Fraction = Field(0.95, description="of Muon")


class ConstantSettings(Settings):
    """Warm up, then stay."""

    kind: Literal["constant"] = Field(description="no decay")
    warmup: Annotated[int | float, Field(ge=0)] = Field(
        0.02, description="integer: steps; fraction: share of the whole training"
    )


class CosineSettings(ConstantSettings):
    """Warm up, then half a cosine down to `final` times the learning rate."""

    kind: Literal["cosine"] = Field(description="cosine decay")  # type: ignore[assignment]
    final: Fraction = Field(0.1, description="learning rate at the end, as a share of the peak")


class WSDSettings(CosineSettings):
    """Warm up, stay, then 1 - sqrt(x) down to `final` over the last `decay` share."""

    kind: Literal["wsd"] = Field(description="warm up, stay, decay")  # type: ignore[assignment]
    decay: Fraction = Field(0.2, description="share of training over which the rate falls")
    final: Fraction = Field(0.0, description="learning rate at the end, as a share of the peak")


class TrainSettings(Settings):
    """How long, how much at a time, and on what. A run ends at whichever limit comes first; a limit
    given by an override takes the place of those in the file. The schedule follows steps and bytes,
    which are the same on every machine, and max_minutes only where it stands alone."""

    steps: AtLeastOne | None = Field(None, description="steps to train")
    bytes: AtLeastOne | None = Field(
        None, description="bytes to train on, counted as often as they are read"
    )
    max_minutes: Positive | None = Field(
        None, description="minutes after which to stop, whatever is left of steps or bytes"
    )
    clock: Literal["wall", "cpu"] = Field(
        "wall", description="what max_minutes counts: time, or this process's CPU time"
    )
    batch_bytes: AtLeastOne = Field(
        8192, description="bytes per step, over all ranks and micro-batches"
    )
    context_bytes: AtLeastOne = Field(512, description="bytes per window")
    accumulate: AtLeastOne = Field(1, description="micro-batches per step")
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], BeforeValidator(_not_float16)] = Field(
        "auto", description="of the matrix products; auto = what is faster here"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to compute; auto = cuda, else mps, else cpu"
    )
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile the model; auto = tried in trainings above an hour"
    )
    threads: Count = Field(0, description="CPU threads; 0 = all cores")
    distributed: Literal["ddp", "fsdp"] = Field("ddp", description="how torchrun's ranks share")
    timeout_minutes: Positive = Field(
        5.0, description="how long ranks wait for one another before they give up"
    )
    checkpoint_every: Count = Field(500, description="steps; 0 = only at the end")
    keep_last: AtLeastOne = Field(2, description="checkpoints kept")

    @property
    def batch_windows(self) -> int:
        """Windows per step, over all ranks and micro-batches."""
        return self.batch_bytes // self.context_bytes


class EvaluateSettings(Settings):
    """Held-out figures while training, over a fixed prefix of the held-out bytes."""

    every: Count = Field(500, description="steps; 0 = never")
    bytes: AtLeastOne = Field(65536, description="size of that prefix")
    final: bool = Field(True, description="whether the whole held-out data is judged at the end")


class LogSettings(Settings):
    """What goes into metrics.jsonl, and where else."""

    every: AtLeastOne = Field(10, description="steps between rows")
    telemetry: bool = Field(
        True, description="the model's own statistics and gradient norms by parameter kind"
    )
    trackers: Trackers = Field([], description="where rows go besides metrics.jsonl")
    profile_steps: Range | None = Field(
        None, description="[first, last] step to trace into profile/trace.json"
    )


KINDS: dict[str, tuple[type[Settings], ...]] = {
    "optimizer": (MuonSettings, AdamWSettings),
    "schedule": (WSDSettings, CosineSettings, ConstantSettings),
}

# the other sections whose fields are all here
SECTIONS: dict[str, tuple[type[Settings], ...]] = {
    "data": (DataSettings,),
    "train": (TrainSettings,),
    "evaluate": (EvaluateSettings,),
    "log": (LogSettings,),
}


def kind_of(settings: type[Settings]) -> str:
    """The `kind` that chooses this class."""
    return get_args(settings.model_fields["kind"].annotation)[0]
