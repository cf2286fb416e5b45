"""exact_scaling: which constants may be scaled ahead of time, and the passes that ask."""

import numpy as np
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.ir import constant, numpy_dtype
from miniinfer_cli.passes.exact_scaling import can_scale, keeps_digits
from miniinfer_cli.passes.fold_affine import fold_affine
from miniinfer_cli.passes.fold_batch_norm import fold_batch_norm
from miniinfer_cli.passes.split_gemm import split_gemm

FLOATS = (DType.F16, DType.BF16, DType.F32, DType.F64)
_LARGEST = {DType.F16: 65504.0, DType.BF16: 3.3895313892515355e38, DType.F32: float(np.finfo(np.float32).max), DType.F64: 1.7e308}
_NORMAL = {DType.F16: 2.0**-14, DType.BF16: 2.0**-126, DType.F32: 2.0**-126, DType.F64: 2.0**-1022}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_ends_of_each_type(dtype):
    kind = numpy_dtype(dtype)
    large, small = _LARGEST[dtype], _NORMAL[dtype]
    weights = {
        "largest": ([large, 1.0], 1.0, True),
        "overflow": ([large, 1.0], 1.0625, False),
        "normal": ([2 * small, 4 * small], 0.5, True),
        "subnormal": ([small, 2 * small], 0.5, False),
        "lost": ([small * 4], small, False),
        "subnormal beside a large one": ([small, 64 * small], 0.5, True),
        "subnormal before, and larger now": ([small / 4], 2.0, True),
        "all zero": ([0.0, 0.0], 0.5, True),
        "zero beside others": ([0.0, 1.0], 0.5, True),
        "times zero": ([1.0, 2.0], 0.0, True),
        "times infinity": ([1.0], np.inf, False),
        "times nan": ([1.0], np.nan, False),
        "negative": ([-large, 1.0], -1.0625, False),
        "infinite weight": ([np.inf, 1.0], 0.5, False),
        "nan weight": ([np.nan, 1.0], 0.5, False),
        "nothing": ([], 0.5, True),
    }
    for name, (values, factor, fits) in weights.items():
        handle = constant(np.array(values, kind))
        assert can_scale(handle, np.array([factor], kind), np.multiply, [0]) is fits, name
    ones = constant(np.ones(2, kind))
    assert not can_scale(ones, np.array([0.0], kind), np.divide, [0])
    assert not can_scale(constant(np.zeros(2, kind)), np.array([0.0], kind), np.divide, [0])
    assert not can_scale(ones, np.array([np.inf], kind), np.divide, [0])
    assert can_scale(ones, np.array([2.0], kind), np.divide, [0])


def test_each_channel_counts_for_itself():
    weight = constant(np.array([[1e-3, 1e-3], [1, 1]], np.float16))
    by = np.array(1e-2, np.float16)
    assert not can_scale(weight, by, np.multiply, [1])
    assert can_scale(weight, by, np.multiply, [0])
    assert can_scale(weight, np.array([[1.0], [1e-2]], np.float16), np.multiply, [1])


def test_what_does_not_show_beside_the_shift_may_go():
    weight, by = constant(np.full((1, 4), 1e-2, np.float16)), np.array(1e-9, np.float32)
    assert not can_scale(weight, by, np.multiply, [1])
    assert not can_scale(weight, by, np.multiply, [1], np.array(0, np.float16))
    assert can_scale(weight, by, np.multiply, [1], np.array(0.5, np.float16))
    assert not can_scale(weight, by * 10, np.multiply, [1], np.array(1e-3, np.float16))


def test_integers_have_no_such_scale():
    assert not can_scale(constant(np.ones(2, np.int64)), np.array(1.0), np.multiply, [0])


def test_single_numbers():
    assert keeps_digits(np.array([0, 1e-4, -6e4]), DType.F16)
    assert not keeps_digits(np.array([1e-5]), DType.F16)
    assert not keeps_digits(np.array([7e4]), DType.F16)
    assert keeps_digits(np.array([1e-5]), DType.BF16)


