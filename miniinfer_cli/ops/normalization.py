"""Normalizations by channel: BatchNormalization, InstanceNormalization, GroupNormalization, MeanVarianceNormalization."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Graph, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import numerics
from miniinfer_cli.ops.element_types import FLOATS, REAL, same_dtype
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes, same_dim
from miniinfer_cli.ops.type_codes import dtype_of_code, float_of_code


def infer_batch_normalization(
    x: TensorType,
    scale: TensorType,
    b: TensorType,
    input_mean: TensorType,
    input_var: TensorType,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """Y like ``x``; in training mode also the running mean and variance of shape [C]."""
    if n_outputs > 1 and not training_mode:
        raise ModelError(f"BatchNormalization has {n_outputs} outputs, expected 1 when training_mode is 0")
    channels: Dim | None = None if x.shape is None else x.shape[1] if len(x.shape) > 1 else 1
    for name, operand in (("scale", scale), ("B", b), ("input_mean", input_mean), ("input_var", input_var)):
        channels = _channel_vector("BatchNormalization", name, operand, channels)
    running = TensorType(input_mean.dtype, None if channels is None else (channels,))
    return (TensorType(x.dtype, x.shape), running, running)[:n_outputs]


def batch_normalization(
    x: Array,
    scale: Array,
    b: Array,
    input_mean: Array,
    input_var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """(x - mean) / sqrt(var + epsilon) * scale + b for each channel, axis 1. Source: ONNX BatchNormalization-15."""
    wide, scale_, b_, mean, var = (_wide(v) for v in (x, scale, b, input_mean, input_var))
    running: tuple[Array, ...] = ()
    if training_mode:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        now_mean = numerics.mean(wide, axes, keep=False)
        now_var = numerics.mean(np.square(wide - _by_channel(now_mean, x.ndim)), axes, keep=False)
        running = (
            (mean * momentum + now_mean * (1 - momentum)).astype(input_mean.dtype),
            (var * momentum + now_var * (1 - momentum)).astype(input_var.dtype),
        )
        mean, var = now_mean, now_var
    factor = scale_ / np.sqrt(var + mean.dtype.type(epsilon))
    y = wide * _by_channel(factor, x.ndim)
    y += _by_channel(b_ - mean * factor, x.ndim)
    return (y.astype(x.dtype, copy=False), *running)[:n_outputs]


def infer_instance_normalization(input: TensorType, scale: TensorType, b: TensorType, *, epsilon: float = 1e-5) -> TensorType:
    """Same type as ``input``, which is [N, C, spatial...]; all of one element type, unlike BatchNormalization's operands."""
    same_dtype("InstanceNormalization", input, scale, b)
    channels = _channels("InstanceNormalization", input)
    for name, operand in (("scale", scale), ("B", b)):
        channels = _channel_vector("InstanceNormalization", name, operand, channels)
    return TensorType(input.dtype, input.shape)


@widen_half
def instance_normalization(input: Array, scale: Array, b: Array, *, epsilon: float = 1e-5) -> Array:
    """(x - mean) / sqrt(var + epsilon) * scale + b, the statistics over the spatial axes of each sample and channel.

    Source: ONNX InstanceNormalization-22.
    """
    y = _standardize_groups(input, input.shape[1], epsilon)
    y *= _by_channel(scale, y.ndim)
    y += _by_channel(b, y.ndim)
    return y


