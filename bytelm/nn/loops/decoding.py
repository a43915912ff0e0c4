"""Compiled kernels of a decoding step: a residual block for a few rows in one call.

One position of a small model is a hundred operations of microseconds, and a product of one row with
a matrix, which the libraries behind torch compute at a fraction of the speed at which weights can
be read. A kernel here is a whole residual block, x += block(norm(x)), for n rows at positions of
their own, so there is nothing to gather, pad or mask. They compute what the layers compute, in the
dtype of the weights (float32 or float64), and are held to them by the same tests.

Arrays are contiguous; weights have the layout of `Linear`: (out, in).
"""

import math

import numpy as np

from bytelm.compiled import vectorised
from bytelm.nn.loops.sigmoid import exp, sigmoid


@vectorised
def product(weight, x, y):  # type: ignore[no-untyped-def]
    """y (n, out) = x (n, in) weight^T: each row of the weight is read once, for four rows of x."""
    n = x.shape[0]
    whole = n - n % 4
    for r in range(weight.shape[0]):
        w = weight[r]
        for b in range(0, whole, 4):
            x0, x1, x2, x3 = x[b], x[b + 1], x[b + 2], x[b + 3]
            s0 = s1 = s2 = s3 = weight.dtype.type(0)
            for j in range(w.shape[0]):
                s0 += w[j] * x0[j]
                s1 += w[j] * x1[j]
                s2 += w[j] * x2[j]
                s3 += w[j] * x3[j]
            y[b, r], y[b + 1, r], y[b + 2, r], y[b + 3, r] = s0, s1, s2, s3
        for b in range(whole, n):
            x0 = x[b]
            s0 = weight.dtype.type(0)
            for j in range(w.shape[0]):
                s0 += w[j] * x0[j]
            y[b, r] = s0


@vectorised
def add_product(weight, x, y):  # type: ignore[no-untyped-def]
    """y (n, out) += x (n, in) weight^T."""
    added = np.empty((x.shape[0], weight.shape[0]), weight.dtype)
    product(weight, x, added)
    for b in range(x.shape[0]):
        for r in range(weight.shape[0]):
            y[b, r] += added[b, r]


@vectorised
def unit_rms(x, eps):  # type: ignore[no-untyped-def]
    """x / sqrt(mean(x^2) + eps), in place."""
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += x[j] * x[j]
    scale = x.dtype.type(1 / math.sqrt(total / x.shape[0] + eps))
    for j in range(x.shape[0]):
        x[j] *= scale


@vectorised
def normed(x, weight, eps):  # type: ignore[no-untyped-def]
    """RMSNorm of rows x (n, D)."""
    out = x.copy()
    for b in range(x.shape[0]):
        unit_rms(out[b], eps)
        for j in range(x.shape[1]):
            out[b, j] *= weight[j]
    return out


@vectorised
def swiglu_block(x, norm, eps, fc1, fc2):  # type: ignore[no-untyped-def]
    """x (n, D) += fc2(value * silu(gate)), where fc1 gives value, then gate."""
    n, F = x.shape[0], fc2.shape[1]
    hidden = np.empty((n, 2 * F), x.dtype)
    product(fc1, normed(x, norm, eps), hidden)
    gated = np.empty((n, F), x.dtype)
    for b in range(n):
        for j in range(F):
            gated[b, j] = hidden[b, j] * hidden[b, F + j] * sigmoid(hidden[b, F + j])
    add_product(fc2, gated, x)


@vectorised
def _turn(u, eps, cos, sin):  # type: ignore[no-untyped-def]
    """A query or key, normalised if eps >= 0, rotated by tables of half the rotary width."""
    if eps >= 0:
        unit_rms(u, eps)
    half = cos.shape[0]
    for i in range(half):
        first, second = u[i], u[half + i]
        u[i] = first * cos[i] - second * sin[i]
        u[half + i] = second * cos[i] + first * sin[i]


@vectorised
def _read(q, keys, values, first, last, out):  # type: ignore[no-untyped-def]
    """Attention of one query over positions first to last of keys and values (capacity, K)."""
    K = q.shape[0]
    scale = q.dtype.type(1 / math.sqrt(K))
    weights = np.empty(last + 1 - first, q.dtype)
    highest = q.dtype.type(-np.inf)
    for s in range(first, last + 1):
        score = q.dtype.type(0)
        for c in range(K):
            score += q[c] * keys[s, c]
        score *= scale
        weights[s - first] = score
        if not score <= highest:  # or not a number: then nothing that follows is
            highest = score
    total = q.dtype.type(0)
    out[:] = 0
    for s in range(weights.shape[0]):
        weights[s] = exp(weights[s] - highest)
        total += weights[s]
    for s in range(first, last + 1):
        for c in range(K):
            out[c] += weights[s - first] * values[s, c]
    for c in range(K):
        out[c] /= total


