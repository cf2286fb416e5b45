"""Cast, CastLike, BitCast: from any element type to any other."""

import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, Sym, TensorType, Value, dtype_of, numpy_dtype
from miniinfer_cli.ir.arrays import pack, unpack
from miniinfer_cli.ir.dims import Undecided
from miniinfer_cli.ir.quantization import FP8_LARGEST
from miniinfer_cli.ops import symbolic
from miniinfer_cli.ops.element_types import SUB_BYTE_INTEGERS
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code

_NOT_CAST = frozenset({DType.C64, DType.C128})


def infer_cast(x: TensorType, *, to: int, saturate: int = 1, round_mode: str = "up") -> TensorType:
    """The shape of ``x`` with the element type that ONNX numbers ``to``."""
    return _cast_type("Cast", x, dtype_of_code(to), round_mode)


def infer_cast_like(x: TensorType, target_type: TensorType, *, saturate: int = 1, round_mode: str = "up") -> TensorType:
    """The shape of ``x`` with the element type of ``target_type``."""
    return _cast_type("CastLike", x, target_type.dtype, round_mode)


def cast(x: Array, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    """``x`` converted to the element type that ONNX numbers ``to``. Source: ONNX Cast-28."""
    return convert(x, dtype_of_code(to), saturate=bool(saturate), round_mode=round_mode)


def cast_like(x: Array, target_type: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    """``x`` converted to the element type of ``target_type``. Source: ONNX CastLike-25."""
    return convert(x, dtype_of(target_type), saturate=bool(saturate), round_mode=round_mode)


def convert(x: Array, dtype: DType, *, saturate: bool = True, round_mode: str = "up") -> Array:
    """``x`` as an array of ``dtype``: floats round to nearest even, floats to integers toward zero, integers wrap.

    ``saturate`` bounds what leaves the range of an 8-bit float by its largest number instead of making it infinite or NaN;
    ``round_mode`` (up, down, nearest) is for f8e8m0 alone. Strings are read and written as decimal numbers; ModelError
    when one is not a number. An array of symbolic dimensions converts to integer types only; else Undecided is raised.
    """
    if x.dtype == object and any(isinstance(i, Sym) for i in x.flat):
        return _convert_dims(x, dtype)
    if x.dtype.kind in "OUST":
        if dtype is DType.STR:
            return x
        x = _from_strings(x, dtype)
    elif dtype is not DType.STR and x.dtype == numpy_dtype(dtype):
        return x
    x = _native(x)
    with np.errstate(all="ignore"):
        if dtype is DType.STR:
            # A truth value is the number 1 or 0, so that it can be read again; ONNX does not say, ONNX Runtime does so.
            # An f16 is written as the f32 that it is: the shortest digits that tell it from other f16 are another number.
            plain = x.view(np.int8) if x.dtype == np.bool_ else x.astype(np.float32) if x.dtype == np.float16 else x
            return np.asarray(plain.astype(np.str_), dtype=object)
        if dtype is DType.BOOL:
            return np.asarray(x != 0)
        if dtype is DType.F8E8M0:
            return to_f8e8m0(x, saturate=saturate, round_mode=round_mode)
        if dtype in SUB_BYTE_INTEGERS:
            x = x.astype(np.int64)  # ml_dtypes takes the low bits of integers only
        if dtype in FP8_LARGEST and saturate:
            x = np.clip(x.astype(np.float32), -FP8_LARGEST[dtype], FP8_LARGEST[dtype])
        return np.asarray(x).astype(numpy_dtype(dtype))


def to_f8e8m0(x: Array, *, saturate: bool = True, round_mode: str = "up") -> Array:
    """The magnitude of ``x`` as a power of two between 2^-127 and 2^127, rounded ``up``, ``down``, or to the ``nearest``.

    NaN stays NaN. What is out of range goes to the nearest end, or to NaN without ``saturate``. Source: ONNX Cast-28.
    """
    mantissa, exponent = np.frexp(np.abs(x.astype(np.float64)))  # magnitude = mantissa * 2^exponent, 0.5 <= mantissa < 1
    power = exponent.astype(np.int64) - 1
    if round_mode == "up":
        power += mantissa > 0.5
    elif round_mode == "nearest":
        power += mantissa >= 0.75
    infinite = np.isinf(mantissa)
    power = np.where(mantissa == 0, -128, np.where(infinite, 128, power))
    code = np.clip(power, -127, 127) + 127
    invalid = np.isnan(mantissa)
    if not saturate:
        invalid |= np.abs(power) > 127
    return np.asarray(np.where(invalid, 255, code)).astype(np.uint8).view(numpy_dtype(DType.F8E8M0))


def infer_bit_cast(x: TensorType, *, to: int) -> TensorType:
    """The shape of ``x`` with an element type of as many bits."""
    dtype = dtype_of_code(to)
    if dtype is DType.STR or dtype.bits != x.dtype.bits:
        raise ModelError(f"BitCast of {x} to {dtype}: the element types differ in width")
    return TensorType(dtype, x.shape)


def bit_cast(x: Array, *, to: int) -> Array:
    """The same bits under another element type. Source: ONNX BitCast-26."""
    dtype = dtype_of_code(to)
    if dtype.bits < 8:
        return unpack(pack(x, dtype_of(x)), dtype, x.shape)
    return np.asarray(np.ascontiguousarray(x).view(numpy_dtype(dtype))).reshape(x.shape)


def expand_cast_like(graph: Graph, node: Node) -> tuple[Value, ...]:
    """Cast to the type that the second operand is known to have."""
    build = Expansion(graph, node)
    return (build.op("Cast", build.required(0), **node.attrs, to=code_of_dtype(build.required(1).tensor.dtype)),)


def _cast_type(op: str, x: TensorType, dtype: DType, round_mode: str) -> TensorType:
    if {x.dtype, dtype} & _NOT_CAST:
        raise ModelError(f"{op} of {x} to {dtype}: complex numbers are not converted")
    if round_mode not in ("up", "down", "nearest"):
        raise ModelError(f"{op} round_mode is {round_mode!r}, expected 'up', 'down' or 'nearest'")
    return TensorType(dtype, x.shape)


def _convert_dims(x: Array, dtype: DType) -> Array:
    """Integers hold every size; as a float, a size would not be told from an integer by the next division."""
    if dtype is DType.BOOL:
        return np.asarray(symbolic.equal(x, 0) == np.False_)
    if dtype.is_integer:
        return x
    raise Undecided(f"sizes as {dtype}")


def _native(x: Array) -> Array:
    """``x`` in a type of numpy's own that holds it exactly: ml_dtypes' types do not all convert to one another."""
    if is_half(x) and x.dtype != np.float16:
        return x.astype(np.float32)
    return x if x.dtype.kind in "biuf" else x.astype(np.int8)


def _from_strings(x: Array, dtype: DType) -> Array:
    """The numbers that strings spell: 64-bit integers (the low bits of what is larger) or f64, as ``dtype`` needs them."""
    read = _read_integer if dtype.is_integer else _read_float
    numbers = [read(str(s)) for s in x.reshape(-1)]
    return np.array(numbers, np.uint64 if dtype.is_integer else np.float64).reshape(x.shape)


def _read_float(text: str) -> float:
    try:
        return float(_without_separators(text))
    except ValueError:
        raise ModelError(f"Cast: the string {text!r} is not a number") from None


def _without_separators(text: str) -> str:
    """``text``; ValueError where it has Python's own separators of digits."""
    if "_" in text:
        raise ValueError(text)
    return text


def _read_integer(text: str) -> int:
    try:
        return int(_without_separators(text)) % (1 << 64)
    except ValueError:
        number = _read_float(text)
    if not math.isfinite(number):
        raise ModelError(f"Cast: the string {text!r} is not an integer")
    return int(number) % (1 << 64)


CAST = define("Cast", infer=infer_cast, reference=cast, pointwise=True, symbolic=True)
CAST_LIKE = define("CastLike", infer=infer_cast_like, reference=cast_like, expand=expand_cast_like)
BIT_CAST = define("BitCast", infer=infer_bit_cast, reference=bit_cast, pointwise=True)
