"""The sections of a recipe: one small validated class each, one per `kind` where kinds differ.

A section forbids unknown fields, so a setting of another kind cannot be written down at all.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _in_order(numbers: list[int]) -> list[int]:
    if numbers[0] > numbers[1]:
        raise ValueError(f"first and last must be in order, not {numbers}")
    return numbers


def _is_curriculum(stages: list[list[float]]) -> list[list[float]]:
    shares = [stage[0] for stage in stages]
    if shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] >= 1:
        raise ValueError("shares of training must ascend from 0.0 and stay below 1")
    if any(length < 1 or length != int(length) for _, length in stages):
        raise ValueError("each stage is [share of training, bytes a row]")
    return stages


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
_one_or_more = BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
Paths = Annotated[list[str], _one_or_more]
Trackers = Annotated[list[Literal["tensorboard", "wandb", "trackio"]], _one_or_more]
Range = Annotated[list[Count], Field(min_length=2, max_length=2), AfterValidator(_in_order)]
Stage = Annotated[list[int | float], Field(min_length=2, max_length=2)]
Curriculum = Annotated[list[Stage], Field(min_length=1), AfterValidator(_is_curriculum)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Model(Section):
    """`arch` and, beside it, the fields of that architecture's `Config`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    arch: str

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but `arch`."""
        return dict(self.model_extra or {})


class Data(Section):
    """What is trained and evaluated on: plain files, patterns of files, or corpus directories.

    Relative paths start from the current folder, or else from the folder of the bundled samples.
    """

    train: Annotated[Paths, Field(min_length=1)]
    heldout: Paths = []
    policy: Literal["concat", "pack", "document", "bucket", "record"] = "concat"
    record_size: AtLeastOne | None = None  # bytes, for policy "record"
    weights: list[Positive] | None = None  # bytes drawn from each `train` path, in proportion
    skip: Annotated[list[Range], Field(max_length=16)] = []  # [[first, last], ...] sample numbers
    curriculum: Curriculum | None = None  # [[from share of training, bytes a row], ...]
    tokenizer: str | None = None  # a folder of tokenizers/: the model reads its ids, not bytes


class Causal(Section):
    """Predict each byte from the ones before it."""

    kind: Literal["causal"] = "causal"


class FillInTheMiddle(Section):
    """Causal over rearranged documents (Bavarian et al. 2022, arXiv:2207.14255)."""

    kind: Literal["fim"]
    rate: Fraction = 0.5  # share of pieces that are rearranged
    spm_rate: Fraction = 0.5  # of those, share written suffix first
    unit: Literal["byte", "codepoint"] = "byte"  # where a document may be cut
    documents: AtLeastOne = 4  # pieces of a window that may be rearranged


class AdamW(Section):
    """AdamW for every parameter."""

    kind: Literal["adamw"]
    lr: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    eps: Positive = 1e-8
    clip: Annotated[float, Field(ge=0)] = 1.0  # largest gradient norm; 0 = no clipping


class Muon(AdamW):
    """Muon for hidden matrices, AdamW (`lr`, `betas`, `eps`) for everything else."""

    kind: Literal["muon"]  # type: ignore[assignment]
    muon_lr: Positive = 0.02
    momentum: Fraction = 0.95


class Constant(Section):
    """Warm up, then stay."""

    kind: Literal["constant"]
    warmup: Annotated[int | float, Field(ge=0)] = 0.02  # integer: steps; fraction: share of all


class Cosine(Constant):
    """Warm up, then half a cosine down to `final` times the learning rate."""

    kind: Literal["cosine"]  # type: ignore[assignment]
    final: Fraction = 0.1


class WSD(Cosine):
    """Warm up, stay, then 1 - sqrt(x) down to `final` over the last `decay` share."""

    kind: Literal["wsd"]  # type: ignore[assignment]
    decay: Fraction = 0.2
    final: Fraction = 0.0


class Train(Section):
    """How long, how much at a time, and on what. A run ends at whichever limit comes first."""

    steps: AtLeastOne | None = None
    max_minutes: Positive | None = None
    clock: Literal["wall", "cpu"] = "wall"  # what max_minutes counts: time, or this process's CPU
    batch_bytes: AtLeastOne = 8192  # bytes a step, over all ranks and micro-batches
    context_bytes: AtLeastOne = 512  # bytes a window
    accumulate: AtLeastOne = 1  # micro-batches a step
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    threads: Count = 0  # 0 = all cores
    distributed: Literal["ddp", "fsdp"] = "ddp"  # under torchrun
    timeout_minutes: Positive = 5.0  # how long ranks wait for one another before they give up
    checkpoint_every: Count = 500  # steps; 0 = only at the end
    keep_last: AtLeastOne = 2

    @property
    def batch_windows(self) -> int:
        """Windows a step, over all ranks and micro-batches."""
        return self.batch_bytes // self.context_bytes


class Evaluate(Section):
    """Held-out bits per byte while training, over a fixed prefix of the held-out bytes."""

    every: Count = 500  # steps; 0 = never
    bytes: AtLeastOne = 65536
    final: bool = True  # the whole held-out data at the end


class Log(Section):
    """What goes into metrics.jsonl, and where else."""

    every: AtLeastOne = 10  # steps between rows
    telemetry: bool = True  # the model's own statistics and gradient norms by parameter kind
    trackers: Trackers = []  # besides metrics.jsonl
    profile_steps: Range | None = None  # [first, last] step to trace into profile/trace.json


KINDS: dict[str, tuple[type[Section], ...]] = {
    "objective": (Causal, FillInTheMiddle),
    "optimizer": (Muon, AdamW),
    "schedule": (WSD, Cosine, Constant),
}


def kind_of(section: type[Section]) -> str:
    return get_args(section.model_fields["kind"].annotation)[0]
