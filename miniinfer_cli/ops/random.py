"""Operations that draw random numbers. With a ``seed`` each call draws the same ones, by numpy's legacy generator."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType, dtype_of, numpy_dtype
from miniinfer_cli.ops.element_types import BOOL, FLOATS, FP8, NUMBERS, dtype_names, expect_dtype
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank
from miniinfer_cli.ops.type_codes import dtype_of_code

_F32 = 1
_I32 = 6


def infer_random(*, shape: Sequence[int], dtype: int = _F32) -> TensorType:
    """``shape`` and ``dtype`` as given."""
    return TensorType(_result_type("RandomNormal or RandomUniform", dtype, FLOATS), tuple(int(n) for n in shape))


def infer_random_like(x: TensorType, *, dtype: int | None = None) -> TensorType:
    """The shape of ``x``, and its element type unless ``dtype`` is given."""
    return TensorType(_result_type("A random tensor", dtype, FLOATS, x.dtype), x.shape)


def random_normal(
    *, shape: Sequence[int], dtype: int = _F32, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """Normally distributed numbers. Source: ONNX RandomNormal-22."""
    return np.asarray(_generator(seed).normal(mean, scale, tuple(shape))).astype(numpy_dtype(dtype_of_code(dtype)))


def random_normal_like(
    x: Array, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """Normally distributed numbers in the shape of ``x``. Source: ONNX RandomNormalLike-22."""
    return np.asarray(_generator(seed).normal(mean, scale, x.shape)).astype(_numpy_type(dtype, x))


def random_uniform(
    *, shape: Sequence[int], dtype: int = _F32, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Array:
    """Numbers from [low, high), all equally likely. Source: ONNX RandomUniform-22."""
    return np.asarray(_generator(seed).uniform(low, high, tuple(shape))).astype(numpy_dtype(dtype_of_code(dtype)))


def random_uniform_like(
    x: Array, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Array:
    """Numbers from [low, high) in the shape of ``x``. Source: ONNX RandomUniformLike-22."""
    return np.asarray(_generator(seed).uniform(low, high, x.shape)).astype(_numpy_type(dtype, x))


def infer_bernoulli(x: TensorType, *, dtype: int | None = None) -> TensorType:
    """The shape of ``x``, and its element type unless ``dtype`` is given."""
    expect_dtype("Bernoulli", x, FLOATS)
    return TensorType(_result_type("Bernoulli", dtype, NUMBERS | BOOL, x.dtype), x.shape)


def bernoulli(x: Array, *, dtype: int | None = None, seed: float | None = None) -> Array:
    """1 with probability ``x``, else 0. Source: ONNX Bernoulli-22."""
    drawn = _generator(seed).uniform(size=x.shape) < x.astype(np.float64)
    return np.asarray(drawn).astype(_numpy_type(dtype, x))


def infer_multinomial(x: TensorType, *, dtype: int = _I32, sample_size: int = 1) -> TensorType:
    """[batch, sample_size] indices for log-probabilities [batch, classes]."""
    expect_dtype("Multinomial", x, FLOATS)
    expect_rank("Multinomial", x, 2)
    batch = (x.shape[0], sample_size) if x.shape is not None else None
    return TensorType(_result_type("Multinomial", dtype, frozenset({DType.I32, DType.I64})), batch)


def multinomial(x: Array, *, dtype: int = _I32, sample_size: int = 1, seed: float | None = None) -> Array:
    """Indices of classes, drawn with the probabilities whose unnormalised logarithms ``x`` has. Source: ONNX Multinomial-22."""
    logits = x.astype(np.float64)
    batch, classes = logits.shape
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    ends = np.cumsum(weights, axis=1)
    ends /= ends[:, -1:]
    drawn = _generator(seed).uniform(size=(batch, sample_size))
    # One search serves all rows: row i looks within [i, i + 1).
    row = np.arange(batch)[:, None]
    index = np.searchsorted((ends + row).reshape(-1), drawn + row, side="right") - row * classes
    result: Array = np.minimum(index, classes - 1).astype(numpy_dtype(dtype_of_code(dtype)))
    return result


def infer_dropout(
    x: TensorType, ratio: TensorType | None = None, training_mode: TensorType | None = None, *, n_outputs: int
) -> tuple[TensorType, ...]:
    """The type of ``x``, and a mask of its shape."""
    expect_dtype("Dropout", x, FLOATS | FP8)
    expect_dtype("Dropout", ratio, FLOATS | FP8)
    expect_dtype("Dropout", training_mode, BOOL)
    return (TensorType(x.dtype, x.shape), TensorType(DType.BOOL, x.shape))[:n_outputs]


def dropout(
    x: Array, ratio: Array | None = None, training_mode: Array | None = None, *, seed: int | None = None, n_outputs: int
) -> tuple[Array, ...]:
    """``x`` as it is; in training mode a share of about ``ratio`` set to 0 and the rest scaled up. Source: ONNX Dropout-22."""
    share = 0.5 if ratio is None else float(ratio.reshape(()))
    if training_mode is None or not training_mode.reshape(()) or share == 0:
        return (x, np.ones(x.shape, np.bool_))[:n_outputs]
    kept = np.asarray(_generator(seed).uniform(size=x.shape) >= share)
    wide = x if x.dtype.itemsize > 2 else x.astype(np.float32)
    return (np.asarray(kept * wide * (1 / (1 - share))).astype(x.dtype), kept)[:n_outputs]


def _generator(seed: float | None) -> "np.random.RandomState":  # quoted: numpy imports it when it is first named
    """The generator that ONNX's own test data comes from; seeded by the system when ``seed`` is None."""
    return np.random.RandomState(None if seed is None else int(seed) % (1 << 32))


def _numpy_type(dtype: int | None, x: Array) -> np.dtype[np.generic]:
    return numpy_dtype(dtype_of(x) if dtype is None else dtype_of_code(dtype))


def _result_type(op: str, code: int | None, allowed: frozenset[DType], default: DType = DType.F32) -> DType:
    dtype = default if code is None else dtype_of_code(code)
    if dtype not in allowed:
        raise ModelError(f"{op} of {dtype} is not possible, only of {dtype_names(allowed)}", hint="set dtype")
    return dtype


BERNOULLI = define("Bernoulli", infer=infer_bernoulli, reference=bernoulli, random=True)
DROPOUT = define("Dropout", infer=infer_dropout, reference=dropout, random=True)
MULTINOMIAL = define("Multinomial", infer=infer_multinomial, reference=multinomial, random=True)
RANDOM_NORMAL = define("RandomNormal", infer=infer_random, reference=random_normal, random=True)
RANDOM_NORMAL_LIKE = define("RandomNormalLike", infer=infer_random_like, reference=random_normal_like, random=True)
RANDOM_UNIFORM = define("RandomUniform", infer=infer_random, reference=random_uniform, random=True)
RANDOM_UNIFORM_LIKE = define("RandomUniformLike", infer=infer_random_like, reference=random_uniform_like, random=True)
