"""Optional CUDA kernels behind one checked switch; the torch code is always the reference.

`backend` is "torch" (never look), "fused" (must be there, an error otherwise) or "auto" (used when
the tensors are on CUDA and the package imports). Nothing here is imported before it is asked for:
`import mamba_ssm` fails on machines without Triton, for many reasons, so every failure to import
means "not available", and its text is kept for the error.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from torch import Tensor

from bytelm.errors import MissingExtraError

Backend = Literal["auto", "torch", "fused"]
_log = logging.getLogger(__name__)


@cache
def _scan_kernel() -> tuple[Callable[..., Any] | None, str]:
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except Exception as error:  # Triton and driver failures are of every type
        return None, f"{type(error).__name__}: {error}"
    _log.info("Mamba-2 scan: fused mamba_ssm kernel")
    return mamba_chunk_scan_combined, ""


def fused_scan(backend: Backend, on: Tensor) -> Callable[..., Any] | None:
    """mamba_ssm's chunked scan if `backend` allows and the tensor's device can run it, else None.

    Raises `MissingExtraError` for backend="fused" when the kernel cannot be used.
    """
    if backend == "torch" or (backend == "auto" and not on.is_cuda):
        return None
    kernel, reason = _scan_kernel()
    if backend == "fused" and (kernel is None or not on.is_cuda):
        reason = reason or f"the tensors are on {on.device}, the kernel needs CUDA"
        raise MissingExtraError("mamba-ssm", "cuda", f"backend='fused' ({reason})")
    return kernel
