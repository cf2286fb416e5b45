"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear on the emulated device."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import numbers

INTEGERS = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I4, DType.U4, DType.I2, DType.U2)
FLOATS = (DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ, DType.F4E2M1)


def zero_points(dtype: DType, shape: tuple[int, ...]):
    """Some numbers of the type."""
    return np.random.default_rng(3).integers(0, 2, shape).astype(np.int8).astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_there_and_back_per_axis(dtype):
    x = numbers(np.float32, (2, 5, 3, 8), 20.0)
    scale = np.linspace(0.05, 0.9, 5, dtype=np.float32)
    zero = zero_points(dtype, (5,)) if dtype.is_integer else np.zeros((5,), numpy_dtype(dtype))
    check_op("QuantizeLinear", x, scale, zero)
    codes = (np.arange(240) % (1 << dtype.bits)).astype(np.uint8).reshape(2, 5, 3, 8)
    q = codes.view(numpy_dtype(dtype)) if dtype.is_float else codes.view(np.int8).astype(numpy_dtype(dtype))
    check_op("DequantizeLinear", q, scale, zero)


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (np.float32, np.float16), (np.float16, np.float16), (np.float16, np.float32), (ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.float64, np.float32), (np.int32, np.float32),
    ],
)  # fmt: skip
def test_types_of_operand_and_scale(x, scale):
    check_op("QuantizeLinear", numbers(x, (7, 9), 10.0), np.array(0.37, scale), np.array(3, np.int8))


@pytest.mark.parametrize("precision", [DType.F16, DType.F64, DType.BF16])
def test_precision_of_the_quotient(precision):
    x = numbers(np.float32, (400,), 300.0)
    check_op(
        "QuantizeLinear", x, np.array(0.37, np.float32), precision=code_of_dtype(precision), output_dtype=code_of_dtype(DType.I16)
    )


def test_out_of_range_and_not_a_number():
    x = np.array([1e9, -1e9, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5], np.float32)
    for zero in (np.array(0, np.int8), np.array(0, np.uint8), np.array(0, ml_dtypes.float8_e4m3fn), np.array(0, ml_dtypes.uint4)):
        check_op("QuantizeLinear", x, np.array([1.0], np.float32), zero)
    check_op("QuantizeLinear", x, np.array(1.0, np.float32), output_dtype=code_of_dtype(DType.F8E5M2), saturate=0)


@pytest.mark.parametrize(("shape", "axis", "block"), [((4, 12), 1, 3), ((4, 12), 0, 2), ((2, 6, 5), -2, 3), ((3, 8, 16), 2, 16)])
def test_blocks(shape, axis, block):
    x = numbers(np.float32, shape, 20.0)
    spread = tuple(n // block if i == axis % len(shape) else n for i, n in enumerate(shape))
    scale = np.abs(numbers(np.float32, spread, seed=1)) + 0.1
    check_op("QuantizeLinear", x, scale, zero_points(DType.I4, spread), axis=axis, block_size=block)
    check_op("DequantizeLinear", x.astype(np.int8), scale, zero_points(DType.I8, spread), axis=axis, block_size=block)


def test_a_last_block_that_is_not_whole():
    x = numbers(np.float32, (3, 10), 20.0)
    scale = np.abs(numbers(np.float32, (3, 3), seed=1)) + 0.1
    check_op("QuantizeLinear", x, scale, zero_points(DType.U8, (3, 3)), block_size=4)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.F64])
def test_types_of_the_dequantized(dtype):
    q = numbers(np.int32, (6, 7))
    check_op("DequantizeLinear", q, np.array(0.25, numpy_dtype(dtype)), np.array(5, np.int32))
    check_op("DequantizeLinear", q.astype(np.int16), np.array([0.25], np.float32), output_dtype=code_of_dtype(dtype))
    check_op("DequantizeLinear", q.astype(np.uint8), np.array(4, ml_dtypes.float8_e8m0fnu), output_dtype=code_of_dtype(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 41), (70, 333)])
def test_dynamic_range(shape):
    check_op("DynamicQuantizeLinear", numbers(np.float32, shape), n_outputs=3)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 2.0, 5.0], [-1.0, -2.0], [np.inf, 1.0]])
def test_dynamic_range_of_one_sign(values):
    check_op("DynamicQuantizeLinear", np.array(values, np.float32), n_outputs=3)


def test_empty_operands_need_no_kernel():
    assert lower_op("QuantizeLinear", np.zeros((0, 3), np.float32), np.ones(3, np.float32)).actions == ()


@pytest.mark.parametrize("scale", [0.37, 1.0, 1e-3, 0.0078125, 3.1e7, 1.9999999])
@pytest.mark.parametrize("zero", [np.int8(0), np.int8(-7), np.uint8(0), np.uint8(131), ml_dtypes.float8_e4m3fn(0)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_scale_that_is_known_gives_what_a_division_gives(scale, zero, kind):
    """Every quotient about a whole number or half of one, and all that is beyond the ends, to the last bit."""
    numbers_about = (np.arange(-300, 300) / 2).astype(np.float32)[:, None] * np.float32([1, 1 - 2**-23, 1 + 2**-23, 1 - 2**-22])
    with np.errstate(over="ignore"):
        x = (numbers_about.reshape(-1) * np.float32(scale)).astype(kind)
    odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], kind)
    x = np.concatenate([x, np.random.default_rng(1).standard_normal(3000).astype(kind) * kind(min(100 * scale, 500)), odd])
    graph = Graph("one")
    value = graph.add_input("x", TensorType(dtype_of(x), x.shape))
    value = value if kind is np.float32 else insert(graph, "Cast", value, to=1)
    numbers_given = (graph.add_constant(np.float32(scale), "s"), graph.add_constant(np.asarray(zero), "z"))
    graph.set_outputs([insert(graph, "QuantizeLinear", value, *numbers_given)])
    fuse_pointwise(graph)
    annotate(graph)
    (got,) = run_graph(graph, [x], Target())
    (want,) = interpret(graph, [x])
    if "float8" in got.dtype.name:
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
        return
    there = np.isfinite(x.astype(np.float32)) | np.isinf(x.astype(np.float32))
    np.testing.assert_array_equal(got[there], want[there])
    assert not got[~there].any()
