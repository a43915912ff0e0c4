"""BLT's configuration: sizes of the local models and the global one, and where patches end.

The defaults of windows, n-grams and threshold are those of the released models; sizes are not.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bytelm.arch.backbone import NGramConfig
from bytelm.arch.base import Idle
from bytelm.nn.ngrams import PRIMES
from bytelm.nn.patch_attention import PatchOptions
from bytelm.nn.stack import StackOptions

Byte = Annotated[int, Field(ge=0, le=255)]
_TOP_K = {"top-k", "top_k", "topk"}


class BLTConfig(NGramConfig):
    """Sizes and patching of a BLT. Windows and lengths are in bytes."""

    encoder_layers: int = Field(1, ge=1, description="blocks of the local encoder")
    layers: int = Field(4, ge=1, description="blocks of the global network, over patches")
    decoder_layers: int = Field(2, ge=1, description="blocks of the local decoder")
    d_local: int = Field(128, ge=2, description="width of the local models and the byte table")
    d_model: int = Field(256, ge=2, description="width of the global network")
    local_heads: int = Field(2, ge=1, description="attention heads of the local models")
    heads: int = Field(4, ge=1, description="attention heads of the global network")
    encoder_hidden: int = Field(
        0, ge=0, description="SwiGLU width of the local encoder; 0 = 8/3 d_local rounded up to 64"
    )
    hidden: int = Field(
        0, ge=0, description="SwiGLU width of the global network; 0 = 8/3 d_model rounded up to 64"
    )
    decoder_hidden: int = Field(
        0, ge=0, description="SwiGLU width of the local decoder; 0 = 8/3 d_local rounded up to 64"
    )
    window: int = Field(511, ge=-1, description="earlier bytes that the local models see; -1 = all")
    slots: int = Field(2, ge=1, description="k, vectors of width d_local that a patch consists of")
    decoder_reads: Literal["all", "first"] = Field(
        "all", description="the decoder's layers before which bytes look at a patch"
    )
    qk_norm: bool = Field(True, description="unit-RMS queries and keys in self-attention")
    rotary_base: float = Field(500_000.0, gt=0, description="base of the rotary frequencies")
    ngrams: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (3, 4, 5, 6, 7, 8),
        description="sizes n of the n-grams whose hashed vectors are added to the byte table's",
    )
    ngram_rows: int = Field(500_002, ge=1, description="rows of the table of each n-gram size")
    ngram_functions: int = Field(
        1, ge=1, le=len(PRIMES), description="hash functions, each with tables of its own"
    )
    boundaries: Literal["entropy", "fixed", "given"] = Field(
        "entropy",
        description="where patches end: entropy (of a small byte model's next byte), fixed (every "
        "`stride` bytes), given (by the batch, or after given_after)",
    )
    patcher: str = Field(
        "",
        description="run directory of the causal byte model whose entropy decides; its weights "
        "become part of the run",
    )
    entropy: Literal["threshold", "monotonic", "both"] = Field(
        "threshold",
        description="a patch ends where the entropy is above `threshold`, where it has risen by "
        "more than `rise` since the byte before, or where both hold",
    )
    threshold: float = Field(
        1.335442066192627, ge=0, description="nats of entropy above which a patch ends"
    )
    rise: float = Field(0.5, ge=0, description="nats more than at the byte before; ends a patch")
    stride: int = Field(4, ge=1, description="bytes per patch of fixed boundaries")
    given_after: tuple[Byte, ...] = Field(
        (),
        description='byte values that end a patch where boundaries = "given" and the batch has '
        "none, such as [10] for lines; decoding needs it",
    )
    max_patch: int = Field(-1, ge=-1, description="bytes that a patch has at most; -1 = no limit")
    released_ids: bool = Field(
        False,
        description="table of the released checkpoints: 260 rows, byte b is row b + 4; export to "
        "transformers needs it",
    )

    @field_validator("entropy", mode="before")
    @classmethod
    def _causal(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() in _TOP_K:
            raise ValueError(
                "top-k patching ends patches at the k highest entropies of the whole sequence, so "
                "that later bytes would decide about earlier patches: a model that predicts the "
                "next byte cannot use it. Choose threshold, monotonic or both"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "BLTConfig":
        for part in ("encoder", "global", "decoder"):
            try:
                self.stack_options(part)
            except ValueError as error:
                raise ValueError(f"{part}: {error}") from None
        if self.max_patch == 0:
            raise ValueError("max_patch = 0: it must be -1 (no limit) or at least 1")
        return self

    def idle(self) -> Iterator[Idle]:
        """Settings of other boundaries than those chosen, and of tables that there are not."""
        yield from super().idle()
        kind = self.boundaries
        if kind != "entropy":
            for name in ("patcher", "entropy", "threshold", "rise"):
                yield Idle(setting=name, why=f"boundaries are {kind!r}")
        elif self.entropy == "monotonic":
            yield Idle(setting="threshold", why="entropy is 'monotonic'")
        elif self.entropy == "threshold":
            yield Idle(setting="rise", why="entropy is 'threshold'")
        if kind != "fixed":
            yield Idle(setting="stride", why=f"boundaries are {kind!r}")
        if kind != "given":
            yield Idle(setting="given_after", why=f"boundaries are {kind!r}")
        if not self.ngrams:
            yield Idle(setting="ngram_functions", why="there are no ngrams")
        if self.decoder_layers == 1:
            yield Idle(setting="decoder_reads", why="the decoder has one layer")

    def trained_parts(self) -> Mapping[str, str]:
        return {"patcher": self.patcher} if self.boundaries == "entropy" else {}

    def stack_options(self, part: Literal["encoder", "global", "decoder"]) -> StackOptions:
        """What the blocks of one of the three networks are built with."""
        inner = part == "global"
        hidden = {"encoder": self.encoder_hidden, "decoder": self.decoder_hidden}
        return StackOptions.transformer(
            self.d_model if inner else self.d_local,
            heads=self.heads if inner else self.local_heads,
            hidden=hidden.get(part, self.hidden),
            window=-1 if inner else self.window,
            qk_norm=self.qk_norm,
            base=self.rotary_base,
        )

    def patch_options(self) -> PatchOptions:
        """What the attention between bytes and patches is built with."""
        return PatchOptions(dim=self.d_local, heads=self.local_heads, slots=self.slots)
