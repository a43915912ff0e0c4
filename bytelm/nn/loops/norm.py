"""RMSNorm and SwiGLU, forward and backward, over rows.

Arrays are flat, with a stride from one row to the next, so that parts of wider rows need no copy.
Each function works on rows [start, stop); sums over rows go into row `part` of an array of partial
sums.
"""

import numpy as np

from bytelm.compiled import vectorised
from bytelm.nn.loops.sigmoid import sigmoid


@vectorised
def rms_norm(part, start, stop, x, x_stride, weight, eps, scale, out):
    """out = x * scale * weight with scale = 1 / sqrt(mean(x^2) + eps)."""
    D = weight.size
    for i in range(start, stop):
        row = x[i * x_stride : i * x_stride + D]
        y = out[i * D : i * D + D]
        total = eps - eps
        for j in range(D):
            total += row[j] * row[j]
        s = 1 / np.sqrt(total / D + eps)
        s = weight.dtype.type(s)
        scale[i] = s
        for j in range(D):
            y[j] = row[j] * s * weight[j]


@vectorised
def rms_norm_backward(
    part, start, stop, grad, grad_stride, x, x_stride, weight, scale, grad_x, grad_weight
):
    """grad_x = scale * (g - n * mean(g * n)) with n = x * scale and g = grad * weight."""
    D = weight.size
    sums = grad_weight[part]
    for i in range(start, stop):
        g, row = grad[i * grad_stride : i * grad_stride + D], x[i * x_stride : i * x_stride + D]
        out = grad_x[i * D : i * D + D]
        s = scale[i]
        along = s - s
        for j in range(D):
            along += g[j] * weight[j] * row[j]
        along = weight.dtype.type(along * s * s / D)
        for j in range(D):
            sums[j] += g[j] * row[j] * s
            out[j] = s * (g[j] * weight[j] - row[j] * along)


@vectorised
def swiglu(part, start, stop, h, h_stride, hidden, out):
    """out = value * gate * sigmoid(gate) for rows h = (value, gate)."""
    for i in range(start, stop):
        value = h[i * h_stride : i * h_stride + hidden]
        gate = h[i * h_stride + hidden : i * h_stride + 2 * hidden]
        y = out[i * hidden : i * hidden + hidden]
        for j in range(hidden):
            y[j] = value[j] * gate[j] * sigmoid(gate[j])


@vectorised
def swiglu_backward(part, start, stop, grad, grad_stride, h, h_stride, hidden, grad_h):
    """The gradients of value and gate, beside each other as in h."""
    for i in range(start, stop):
        g = grad[i * grad_stride : i * grad_stride + hidden]
        value = h[i * h_stride : i * h_stride + hidden]
        gate = h[i * h_stride + hidden : i * h_stride + 2 * hidden]
        out_value = grad_h[2 * i * hidden : 2 * i * hidden + hidden]
        out_gate = grad_h[2 * i * hidden + hidden : 2 * i * hidden + 2 * hidden]
        for j in range(hidden):
            s = sigmoid(gate[j])
            silu = gate[j] * s
            out_value[j] = g[j] * silu
            out_gate[j] = g[j] * value[j] * (s + silu - silu * s)
