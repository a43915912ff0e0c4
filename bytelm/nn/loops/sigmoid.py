"""exp and the logistic function in arithmetic that compilers turn into vector instructions.

A call to the C library's exp keeps a loop from being vectorised and takes most of its time. In
float32, exp(x) = 2^n exp(r) with |r| <= log(2) / 2 and a Taylor polynomial of degree 7 for exp(r),
whose error is below 1e-8; in float64, the one used for checks, it is the C library's.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_ONE, _HALF = np.float32(1), np.float32(0.5)
_LOG2E = np.float32(math.log2(math.e))
_LN2_HIGH = np.float32(0.693359375)  # 9 bits, so that n * _LN2_HIGH is exact
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LOW, _HIGH = np.float32(-87.0), np.float32(88.0)  # between them 2^n is a normal number
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))


@intrinsic
def _float_of_bits(typingctx, bits):
    """The float32 whose IEEE representation is an int32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


def exp(x):
    """e^x, for compiled functions only; float32 arguments are clamped to [-87, 88]."""
    raise NotImplementedError


@overload(exp, inline="always")
def _exp(x):
    if x == types.float32:
        return _exp_float32
    return lambda x: math.exp(x)


def _exp_float32(x):
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    n = np.floor(x * _LOG2E + _HALF)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = _C6 + r * _C7
    y = _C5 + r * y
    y = _C4 + r * y
    y = _C3 + r * y
    y = _C2 + r * y
    y = _ONE + r * (_ONE + r * y)
    return y * _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


def sigmoid(x):
    """1 / (1 + e^-x), for compiled functions only."""
    raise NotImplementedError


@overload(sigmoid, inline="always")
def _sigmoid(x):
    if x == types.float32:
        return lambda x: _ONE / (_ONE + exp(-x))
    return lambda x: 1.0 / (1.0 + math.exp(-x))