def infer_group_normalization(
    x: TensorType, scale: TensorType, bias: TensorType, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> TensorType:
    """Same type as ``x``, which is [N, C, spatial...]; ``num_groups`` divides C."""
    float_of_code("GroupNormalization", "stash_type", stash_type)
    channels = _channels("GroupNormalization", x)
    for name, operand in (("scale", scale), ("bias", bias)):
        channels = _channel_vector("GroupNormalization", name, operand, channels)
    if num_groups < 1 or (isinstance(channels, int) and channels % num_groups):
        raise ModelError(f"GroupNormalization num_groups {num_groups} does not divide the {channels} channels of input {x}")
    return TensorType(x.dtype, x.shape)


def group_normalization(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, the statistics over each sample's group of channels.

    Source: ONNX GroupNormalization-21.
    """
    stash = numpy_dtype(dtype_of_code(stash_type))
    normal = _standardize_groups(x.astype(np.float32 if stash.itemsize < 4 else stash, copy=False), num_groups, epsilon)
    y = normal.astype(np.float32 if x.dtype.itemsize < 4 else x.dtype, copy=False)
    y *= _by_channel(_wide(scale), y.ndim)
    y += _by_channel(_wide(bias), y.ndim)
    return y.astype(x.dtype, copy=False)


def infer_mean_variance_normalization(x: TensorType, *, axes: Sequence[int] = (0, 2, 3)) -> TensorType:
    """Same type as ``x``."""
    if x.shape is not None:
        normal_axes("MeanVarianceNormalization", axes, x)
    return TensorType(x.dtype, x.shape)


@widen_half
def mean_variance_normalization(x: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """(x - mean) / (standard deviation + 1e-9) over ``axes``. Source: ONNX MeanVarianceNormalization-13."""
    if not x.size:
        return x.copy()
    y: Array = x - np.mean(x, axis=tuple(axes), keepdims=True)
    y /= np.sqrt(np.mean(y * y, axis=tuple(axes), keepdims=True)) + x.dtype.type(_MVN_EPSILON)
    return y


_MVN_EPSILON = 1e-9  # of the function body in ONNX's schema


def expand_batch_normalization(graph: Graph, node: Node) -> tuple[Value] | None:
    """Sub, Mul and Add with the vectors shaped for the channel axis; None in training mode."""
    at = Expansion(graph, node)
    x = at.required(0)
    if node.attrs.get("training_mode", 0) or x.tensor.rank is None:
        return None
    dtype = DType.F32 if x.tensor.dtype.is_half else x.tensor.dtype
    scale, b, mean, var = (at.cast(at.required(i), dtype) for i in range(1, 5))
    factor = at.op("Mul", scale, at.inverse_root(var, node.attrs.get("epsilon", 1e-5)))
    shape = at.integers([-1] + [1] * (x.tensor.rank - 2)) if x.tensor.rank > 1 else at.integers([-1])
    shift = at.op("Sub", b, at.op("Mul", mean, factor))
    y = at.op("Mul", at.cast(x, dtype), at.op("Reshape", factor, shape))
    return (at.cast(at.op("Add", y, at.op("Reshape", shift, shape)), x.tensor.dtype),)


def expand_instance_normalization(graph: Graph, node: Node) -> tuple[Value] | None:
    """ReduceMean, Sub, Mul ... over the spatial axes; None for an input of unknown rank."""
    at = Expansion(graph, node)
    x, scale, b = (at.widen(at.required(i)) for i in range(3))
    rank = x.tensor.rank
    if rank is None:
        return None
    y = _expanded_standardize(at, x, at.integers(range(2, rank)))
    shape = at.integers([-1] + [1] * (rank - 2))
    y = at.op("Add", at.op("Mul", y, at.op("Reshape", scale, shape)), at.op("Reshape", b, shape))
    return (at.cast(y, at.required(0).tensor.dtype),)


def expand_group_normalization(graph: Graph, node: Node) -> tuple[Value] | None:
    """Reshape to [N, groups, -1], standardize, reshape back, then the scale and the bias; None for an unknown rank."""
    at = Expansion(graph, node)
    x = at.required(0)
    if x.tensor.rank is None:
        return None
    dtype = DType.F32 if x.tensor.dtype.is_half else x.tensor.dtype
    wide = at.widen(at.cast(x, dtype_of_code(node.attrs.get("stash_type", 1))))
    grouped = at.op("Reshape", wide, at.integers([0, node.attrs["num_groups"], -1]))
    y = at.op("Reshape", _expanded_standardize(at, grouped, at.integers([2])), at.op("Shape", x))
    shape = at.integers([-1] + [1] * (x.tensor.rank - 2))
    scale, bias = (at.op("Reshape", at.cast(at.required(i), dtype), shape) for i in (1, 2))
    return (at.cast(at.op("Add", at.op("Mul", at.cast(y, dtype), scale), bias), x.tensor.dtype),)


def expand_mean_variance_normalization(graph: Graph, node: Node) -> tuple[Value]:
    """ReduceMean, Sub, Mul, ReduceMean, Sqrt, Add, Div."""
    at = Expansion(graph, node)
    x = at.widen(at.required(0))
    axes = at.integers(node.attrs.get("axes", (0, 2, 3)))
    centred = at.op("Sub", x, at.op("ReduceMean", x, axes, keepdims=1))
    deviation = at.op("Sqrt", at.op("ReduceMean", at.op("Mul", centred, centred), axes, keepdims=1))
    y = at.op("Div", centred, at.op("Add", deviation, at.scalar(_MVN_EPSILON, x.tensor.dtype)))
    return (at.cast(y, at.required(0).tensor.dtype),)


def _expanded_standardize(at: Expansion, x: Value, axes: Value) -> Value:
    centred = at.op("Sub", x, at.op("ReduceMean", x, axes, keepdims=1))
    variance = at.op("ReduceMean", at.op("Mul", centred, centred), axes, keepdims=1)
    return at.op("Mul", centred, at.inverse_root(variance, at.node.attrs.get("epsilon", 1e-5)))


def _standardize_groups(x: Array, groups: int, epsilon: float) -> Array:
    """Each sample's ``groups`` equal runs of channels with mean 0 and variance 1, in a new array."""
    if not x.size:
        return x.copy()
    rows = x.reshape(x.shape[0], groups, -1)
    y = rows - np.mean(rows, axis=2, keepdims=True)
    deviation = np.matmul(y[..., None, :], y[..., None])[..., 0]  # dot products: no temporary of squares
    deviation /= rows.shape[2]
    deviation += epsilon
    np.sqrt(deviation, out=deviation)
    y /= deviation
    result: Array = y.reshape(x.shape)
    return result


def _by_channel(vector: Array, rank: int) -> Array:
    return vector.reshape(-1, *(1,) * (rank - 2)) if rank > 1 else vector


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def _channels(op: str, x: TensorType) -> Dim | None:
    if x.shape is None:
        return None
    if len(x.shape) < 2:
        raise ModelError(f"{op} expects an input of rank 2 or more, got {x}")
    return x.shape[1]


def _channel_vector(op: str, name: str, operand: TensorType, channels: Dim | None) -> Dim | None:
    """The number of channels, which the vector ``operand`` must have if it is known."""
    if operand.shape is None:
        return channels
    if len(operand.shape) != 1:
        raise ModelError(f"{op} expects {name} of rank 1, got {operand}")
    return operand.shape[0] if channels is None else same_dim(op, f"size of {name} {operand}", channels, operand.shape[0])


BATCH_NORMALIZATION = define(
    "BatchNormalization",
    infer=infer_batch_normalization,
    reference=batch_normalization,
    takes=(FLOATS,) * 5,
    expand=expand_batch_normalization,
)
INSTANCE_NORMALIZATION = define(
    "InstanceNormalization",
    infer=infer_instance_normalization,
    reference=instance_normalization,
    takes=(FLOATS,) * 3,
    expand=expand_instance_normalization,
)
GROUP_NORMALIZATION = define(
    "GroupNormalization",
    infer=infer_group_normalization,
    reference=group_normalization,
    takes=(FLOATS,) * 3,
    expand=expand_group_normalization,
)
MEAN_VARIANCE_NORMALIZATION = define(
    "MeanVarianceNormalization",
    infer=infer_mean_variance_normalization,
    reference=mean_variance_normalization,
    takes=(REAL,),
    expand=expand_mean_variance_normalization,
)
