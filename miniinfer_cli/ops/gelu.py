"""Gelu as a quotient, x / (1 + exp(-x Q(x^2))): one exponential, and half the time that the error function takes.

x Q(x^2) is the logarithm of Phi(x) / Phi(-x), where Phi is the normal distribution: Q is even and smooth, and nothing is a
difference of numbers that are nearly equal, so that the tail of negative x keeps its digits too.
"""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.erf import erf_into

# A fit made for this file by linear programming on Chebyshev polynomials, lowest power of x^2 first: Phi within 1.4e-8 up to
# 5.2, from where Q stays as it is there, since Phi is 1 or 0 to within 1e-7.
_LIMIT = np.float32(5.2**2)
_PHI_F32 = (
    1.595769501, 0.07266852997, -6.896751751e-05, -0.0001081820322, 7.180952774e-06, -1.457157838e-07, -6.291984974e-09,
    3.9321107e-10, -5.958652282e-12,
)  # fmt: skip
# ONNX's formula in tanh is such a quotient by itself: (1 + tanh(u)) / 2 is 1 / (1 + exp(-2 u)).
_TANH = (2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715)


def gelu_into(x: Array, out: Array, square: Array, inner: Array, *, tanh: bool = False) -> None:
    """Writes Gelu of an f32 or f64 array into ``out``, which may be ``x``; ``square`` and ``inner`` are like it, and overwritten.

    ``tanh``: by ONNX's formula in tanh. Within 1.5e-7 |x| in f32, of either. Source: ONNX Gelu-20.
    """
    kind = x.dtype.type
    if not tanh and x.dtype != np.float32:
        np.multiply(x, kind(math.sqrt(0.5)), out=inner)
        erf_into(inner, inner)
        inner += kind(1)
        inner *= kind(0.5)
        np.multiply(x, inner, out=out)
        return
    np.multiply(x, x, out=square)
    if not tanh:
        square.clip(kind(0), _LIMIT, out=square)  # a third of what the minimum takes
    _negated_polynomial_into(_TANH if tanh else _PHI_F32, square, inner)
    inner *= x
    np.exp(inner, out=inner)
    inner += kind(1)
    np.divide(x, inner, out=out)


def _negated_polynomial_into(coefficients: Sequence[float], x: Array, out: Array) -> None:
    """Writes the negative of the polynomial with these coefficients, lowest power first, into ``out``."""
    kind = x.dtype.type
    np.multiply(x, kind(-coefficients[-1]), out=out)
    for coefficient in coefficients[-2:0:-1]:
        out -= kind(coefficient)
        out *= x
    out -= kind(coefficients[0])
