"""The SSD beside two torch renderings of Mamba-2, and beside attention of equal width.

    python -m benchmarks.ssd

Forward plus backward in float32, one thread. At b=2, L=1024, H=8, P=64, N=64 the baselines are
transformers' current function (einsum) and the broadcast-and-sum form that its releases before 5.2x
carried, written out here; all three must be equal. Then SSD against causal attention of the same
width H * P = 512 at growing lengths.
"""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

from benchmarks.common import cpu_seconds, ratio, store
from bytelm.nn.ssd import ssd

H, P, N = 8, 64, 64
CHUNK = 64


def inputs(b: int, L: int) -> list[Tensor]:
    """x, dt, A, B, C with gradients; dt in Mamba-2's initial range."""
    torch.manual_seed(0)
    x, B, C = torch.randn(b, L, H, P), torch.randn(b, L, 1, N), torch.randn(b, L, 1, N)
    dt, A = 0.1 * torch.rand(b, L, H), -(1 + 15 * torch.rand(H))
    return [t.requires_grad_() for t in (x, dt, A, B, C)]


def broadcast_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same function with every contraction as a broadcast product and a sum."""
    b, L = x.shape[:2]
    shape = (b, L // CHUNK, CHUNK, H)
    u = (x * dt[..., None]).view(*shape, P)
    B, C = (t.expand(b, L, H, N).reshape(*shape, N) for t in (B, C))
    total = (dt * A).view(shape).cumsum(2)
    gap = total[:, :, :, None] - total[:, :, None]  # (b, c, i, j, H)
    causal = torch.ones(CHUNK, CHUNK, dtype=torch.bool).tril()[..., None]
    scores = (C[:, :, :, None] * B[:, :, None]).sum(-1) * gap.masked_fill(~causal, -1e30).exp()
    y = (scores[..., None] * u[:, :, None]).sum(3)
    weight = (total[:, :, -1:] - total).exp()
    gained = (u[..., None] * (B * weight[..., None])[..., None, :]).sum(2)  # (b, c, H, P, N)
    state, starts = torch.zeros_like(gained[:, 0]), []
    for c in range(shape[1]):
        starts.append(state)
        state = total[:, c, -1].exp()[..., None, None] * state + gained[:, c]
    incoming = torch.stack(starts, 1)[:, :, None] * (C * total.exp()[..., None])[..., None, :]
    return (y + incoming.sum(-1)).view(b, L, H, P)


def trained(function: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], None]:
    """Forward and backward of `function`, to be timed."""

    def run() -> None:
        torch.autograd.grad(function(*tensors).sum(), tensors)

    return run


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def main() -> None:
    torch.set_num_threads(1)
    tensors = inputs(2, 1024)
    cases = {
        "bytelm": lambda *t: ssd(*t, chunk=CHUNK).y,
        "transformers, einsum": lambda *t: mamba2_chunk_scan(*t, chunk_size=CHUNK),
        "broadcast and sum": broadcast_ssd,
    }
    expected = cases["bytelm"](*tensors)
    for function in cases.values():
        assert (function(*tensors) - expected).abs().max() < 1e-3
    times = cpu_seconds({name: trained(f, tensors) for name, f in cases.items()})
    rows: list[list[object]] = [["forward + backward", "CPU ms", "times bytelm"]]
    result: dict[str, object] = {"cpu_seconds": times}
    for name, series in times.items():
        rows.append(
            [
                name,
                f"{1e3 * statistics.median(series):.0f}",
                f"{ratio(series, times['bytelm']):.1f}",
            ]
        )
    for L in (1024, 2048, 4096, 8192):
        qkv = [torch.randn(1, H, L, P, requires_grad=True) for _ in range(3)]
        pair = cpu_seconds(
            {
                "ssd": trained(cases["bytelm"], inputs(1, L)),
                "attention": trained(attention, qkv),
            },
            repeats=3,
        )
        result[f"attention/ssd at {L}"] = ratio(pair["attention"], pair["ssd"])
        rows.append(
            [
                f"attention, width 512, L={L}",
                f"{1e3 * statistics.median(pair['attention']):.0f}",
                f"{ratio(pair['attention'], pair['ssd']):.2f}",
            ]
        )
    store("ssd", result, rows)


if __name__ == "__main__":
    main()
