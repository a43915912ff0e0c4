"""What surrounds the matrix products of mixers: normalised rotated queries and keys, the short
convolution with SiLU, and Mamba-2's gated norm. Conventions as in `loops/norm.py`.
"""

import numpy as np

from bytelm.compiled import vectorised
from bytelm.nn.loops.sigmoid import sigmoid


@vectorised
def heads(
    part, start, stop, qkv, stride, K, cos, sin, places, eps, norm, q, k, v, scales
):  # fmt: skip
    """q, k (rows, H, K) from qkv (rows, 3, H, K): unit RMS if `norm`, then rotated by the angles of
    row places[i] of cos and sin (positions, r/2); v is copied. scales (rows, 2 H)."""
    half = cos.shape[1]
    D = q.size // places.size
    H = D // K
    for i in range(start, stop):
        c, s = cos[places[i]], sin[places[i]]
        for h in range(2 * H):
            row = qkv[i * stride + h * K : i * stride + h * K + K]
            at = i * D + (h % H) * K
            out = q[at : at + K] if h < H else k[at : at + K]
            scale = eps / eps
            if norm:
                total = eps - eps
                for j in range(K):
                    total += row[j] * row[j]
                scale = qkv.dtype.type(1 / np.sqrt(total / K + eps))
            scales[2 * i * H + h] = scale
            for j in range(half):
                a, b = row[j] * scale, row[j + half] * scale
                out[j] = a * c[j] - b * s[j]
                out[j + half] = b * c[j] + a * s[j]
            for j in range(2 * half, K):
                out[j] = row[j] * scale
        values = qkv[i * stride + 2 * D : i * stride + 3 * D]
        for j in range(D):
            v[i * D + j] = values[j]


@vectorised
def heads_backward(
    part, start, stop, gq, gq_stride, gk, gk_stride, gv, gv_stride, qkv, stride, K, cos, sin,
    places, norm, scales, grad,
):  # fmt: skip
    """The gradient of qkv: rotated back, then through the norm of each head."""
    half = cos.shape[1]
    D = grad.size // (3 * places.size)
    H = D // K
    for i in range(start, stop):
        c, s = cos[places[i]], sin[places[i]]
        for h in range(2 * H):
            row = qkv[i * stride + h * K : i * stride + h * K + K]
            at = (h % H) * K
            if h < H:
                g = gq[i * gq_stride + at : i * gq_stride + at + K]
            else:
                g = gk[i * gk_stride + at : i * gk_stride + at + K]
            out = grad[3 * i * D + h * K : 3 * i * D + h * K + K]
            for j in range(half):
                a, b = g[j], g[j + half]
                out[j] = a * c[j] + b * s[j]
                out[j + half] = b * c[j] - a * s[j]
            for j in range(2 * half, K):
                out[j] = g[j]
            if norm:
                scale = scales[2 * i * H + h]
                along = scale - scale
                for j in range(K):
                    along += out[j] * row[j]
                along = qkv.dtype.type(along * scale * scale / K)
                for j in range(K):
                    out[j] = scale * (out[j] - row[j] * along)
        values = grad[3 * i * D + 2 * D : 3 * i * D + 3 * D]
        for j in range(D):
            values[j] = gv[i * gv_stride + j]


@vectorised
def conv_silu(part, start, stop, u, stride, L, documents, weight, bias, out):
    """out[t] = silu(bias + sum over k of weight[k] u[t - k]) within a document; weight (K, C)."""
    K, C = weight.shape
    for i in range(start, stop):
        y = out[i * C : i * C + C]
        for j in range(C):
            y[j] = bias[j]
        for k in range(min(K, i % L + 1)):
            if documents.size and documents[i - k] != documents[i]:
                continue
            row, w = u[(i - k) * stride : (i - k) * stride + C], weight[k]
            for j in range(C):
                y[j] += w[j] * row[j]
        for j in range(C):
            y[j] = y[j] * sigmoid(y[j])