W16 = "w: f16[2,2,1] = const [200, 1, 1, 1]"
W32 = "w: f32[2,2] = const [1, 2, 3, 0]"
STAYING = {
    "Mul beyond f16": (fold_affine, f"{W16} y = Conv(x, w) c: f16[] = const 1000 z = Mul(y, c)"),
    "Div beyond f16": (fold_affine, f"{W16} y = Conv(x, w) c: f16[2,1] = const [0.001, 1] z = Div(y, c)"),
    "Mul below f16": (fold_affine, f"{W16} y = Conv(x, w) c: f16[2,1] = const [1, 3e-5] z = Mul(y, c)"),
    "ConvTranspose below f16": (fold_affine, f"{W16} y = ConvTranspose(x, w) c: f16[2,1] = const [1, 3e-5] z = Mul(y, c)"),
    "ConvTranspose in groups": (
        fold_affine,
        "w: f16[2,1,1] = const [1, 1] y = ConvTranspose(x, w) {group=2} c: f16[2,1] = const [1, 3e-5] z = Mul(y, c)",
    ),
    "ConvTranspose in groups, one of them below f16": (
        fold_affine,
        "w: f16[2,1,1] = const [1, 1e-3] y = ConvTranspose(x, w) {group=2} c: f16[2,1] = const [1, 3e-2] z = Mul(y, c)",
    ),
    "a bias beyond f16": (
        fold_affine,
        "w: f16[2,2,1] = const fill 1 b: f16[2] = const [600, 1] y = Conv(x, w, b) c: f16[] = const 200 z = Mul(y, c)",
    ),
    "a sum of biases beyond f16": (
        fold_affine,
        "w: f16[2,2,1] = const fill 1 b: f16[2] = const [6e4, 1] y = Conv(x, w, b) c: f16[] = const 6e4 z = Add(y, c)",
    ),
    "an infinite bias": (fold_affine, "w: f16[2,2,1] = const fill 1 y = Conv(x, w) c: f16[2,1] = const [-inf, 1] z = Sub(y, c)"),
    "a product divided by 0": (fold_affine, f"{W32} y = MatMul(r, w) c: f32[2] = const [1, 0] z = Div(y, c)"),
    "a product times infinity": (fold_affine, f"{W32} y = MatMul(r, w) c: f32[] = const inf z = Mul(y, c)"),
    "a product below f32": (fold_affine, f"{W32} y = MatMul(r, w) c: f32[2] = const [1e-38, 1] z = Mul(y, c)"),
    "a product with a bias beyond f32": (
        fold_affine,
        f"{W32} y = MatMul(r, w) b: f32[] = const 1e30 a = Add(y, b) c: f32[] = const 1e10 z = Mul(a, c)",
    ),
    "alpha beyond f16": (split_gemm, "w: f16[2,2] = const [1, 2, 3, 4] z = Gemm(h, w) {alpha=20000.0}"),
    "alpha below f16": (split_gemm, "w: f16[2,2] = const [1, 2, 3, 4] z = Gemm(h, w) {alpha=1e-5, transB=1}"),
    "alpha below f16 for one column": (
        split_gemm,
        "w: f16[2,2] = const [1, 1, 1e-3, 1e-3] z = Gemm(h, w) {alpha=0.01, transB=1}",
    ),
    "beta beyond f16": (split_gemm, "w: f16[2,2] = const [1, 2, 3, 4] c: f16[] = const 7 z = Gemm(h, w, c) {beta=10000.0}"),
    "beta below f16, for a computed C": (split_gemm, "w: f16[2,2] = const [1, 2, 3, 4] z = Gemm(h, w, d) {beta=1e-5}"),
    "a normalization whose scale f16 cannot say": (
        fold_batch_norm,
        "g: f16[2] = const [1, 1] b: f16[2] = const [0, 0] v: f16[2] = const [0, 0] "
        "z = BatchNormalization(x, g, b, b, v) {epsilon=1e-12}",
    ),
    "a normalization that cancels in f16": (
        fold_batch_norm,
        "g: f16[2] = const [1, 1] b: f16[2] = const [0, 0] m: f16[2] = const [1000, 0] v: f16[2] = const [1, 1] "
        "z = BatchNormalization(x, g, b, m, v)",
    ),
    "a normalization whose shift f16 cannot say": (
        fold_batch_norm,
        "g: f16[2] = const [3e4, 1] b: f16[2] = const [0, 0] m: f16[2] = const [3, 0] v: f16[2] = const [1, 1] "
        "z = BatchNormalization(x, g, b, m, v)",
    ),
    "a normalization that divides by 0": (
        fold_batch_norm,
        "g: f16[2] = const [1, 1] b: f16[2] = const [0, 0] w: f16[2,2,1] = const fill 1 y = Conv(x, w) "
        "z = BatchNormalization(y, g, b, b, b) {epsilon=0.0}",
    ),
}


