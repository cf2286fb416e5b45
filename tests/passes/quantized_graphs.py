"""Graphs of products between DequantizeLinear and QuantizeLinear, as quantizing tools write them, channels last."""

from typing import Any

import numpy as np

from miniinfer_cli.ir import DType, Graph, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import insert


def quantized_product(
    kind: str = "ConvNHWC", *, x_dtype: DType = DType.U8, w_dtype: DType = DType.I8, y_dtype: DType | None = None, taps: int = 3,
    residual: bool = False, activation: str = "", between: bool = False, bias: bool = True, per_channel: bool = True,
    zero: int = 0, group: int = 1, seed: int = 0, stride: int = 1, channels: int = 6, features: int = 4,
    symmetric: bool = False, side: int = 0, floats: bool = False, turned: bool = False,
) -> Graph:  # fmt: skip
    """x (and r where there is a ``residual``), of 8 bits, through one product to 8 bits or floats (``y_dtype`` None).

    ``between``: the product's result is quantized by itself before the residual is added. ``zero``: of x. ``symmetric``: the
    zero points of the weights are 0. ``side``: pixels along an axis of an image, of which there are as many rows of a matrix.
    ``floats``: the residual is of floats. ``turned``: images come channels first.
    """
    rng = np.random.default_rng(seed)
    graph = Graph("main")
    is_conv = kind == "ConvNHWC"
    rows = (2, side or 5, side or 5, channels) if is_conv else (2, side**2 or 7, channels)
    x = graph.add_input("x", TensorType(x_dtype, (rows[0], channels, *rows[1:3]) if turned else rows))
    x = insert(graph, "Transpose", x, perm=[0, 2, 3, 1]) if turned else x
    wide = insert(graph, "DequantizeLinear", x, *_numbers(graph, 0.02, zero, x_dtype))
    if kind == "two":
        other = graph.add_input("r", TensorType(w_dtype, (2, channels, features)))
        weights = insert(graph, "DequantizeLinear", other, *_numbers(graph, 0.03, 0 if w_dtype.is_float else 3, w_dtype))
        y = insert(graph, "MatMul", wide, weights)
    else:
        shape = (
            (features, taps, taps, channels // group)
            if is_conv
            else (features, channels)
            if kind == "Gemm"
            else (channels, features)
        )
        axis = 1 if kind == "MatMul" else 0
        stored = graph.add_constant(_any_of(w_dtype, shape, rng), "w")
        count = features if per_channel else ()
        scales = graph.add_constant(rng.uniform(0.01, 0.03, count).astype(np.float32), "w_scale")
        points = graph.add_constant(rng.integers(0, 1 if symmetric else 5, count).astype(numpy_dtype(w_dtype)), "w_zero")
        weights = insert(graph, "DequantizeLinear", stored, scales, points, axis=axis)
        row = graph.add_constant(rng.standard_normal(features).astype(np.float32), "b") if bias else None
        if is_conv:
            pads = [taps // 2] * 4
            attrs: dict[str, Any] = {"pads": pads, "strides": [stride] * 2, "group": group}
            y = insert(graph, "ConvNHWC", wide, weights, *([row] if bias else []), domain="miniinfer", **attrs)
        elif kind == "Gemm":
            flat = insert(graph, "Reshape", wide, graph.add_constant(np.array([-1, channels])))
            y = insert(graph, "Gemm", flat, weights, *([row] if bias else []), transB=1)
        else:
            y = insert(graph, "MatMul", wide, weights)
            y = insert(graph, "Add", y, row) if bias else y
    if between:
        numbers = _numbers(graph, 0.05, *((0, x_dtype) if x_dtype.is_float else (1, DType.I8)))
        y = insert(graph, "DequantizeLinear", insert(graph, "QuantizeLinear", y, *numbers), *numbers)
    if residual:
        of_added = x_dtype if x_dtype.is_float else DType.I8
        added = graph.add_input("added", TensorType(DType.F32 if floats else of_added, y.tensor.shape))
        numbers = _numbers(graph, 0.04, -2, of_added)
        y = insert(graph, "Add", added if floats else insert(graph, "DequantizeLinear", added, *numbers), y)
    if activation == "Relu":
        y = insert(graph, "Relu", y)
    elif activation == "Clip":
        y = insert(graph, "Clip", y, graph.add_constant(np.float32(-0.3)), graph.add_constant(np.float32(2.0)))
    elif activation:
        y = insert(graph, activation, y)
    if y_dtype is not None:
        y = insert(graph, "QuantizeLinear", y, *_numbers(graph, 0.07, 0 if y_dtype.is_float else 5, y_dtype))
    graph.set_outputs([y])
    return graph


def random_feeds(graph: Graph, seed: int = 1) -> list[Any]:
    """Numbers of all sizes for its inputs."""
    rng = np.random.default_rng(seed)
    return [_any_of(value.tensor.dtype, value.tensor.shape, rng) for value in graph.inputs]


def _any_of(dtype: DType, shape: Any, rng: np.random.Generator) -> Any:
    if dtype.is_float:
        size = 1 if dtype is DType.F32 else 100
        return (rng.standard_normal(shape) * size).clip(-448, 448).astype(numpy_dtype(dtype))
    info = np.iinfo(numpy_dtype(dtype))
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(numpy_dtype(dtype))


def assert_within_a_step(got: Any, want: Any, scale: float = 0.07) -> None:
    """Integers differ by one at most, 8-bit floats by one step, and seldom; floats by rounding."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * float(np.abs(want).max(initial=1.0)))
        return
    if want.dtype.kind == "V":  # a float of 8 bits: its codes are in the order of the magnitudes
        np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), False)
        got, want = (np.where(a.view(np.uint8) < 128, 1, -1) * (a.view(np.uint8) & 127).astype(int) for a in (got, want))
    apart = np.abs(got.astype(np.int64) - want.astype(np.int64))
    np.testing.assert_array_less(apart, 2)
    np.testing.assert_array_less(np.mean(apart), 0.01)


def _numbers(graph: Graph, scale: float, zero: int, dtype: DType) -> tuple[Value, Value]:
    return graph.add_constant(np.float32(scale), "scale"), graph.add_constant(np.array(zero, numpy_dtype(dtype)), "zero")


FLOATS: dict[str, Any] = {"x_dtype": DType.F8E4M3FN, "w_dtype": DType.F8E4M3FN, "symmetric": True}

CASES: dict[str, dict[str, Any]] = {
    "a convolution": {"y_dtype": DType.U8},
    "a convolution of signed bytes": {"y_dtype": DType.I8, "x_dtype": DType.I8},
    "a zero point, and padding that is one": {"y_dtype": DType.U8, "zero": 131},
    "a residual and an activation": {"y_dtype": DType.U8, "residual": True, "activation": "Relu"},
    "what is quantized on the way": {"y_dtype": DType.I8, "residual": True, "between": True, "activation": "Relu"},
    "bounds": {"y_dtype": DType.U8, "activation": "Clip", "zero": 7},
    "another activation": {"y_dtype": DType.I8, "activation": "Sigmoid"},
    "a result of floats": {"activation": "Relu"},
    "a result of floats, and nothing behind": {"bias": False},
    "strides": {"y_dtype": DType.I8, "stride": 2},
    "groups": {"y_dtype": DType.I8, "group": 3, "features": 6, "zero": 9},
    "each channel by itself": {"y_dtype": DType.U8, "group": 6, "features": 6, "activation": "Relu"},
    "one scale for all weights": {"y_dtype": DType.I8, "per_channel": False, "w_dtype": DType.U8},
    "single pixels": {"y_dtype": DType.U8, "taps": 1, "residual": True, "zero": 3},
    "single pixels without a bias": {"y_dtype": DType.U8, "taps": 1, "bias": False},
    "single pixels, some": {"y_dtype": DType.U8, "taps": 1, "stride": 2},
    "a matrix": {"kind": "MatMul", "y_dtype": DType.I8, "x_dtype": DType.I8},
    "a matrix, and Gelu": {"kind": "MatMul", "activation": "Gelu", "zero": 17},
    "a matrix alone": {"kind": "MatMul", "bias": False},
    "a turned matrix": {"kind": "Gemm", "y_dtype": DType.I8, "residual": True},
    "8-bit floats": {**FLOATS, "y_dtype": DType.F8E4M3FN},
    "8-bit floats, a residual and an activation": {**FLOATS, "y_dtype": DType.F8E4M3FN, "residual": True, "activation": "Relu"},
    "8-bit floats, quantized on the way": {**FLOATS, "y_dtype": DType.F8E4M3FN, "residual": True, "between": True},
    "8-bit floats, single pixels": {**FLOATS, "y_dtype": DType.F8E4M3FN, "taps": 1, "activation": "Clip"},
    "8-bit floats, a matrix and Gelu": {**FLOATS, "kind": "MatMul", "y_dtype": DType.F8E4M3FN, "activation": "Gelu"},
    "8-bit floats, a turned matrix to f32": {**FLOATS, "kind": "Gemm"},
    "8-bit floats, two results": {**FLOATS, "kind": "two", "y_dtype": DType.F8E4M3FN, "bias": False},
    "two results": {"kind": "two", "y_dtype": DType.I8, "bias": False, "zero": 4},
}