@vectorised
def conv_silu_backward_outer(
    part, start, stop, grad, grad_stride, u, stride, L, documents, weight, bias, inner, grad_weight
):
    """inner = the gradient in front of SiLU; sums (parts, K + 1, C) of those of weight and bias."""
    K, C = weight.shape
    for i in range(start, stop):
        g, y = grad[i * grad_stride : i * grad_stride + C], inner[i * C : i * C + C]
        for j in range(C):
            y[j] = bias[j]
        for k in range(min(K, i % L + 1)):
            if documents.size and documents[i - k] != documents[i]:
                continue
            row, w = u[(i - k) * stride : (i - k) * stride + C], weight[k]
            for j in range(C):
                y[j] += w[j] * row[j]
        sums = grad_weight[part, K]
        for j in range(C):
            s = sigmoid(y[j])
            y[j] = g[j] * (s + y[j] * s - y[j] * s * s)
            sums[j] += y[j]
        for k in range(min(K, i % L + 1)):
            if documents.size and documents[i - k] != documents[i]:
                continue
            row, sums = u[(i - k) * stride : (i - k) * stride + C], grad_weight[part, k]
            for j in range(C):
                sums[j] += y[j] * row[j]


@vectorised
def conv_silu_backward_input(part, start, stop, inner, L, documents, weight, grad_u):
    """grad_u[t] = sum over k of weight[k] inner[t + k] within a document."""
    K, C = weight.shape
    for i in range(start, stop):
        y, w, row = grad_u[i * C : i * C + C], weight[0], inner[i * C : i * C + C]
        for j in range(C):
            y[j] = w[j] * row[j]
        for k in range(1, min(K, L - i % L)):
            if documents.size and documents[i + k] != documents[i]:
                continue
            row, w = inner[(i + k) * C : (i + k) * C + C], weight[k]
            for j in range(C):
                y[j] += w[j] * row[j]


@vectorised
def gated_norm(
    part, start, stop, y, y_stride, x, x_stride, D, z, z_stride, weight, eps, scale, out
):
    """out = t * scale * weight, t = (y + D x) silu(z), scale = 1 / sqrt(mean(t^2) + eps)."""
    W = weight.size
    for i in range(start, stop):
        a, b = y[i * y_stride : i * y_stride + W], x[i * x_stride : i * x_stride + W]
        c, t = z[i * z_stride : i * z_stride + W], out[i * W : i * W + W]
        total = eps - eps
        for j in range(W):
            t[j] = (a[j] + D[j] * b[j]) * c[j] * sigmoid(c[j])
            total += t[j] * t[j]
        s = weight.dtype.type(1 / np.sqrt(total / W + eps))
        scale[i] = s
        for j in range(W):
            t[j] = t[j] * s * weight[j]


@vectorised
def gated_norm_backward(
    part, start, stop, grad, grad_stride, y, y_stride, x, x_stride, D, z, z_stride, weight, scale,
    grad_y, grad_x, grad_z, sums,
):  # fmt: skip
    """The gradients of y, x, z; sums (parts, 2, W) of those of D and of the weight."""
    W = weight.size
    of_D, of_weight = sums[part, 0], sums[part, 1]
    for i in range(start, stop):
        a, b = y[i * y_stride : i * y_stride + W], x[i * x_stride : i * x_stride + W]
        c, g = z[i * z_stride : i * z_stride + W], grad[i * grad_stride : i * grad_stride + W]
        out_y, out_x = grad_y[i * W : i * W + W], grad_x[i * W : i * W + W]
        out_z = grad_z[i * W : i * W + W]
        s = scale[i]
        along = s - s
        for j in range(W):
            share = sigmoid(c[j])
            out_z[j] = share
            t = (a[j] + D[j] * b[j]) * c[j] * share
            out_y[j] = t
            along += g[j] * weight[j] * t
            of_weight[j] += g[j] * t * s
        along = weight.dtype.type(along * s * s / W)
        for j in range(W):
            share = out_z[j]
            dt = s * (g[j] * weight[j] - out_y[j] * along)
            silu = c[j] * share
            dy = dt * silu
            out_y[j] = dy
            out_x[j] = dy * D[j]
            of_D[j] += dy * b[j]
            out_z[j] = dt * (a[j] + D[j] * b[j]) * (share + silu - silu * share)