@pytest.mark.parametrize(("pass_", "body"), STAYING.values(), ids=STAYING.keys())
def test_a_fold_that_is_less_exact_does_not_happen(leaves, pass_, body):
    leaves(pass_, f"graph main(x: f16[1,2,5], r: f32[1,2], h: f16[1,2], d: f16[2]) {{ {body} return z }}")


def test_a_normalization_whose_bias_is_beyond_f16_is_arithmetic(graph_of):
    graph = graph_of(
        """graph main(x: f16[1,2,5]) {
          w: f16[2,2,1] = const [1, 2, 3, 4]
          c: f16[2] = const [600, 1]
          y = Conv(x, w, c)
          g: f16[2] = const [200, 1]
          b: f16[2] = const [0, 0]
          v: f16[2] = const [1, 1]
          z = BatchNormalization(y, g, b, b, v)
          return z
        }"""
    )
    assert fold_batch_norm(graph) == 1
    assert [n.op for n in graph] == ["Conv", "Mul", "Add"]


def test_a_normalization_that_a_convolution_cannot_take_is_arithmetic(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: f16[1,2,5]) {
          w: f16[2,2,1] = const [1e-3, 2e-3, 1, 1]
          y = Conv(x, w)
          g: f16[2] = const [1e-3, 1]
          b: f16[2] = const [0, 0]
          v: f16[2] = const [1, 1]
          z = BatchNormalization(y, g, b, b, v)
          return z
        }"""
    )
    (before,) = outputs_of(graph)
    assert fold_batch_norm(graph) == 1
    assert [n.op for n in graph] == ["Conv", "Mul", "Add"]
    assert fold_affine(graph) == 0
    np.testing.assert_allclose(outputs_of(graph)[0].astype(float), before.astype(float), rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2,), (1, 2)])
@pytest.mark.parametrize("bias", [(), (1,), (1, 1), (2,), (1, 2), (1, 1, 2)])
def test_numbers_of_every_rank_go_into_a_product(graph_of, outputs_of, shape, bias):
    def text(name, shape):
        numbers = ", ".join(["2", "3"][: int(np.prod(shape))])
        return f"{name}: f32[{','.join(map(str, shape))}] = const {f'[{numbers}]' if shape else numbers}"

    graph = graph_of(
        f"""graph main(x: f32[4,3,5]) {{
          w: f32[5,2] = const large "mapped w"
          y = MatMul(x, w)
          {text("b", bias)}
          a = Add(b, y)
          {text("c", shape)}
          z = Mul(a, c)
          return z
        }}"""
    )
    (before,) = outputs_of(graph)
    assert fold_affine(graph) == 1
    np.testing.assert_allclose(outputs_of(graph)[0], before, rtol=1e-5, atol=1e-6)
