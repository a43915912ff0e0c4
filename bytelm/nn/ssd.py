"""The state-space dual form (SSD) of Mamba-2 in batched matrix products, on any device.

Computes, per head h with state S (P, N),

    S_t = exp(dt_t A) S_{t-1} + (dt_t x_t) (outer) B_t,        y_t = S_t C_t

in chunks of Q positions (Dao & Gu 2024, section 6): inside a chunk the map is a masked matrix
product, between chunks only S is carried. B and C are shared by all heads of a group and are never
repeated; decays are kept in float32 or better and masked *before* the exponential, since exp of the
upper triangle overflows and would give NaN gradients. Q = 64 is the fastest on CPUs; it is a speed
hint and changes no result.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.decay import causal, decayed


class SSDResult(NamedTuple):
    """y (B, L, H, P) and the final state (B, H, P, N)."""

    y: Tensor
    state: Tensor


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    *,
    chunk: int = 64,
    state_BHPN: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> SSDResult:
    """The recurrence above for a whole sequence; A < 0, dt >= 0 (0 = the position is skipped).

    document_ids (B, L): the state restarts where they change; `state_BHPN` then belongs to the
    first document of each row. H must be a multiple of G; head h uses group h * G // H.
    """
    L, H = x_BLHP.shape[1:3]

    x, dt, B, C, documents = _pad_to(chunk, x_BLHP, dt_BLH, B_BLGN, C_BLGN, document_ids)
    G = B.shape[2]
    exact = torch.promote_types(dt.dtype, torch.float32)
    dt = dt.to(exact)

    # chunk c, position q in it; group g, head r of the group
    total = rearrange(dt * A_H, "b (c q) (g r) -> b c g r q", q=chunk, g=G).cumsum(-1)
    dtx = x * dt[..., None].to(x.dtype)
    dtx = rearrange(dtx, "b (c q) (g r) p -> b c g r q p", q=chunk, g=G)
    Bc, Cc = (rearrange(t, "b (c q) g n -> b c g q n", q=chunk) for t in (B, C))

    inside = _segment_mask(chunk, documents, x.device)
    y = decayed(Cc @ Bc.transpose(-1, -2), total, inside) @ dtx

    reads, writes, carries = _document_gates(total, documents)
    gained = _chunk_states(dtx, writes, Bc)
    states, final = _carry(gained, carries, state_BHPN, G)
    incoming = Cc[:, :, :, None] @ states.to(x.dtype).transpose(-1, -2)
    y = torch.addcmul(y, incoming, reads[..., None].to(x.dtype))
    y = rearrange(y, "b c g r q p -> b (c q) (g r) p")[:, :L]
    return SSDResult(y, rearrange(final, "b g r p n -> b (g r) p n"))


def ssd_step(
    x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
) -> SSDResult:
    """One position of the recurrence: y (B, H, P) and the new state; the old one is not written."""
    per_group = x_BHP.shape[1] // B_BGN.shape[1]
    decay = (dt_BH * A_H).exp()[..., None, None]
    B, C = (t.repeat_interleave(per_group, dim=1).to(state_BHPN.dtype) for t in (B_BGN, C_BGN))
    gained = (dt_BH[..., None] * x_BHP).to(state_BHPN.dtype)[..., None] * B[:, :, None]
    state = torch.addcmul(gained, state_BHPN, decay)
    y = (state @ C[..., None]).squeeze(-1)
    return SSDResult(y.to(x_BHP.dtype), state)


def _pad_to(
    chunk: int, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, documents: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Right-pad to a multiple of the chunk; dt = 0 there, so neither decay nor input."""
    pad = -x.shape[1] % chunk
    if documents is not None:
        documents = torch.cat((documents, documents[:, -1:].expand(-1, pad)), dim=1)
        documents = documents.unflatten(1, (-1, chunk))
    if pad:
        x, B, C = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = F.pad(dt, (0, 0, 0, pad))
    return x, dt, B, C, documents


def _segment_mask(chunk: int, documents: Tensor | None, device: torch.device) -> Tensor:
    """(Q, Q) or (b, c, 1, 1, Q, Q): position i reads position j of its own chunk."""
    if documents is None:
        return causal(chunk, device)
    return (causal(chunk, device) & (documents[..., :, None] == documents[..., None, :]))[
        :, :, None, None
    ]


def _document_gates(total: Tensor, documents: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Decay factors at the chunk's edges, cut at document starts.

    reads (b,c,g,r,Q) incoming state -> position; writes (b,c,g,r,Q) position -> outgoing state;
    carries (b,c,g,r) incoming -> outgoing state.
    """
    reads, writes = total.exp(), (total[..., -1:] - total).exp()
    carries = reads[..., -1]
    if documents is None:
        return reads, writes, carries
    last = documents[:, :, -1]
    before = torch.cat((documents[:, :1, 0], last[:, :-1]), dim=1)  # document of the incoming state
    read_ok = (documents == before[..., None])[:, :, None, None]
    write_ok = (documents == last[..., None])[:, :, None, None]
    return reads * read_ok, writes * write_ok, carries * (last == before)[:, :, None, None]


def _chunk_states(dtx: Tensor, writes: Tensor, Bc: Tensor) -> Tensor:
    """What each chunk adds to the state: (b, c, g, r, P, N), one product per group."""
    r = dtx.shape[3]
    weighted = dtx * writes[..., None].to(dtx.dtype)
    gained = rearrange(weighted, "b c g r q p -> b c g (r p) q") @ Bc
    return rearrange(gained, "b c g (r p) n -> b c g r p n", r=r)


def _carry(
    gained: Tensor, carries: Tensor, initial: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    """The state each chunk starts from (b, c, g, r, P, N), and the final one (b, g, r, P, N)."""
    gained = gained.to(carries.dtype)
    if initial is None:
        state = torch.zeros_like(gained[:, 0])
    else:
        state = rearrange(initial.to(carries.dtype), "b (g r) p n -> b g r p n", g=groups)
    starts = []
    for added, carry in zip(gained.unbind(1), carries.unbind(1), strict=True):
        starts.append(state)
        state = torch.addcmul(added, state, carry[..., None, None])
    return torch.stack(starts, dim=1), state