@vectorised
def attention_block(  # type: ignore[no-untyped-def]
    x, norm, eps, wqkv, wout, keys, values, rows, positions, window, qk_eps, cos, sin
):
    """x (n, D) += attention of row rows[b] of keys and values (R, H, capacity, K), to which its own
    are written, at positions[b]. window -1 = all; qk_eps < 0 = queries and keys are not normalised;
    cos, sin (capacity, half the rotary width)."""
    n, H, K = x.shape[0], keys.shape[1], keys.shape[3]
    D = H * K
    qkv = np.empty((n, 3 * D), x.dtype)
    product(wqkv, normed(x, norm, eps), qkv)
    mixed = np.empty((n, D), x.dtype)
    for b in range(n):
        row, t = rows[b], positions[b]
        first = max(0, t - window) if window >= 0 else 0
        for h in range(H):
            at = slice(h * K, h * K + K)
            q, k, v = qkv[b, :D][at], qkv[b, D : 2 * D][at], qkv[b, 2 * D :][at]
            _turn(q, qk_eps, cos[t], sin[t])
            _turn(k, qk_eps, cos[t], sin[t])
            keys[row, h, t, :] = k
            values[row, h, t, :] = v
            _read(q, keys[row, h], values[row, h], first, t, mixed[b, at])
    add_product(wout, mixed, x)


@vectorised
def _convolve(new, tail, conv, bias, out):  # type: ignore[no-untyped-def]
    """silu of the convolution (K, C) over the tail (K-1, C) and the new inputs; moves the tail."""
    taps = conv.shape[0]
    for c in range(new.shape[0]):
        out[c] = bias[c] + conv[taps - 1, c] * new[c]
    for k in range(taps - 1):
        for c in range(new.shape[0]):
            out[c] += conv[k, c] * tail[k, c]
            tail[k, c] = tail[k + 1, c] if k + 2 < taps else new[c]
    for c in range(new.shape[0]):
        out[c] *= sigmoid(out[c])


@vectorised
def conv_block(x, norm, eps, conv, bias, tails, rows):  # type: ignore[no-untyped-def]
    """x (n, D) += short convolution of row rows[b] of tails (R, K-1, D), which move on."""
    new, out = normed(x, norm, eps), np.empty(x.shape[1], x.dtype)
    for b in range(x.shape[0]):
        _convolve(new[b], tails[rows[b]], conv, bias, out)
        for c in range(x.shape[1]):
            x[b, c] += out[c]


@vectorised
def _recur(x, steps, A, B, C, ssm, y):  # type: ignore[no-untyped-def]
    """The state (G, N, channels of a group) after one more position, and what it reads: y."""
    G, N, width = ssm.shape
    P = x.shape[0] // A.shape[0]
    decay, gained = np.empty_like(x), np.empty_like(x)
    for h in range(A.shape[0]):
        step = steps[h] if steps[h] > 20 else math.log1p(math.exp(steps[h]))  # softplus
        fade = math.exp(step * A[h])
        for c in range(h * P, h * P + P):
            decay[c], gained[c] = fade, step * x[c]
    y[:] = 0
    for g in range(G):
        at = slice(g * width, g * width + width)
        fade, new, read = decay[at], gained[at], y[at]
        for s in range(N):
            line, write, weight = ssm[g, s], B[g * N + s], C[g * N + s]
            for c in range(width):
                line[c] = line[c] * fade[c] + write * new[c]
                read[c] += weight * line[c]


@vectorised
def mamba_block(  # type: ignore[no-untyped-def]
    x, norm, eps, win, wout, conv, conv_bias, dt_bias, A, D, gate_norm, gate_eps, tails, ssms, rows
):
    """x (n, D) += Mamba-2 mixer of row rows[b] of tails (R, K-1, C) and ssms (R, G, N, channels of
    a group), which move on; D (inner) is the skip weight of each channel."""
    n, G, N, width = x.shape[0], ssms.shape[1], ssms.shape[2], ssms.shape[3]
    inner, shared = G * width, G * N
    channels = inner + 2 * shared
    projected = np.empty((n, win.shape[0]), x.dtype)
    product(win, normed(x, norm, eps), projected)
    y, mixed = np.empty((n, inner), x.dtype), np.empty(channels, x.dtype)
    for b in range(n):
        gate, new = projected[b, :inner], projected[b, inner : inner + channels]
        _convolve(new, tails[rows[b]], conv, conv_bias, mixed)
        u, B, C = mixed[:inner], mixed[inner : inner + shared], mixed[inner + shared :]
        _recur(u, projected[b, inner + channels :] + dt_bias, A, B, C, ssms[rows[b]], y[b])
        for c in range(inner):
            y[b, c] = (y[b, c] + D[c] * u[c]) * gate[c] * sigmoid(gate[c])
        for g in range(G):
            unit_rms(y[b, g * width : g * width + width], gate_eps)
        for c in range(inner):
            y[b, c] *= gate_norm[c]
    add_product(wout, y, x)
