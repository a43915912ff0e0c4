"""Every architecture and layout that the contract tests run over, tiny and in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bytelm.arch.base import (
    ArchConfig,
    ByteModel,
    EncoderModel,
    Family,
    Seq2SeqModel,
    TrainedPart,
)
from bytelm.data.batch import IGNORE, Batch
from bytelm.registry import architecture
from bytelm.vocab import ByteVocab

_SSM = {"head_dim": 16, "d_state": 8, "chunk": 16}
_WORDS = {"layers": 1, "d_model": 48, "heads": 2, "d_local": 32, "local_heads": 2}

_PATCHES = {
    "layers": 2,
    "d_model": 48,
    "heads": 2,
    "d_local": 32,
    "local_layers": 2,
    "local_heads": 2,
    "window": 3,
}
_T5 = {"d_model": 32, "heads": 2, "hidden": 48, "max_distance": 20}

_MEGABYTE = {**_PATCHES, "patch": 4}
del _MEGABYTE["window"]
_BLT = {
    "d_local": 32,
    "d_model": 48,
    "heads": 2,
    "layers": 1,
    "window": 5,
    "ngrams": [2, 4],
    "ngram_rows": 50,
}

CASES: dict[str, tuple[str, dict]] = {
    "transformer": ("transformer", {"layers": 2, "d_model": 32, "heads": 2}),
    "transformer-window": ("transformer", {"layers": 2, "d_model": 32, "heads": 2, "window": 3}),
    "transformer-conv": ("transformer", {"layers": 2, "d_model": 32, "heads": 2, "conv": 3}),
    "mambabyte": ("hnet", {"layout": ["m2"], "d_model": [32], **_SSM}),
    "mamba-mlp-grouped": (
        "hnet",
        {"layout": ["M1t1"], "d_model": [32], "d_intermediate": [48], "num_heads": [2], **_SSM},
    ),
    "hnet-1stage": (
        "hnet",
        {
            "layout": ["m1", ["T1"], "m1"],
            "d_model": [32, 48],
            "d_intermediate": [0, 64],
            "num_heads": [0, 2],
            "target": [4],
            **_SSM,
        },
    ),
    "hnet-ngrams": (
        "hnet",
        {
            "layout": ["m1", ["T1"], "m1"],
            "d_model": [32, 48],
            "d_intermediate": [0, 64],
            "num_heads": [0, 2],
            "target": [4],
            "ngrams": [2, 4],
            "ngram_rows": 50,
            **_SSM,
        },
    ),
    "hnet-short-conv": (
        "hnet",
        {
            "layout": ["c1m1", ["T1"], "C1"],
            "d_model": [32, 48],
            "d_intermediate": [40, 64],
            "num_heads": [0, 2],
            "target": [4],
            **_SSM,
        },
    ),
    "hnet-2stage": (
        "hnet",
        {
            "layout": ["m1", ["t1m1", ["T1"], "m1t1"], "m1"],
            "d_model": [32, 32, 48],
            "d_intermediate": [0, 0, 64],
            "num_heads": [0, 2, 2],
            "window": [-1, 3, -1],
            "target": [3, 3],
            **_SSM,
        },
    ),
    "hnet-attention-only": (
        "hnet",
        {
            "layout": ["t1", ["T1"], "t1"],
            "d_model": [32, 32],
            "d_intermediate": [0, 64],
            "num_heads": [2, 2],
            "window": [3, 2],
            "target": [4],
        },
    ),
    "hnet-hybrid": (
        "hnet",
        {
            "layout": ["T1m1", ["M1T1"], "m1t1"],
            "d_model": [32, 48],
            "d_intermediate": [48, 64],
            "num_heads": [2, 3],
            "target": [2],
            **_SSM,
        },
    ),
    "hnet-fixed": (
        "hnet",
        {
            "layout": ["m1", ["T1"], "m1"],
            "d_model": [32, 48],
            "d_intermediate": [0, 64],
            "num_heads": [0, 2],
            "boundaries": ["fixed"],
            "target": [4],
            **_SSM,
        },
    ),
    "hnet-space": (
        "hnet",
        {
            "layout": ["m1", ["T1"], "m1"],
            "d_model": [32, 48],
            "d_intermediate": [0, 64],
            "num_heads": [0, 2],
            "boundaries": ["space"],
            **_SSM,
        },
    ),
    "hnet-words": (  # AU-Net's levels: bytes, words, pairs of words
        "hnet",
        {
            "layout": ["t1", ["t1", ["T1"], "t1"], "t1"],
            "d_model": [32, 32, 48],
            "d_intermediate": [0, 0, 64],
            "num_heads": [2, 2, 2],
            "window": [3, -1, -1],
            "boundaries": ["words", "fixed"],
            "target": [6, 2],
        },
    ),
    "hnet-given": (
        "hnet",
        {
            "layout": ["m1", ["t1", ["T1"], "t1"], "m1"],
            "d_model": [32, 32, 48],
            "d_intermediate": [0, 0, 64],
            "num_heads": [0, 2, 2],
            "boundaries": ["given", "fixed"],
            "given_after": [32, 101],
            "target": [6, 3],
            **_SSM,
        },
    ),
    "spacebyte": ("spacebyte", {**_PATCHES, "local_layers": 3}),
    "spacebyte-words": (
        "spacebyte",
        {**_PATCHES, "boundaries": "words", "d_model": 32, "ngrams": [2, 3], "ngram_rows": 50},
    ),
    "wordpool": ("wordpool", {**_WORDS, "layers": 2, "prefixes": 1, "max_word": 5}),
    "wordpool-2": (
        "wordpool",
        {**_WORDS, "prefixes": 2, "max_word": 9, "encoder_layers": 1, "decoder_layers": 1},
    ),
    "wordpool-4": (
        "wordpool",
        {**_WORDS, "prefixes": 4, "encoder_layers": 1, "ngrams": [2, 4], "ngram_rows": 50},
    ),
    "megabyte": ("megabyte", {**_MEGABYTE, "ngrams": [2, 3], "ngram_rows": 50}),
    "blt-given": (
        "blt",
        {
            **{**_BLT, "d_model": 64, "slots": 1, "window": -1, "ngram_functions": 2},
            "boundaries": "given",
            "given_after": [32, 101],
        },
    ),
    "blt-entropy": ("blt", {**_BLT, "qk_norm": False}),
    "blt-both": (
        "blt",
        {
            **{**_BLT, "ngrams": [3], "slots": 3, "encoder_layers": 2, "decoder_layers": 3},
            **{"decoder_reads": "first", "entropy": "both", "threshold": 2.2, "rise": 0.2},
            "max_patch": 4,
        },
    ),
    "t5": ("t5", _T5),
    "t5-softmax1": ("t5", {**_T5, "head_dim": 24, "softmax1": True}),
    "mrt5": ("mrt5", {**_T5, "encoder_layers": 3, "softmax1": True}),
    "mrt5-keep-gates": ("mrt5", {**_T5, "keep_gates": True, "rate": 0.4, "threshold": 0.4}),
    "mrt5-random": ("mrt5", {**_T5, "deletion": "random"}),
    "mrt5-fixed": ("mrt5", {**_T5, "deletion": "fixed"}),
    "mrt5-boundaries": ("mrt5", {**_T5, "deletion": "boundaries"}),
    "mrt5-pooling": ("mrt5", {**_T5, "deletion": "pooling", "stride": 3}),
    "encoder": ("encoder", {"layers": 2, "d_model": 32, "heads": 2}),
    "encoder-window": ("encoder", {"layers": 3, "d_model": 32, "heads": 2, "window": 3}),
    "byte2word": (
        "byte2word",
        {"layers": 2, "d_model": 32, "heads": 2, "word_heads": 2, "max_word": 6},
    ),
}
LABELS = ("prose", "code", "machine")


def cases_of(family: Family) -> list[str]:
    """The names of the cases whose architecture is of this family."""
    return sorted(name for name, (arch, _) in CASES.items() if architecture(arch).family == family)


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a - b| of logits; 0 where both are -inf, as they are for ids without a row in the table."""
    return torch.where(a == b, 0.0, (a - b).abs())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make(name: str, *, seed: int = 0, **changes: Any) -> ByteModel:
    """The case's model in float64, with zero-initialised parts moved off zero, so that a test sees
    every path; `changes` are settings other than the case's."""
    arch, settings = CASES[name]
    settings = {**settings, **changes}
    torch.manual_seed(seed)
    cls = architecture(arch)
    with default_dtype(torch.float64):
        config = cls.Config(**settings)
        model = cls(config, ByteVocab(), **arguments_of(cls, config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim <= 1 or not parameter.any():
                    parameter.add_(0.3 * torch.randn_like(parameter))
                elif parameter.ndim == 2 and parameter.std() < 0.1:
                    parameter.mul_(4)
    return model.eval()


def arguments_of(cls: type[ByteModel], config: ArchConfig) -> dict[str, Any]:
    """What a model takes besides config and vocabulary."""
    more: dict[str, Any] = {"labels": LABELS} if cls.family == "encoder" else {}
    return more | {name: small_part() for name in config.trained_parts()}


def small_part() -> TrainedPart:
    """A "trained" model whose distributions differ in their entropy, between 0 and 4 nats."""
    settings = {"layers": 1, "d_model": 16, "heads": 1}
    state = torch.get_rng_state()
    torch.manual_seed(3)
    kind = architecture("transformer")
    model = kind(kind.Config(**settings), ByteVocab())
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    torch.set_rng_state(state)
    return TrainedPart(arch="transformer", model=model, context_bytes=12)


def training_batch(model: ByteModel, *, seed: int = 0) -> Batch:
    """A ragged batch of three rows with all that a model of this family learns from."""
    ids, lengths = texty_ids(3, 40, seed=seed), torch.tensor([40, 17, 3])
    if isinstance(model, EncoderModel):
        return Batch(ids=ids, lengths=lengths, labels=torch.tensor([0, 2, 1]))
    valid = torch.arange(40) < lengths[:, None]
    targets = torch.where(valid, texty_ids(3, 40, seed=seed + 1), IGNORE)
    source = None
    if isinstance(model, Seq2SeqModel):
        source = Batch(ids=texty_ids(3, 11, seed=seed + 2), lengths=torch.tensor([4, 11, 6]))
    return Batch(ids=ids, targets=targets, lengths=lengths, source=source)


def texty_ids(rows: int, length: int, *, seed: int = 0) -> torch.Tensor:
    """(rows, length) ids from a BOS, random letters and spaces, and a few arbitrary bytes."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (rows, length), generator=generator)
    kind = torch.rand(rows, length, generator=generator)
    ids = torch.where(kind < 0.6, ids % 26 + 97, torch.where(kind < 0.8, 32, ids))
    ids[:, 0] = ByteVocab().bos
    return ids
