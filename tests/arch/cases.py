"""Every architecture and layout that the contract tests run over, tiny and in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bytelm.arch.base import ByteModel
from bytelm.registry import architecture
from bytelm.vocab import ByteVocab

_SSM = {"head_dim": 16, "d_state": 8, "chunk": 16}

CASES: dict[str, tuple[str, dict]] = {
    "transformer": ("transformer", {"layers": 2, "d_model": 32, "heads": 2}),
    "transformer-window": ("transformer", {"layers": 2, "d_model": 32, "heads": 2, "window": 3}),
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
            "num_heads": [2, 2],
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
            "num_heads": [2, 2, 2],
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
            "num_heads": [2, 2],
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
            "num_heads": [2, 2],
            "boundaries": ["space"],
            **_SSM,
        },
    ),
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make(name: str, *, seed: int = 0) -> ByteModel:
    """The case's model in float64, with zero-initialised parts moved off zero, so that a test sees
    every path."""
    arch, settings = CASES[name]
    torch.manual_seed(seed)
    cls = architecture(arch)
    with default_dtype(torch.float64):
        model = cls(cls.Config(**settings), ByteVocab())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim <= 1 or not parameter.any():
                    parameter.add_(0.3 * torch.randn_like(parameter))
                elif parameter.ndim == 2 and parameter.std() < 0.1:
                    parameter.mul_(4)
    return model.eval()


def texty_ids(rows: int, length: int, *, seed: int = 0) -> torch.Tensor:
    """(rows, length) ids from a BOS, random letters and spaces, and a few arbitrary bytes."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (rows, length), generator=generator)
    kind = torch.rand(rows, length, generator=generator)
    ids = torch.where(kind < 0.6, ids % 26 + 97, torch.where(kind < 0.8, 32, ids))
    ids[:, 0] = ByteVocab().bos
    return ids
