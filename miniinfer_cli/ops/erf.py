"""The error function in numpy, block by block so that the intermediate results of a polynomial stay in the cache.

The coefficients are relative minimax fits made for this file in 50-digit arithmetic (iterated weighted least squares on
polynomials and quotients of polynomials); the error of each fit is given beside it.
"""

import numpy as np

from miniinfer_cli.ir import Array

_BLOCK = 1 << 17  # elements: with less, threads wait for the interpreter more than they gain from the second-level cache
_SIGN = np.int32(-(1 << 31))
_ZERO = np.float32(0)
_ONE = np.float32(1).view(np.int32)

# erf(x) = x + x * P(x^2) up to 1: error 1.1e-9 of the result.
_SMALL_F32 = (
    0.128379165913, -0.37612627135, 0.112836001649, -0.0268544441063, 0.00518953440028, -0.000802083290581,
    7.88909155875e-5,
)  # fmt: skip
# erf(x) = 1 - exp(P(x)) from 1 to 3.925, from where erf is 1 in f32: error 1.1e-9.
_LIMIT_F32 = 3.925
_LARGE_F32 = (
    -0.000353531033543, -1.12704092523, -0.638224020523, -0.103038944317, 0.0218061314405, -0.00293982462893,
    0.000185597609569,
)  # fmt: skip

# erf(x) = x * P(x^2) / Q(x^2) up to 1: relative error 7e-19.
_P64 = (
    1.1283791670955125747, 0.1435066823201644539, 0.045483615848702179584, 0.0018774119327195656543,
    0.00019688476626997519444, 7.7718876101383348036e-8,
)  # fmt: skip
_Q64 = (
    1.0, 0.46051281918785852227, 0.093813078094681626741, 0.010693080927365330918, 0.00069249838309120969497,
    0.000020810265048196484346,
)  # fmt: skip
# erf(x) = 1 - exp(-x^2) * P(x) / Q(x) from 1 to 6, from where erf is 1 in f64: relative error of the product 2e-18.
_LIMIT_F64 = 6.0
_P64_TAIL = (
    0.99999999222483971753, 1.8455241360137823582, 1.6796024590370929618, 0.94651475132894503211,
    0.35333119066289428812, 0.087402829559058898753, 0.013394784613086288273, 0.0010095346812659173673,
)  # fmt: skip
_Q64_TAIL = (
    1.0, 2.9739032183268814857, 4.035293340611767093, 3.2782037463676125687, 1.7542253075068057585,
    0.6381334778099864432, 0.15581218932345814384, 0.023741636527175439069, 0.0017893536502446966452,
)  # fmt: skip


def erf(x: Array) -> Array:
    """erf(x) of an f32 or f64 array, within 1e-7 or 1e-15."""
    out = np.empty(x.shape, x.dtype)
    erf_into(x, out)
    return out


def erf_into(x: Array, out: Array) -> None:
    """Writes erf(x) into ``out``, of the same shape and type (f32 or f64), which may be the memory of ``x``."""
    source = x.reshape(-1)
    target = out.reshape(-1)  # a copy, unless contiguous
    into = _erf_f32_into if x.dtype == np.float32 else _erf_f64_into
    scratch = np.empty((4, min(_BLOCK, max(source.size, 1))), x.dtype)
    with np.errstate(all="ignore"):  # at infinity the half of the formula that is not taken gives NaN
        for start in range(0, source.size, _BLOCK):
            block = source[start : start + _BLOCK]
            into(block, target[start : start + _BLOCK], scratch[:, : block.size])
    if not out.flags.c_contiguous:
        np.copyto(out, target.reshape(out.shape))


def _erf_f32_into(x: Array, out: Array, scratch: Array) -> None:
    size, square, small, large = scratch
    np.abs(x, out=size)
    size.clip(_ZERO, np.float32(_LIMIT_F32), out=size)  # a third of what the minimum takes
    _polynomial_into(_LARGE_F32, size, large)
    np.exp(large, out=large)
    np.subtract(np.float32(1), large, out=large)
    # The sign and the choice between the two halves are made on the bits, at a third of what copysign and a masked
    # copy cost. Non-negative floats (and NaN) are ordered as their bits are: the difference is negative above 1.
    size_bits, small_bits, large_bits = size.view(np.int32), small.view(np.int32), large.view(np.int32)
    np.bitwise_and(x.view(np.int32), _SIGN, out=small_bits)
    large_bits |= small_bits
    np.multiply(size, size, out=square)
    np.subtract(_ONE, size_bits, out=size_bits)
    above_1 = np.right_shift(size_bits, 31, out=size_bits)
    _polynomial_into(_SMALL_F32, square, small)
    small *= x
    small += x
    large_bits ^= small_bits
    large_bits &= above_1
    np.bitwise_xor(large_bits, small_bits, out=out.view(np.int32))


def _erf_f64_into(x: Array, out: Array, scratch: Array) -> None:
    work, top, bottom, _ = scratch
    np.abs(x, out=work)
    tail = work > 1
    if tail.any():
        large = np.minimum(work[tail], _LIMIT_F64)
        tail_top, tail_bottom = np.empty_like(large), np.empty_like(large)
        _polynomial_into(_P64_TAIL, large, tail_top)
        _polynomial_into(_Q64_TAIL, large, tail_bottom)
        large = np.copysign(1 - np.exp(-large * large) * (tail_top / tail_bottom), x[tail])
    np.minimum(work, 1, out=work)
    work *= work
    _polynomial_into(_P64, work, top)
    _polynomial_into(_Q64, work, bottom)
    top /= bottom
    np.multiply(x, top, out=out)
    if tail.any():
        out[tail] = large


def _polynomial_into(coefficients: tuple[float, ...], x: Array, out: Array) -> None:
    """Writes the polynomial with these coefficients, lowest power first, into ``out``."""
    kind = x.dtype.type
    np.multiply(x, kind(coefficients[-1]), out=out)
    for coefficient in coefficients[-2:0:-1]:
        out += kind(coefficient)
        out *= x
    out += kind(coefficients[0])
