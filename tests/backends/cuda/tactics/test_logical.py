"""Truth values, comparisons and Where on the emulated device."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import check_calls, numbers

NUMBERS = (
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16,
    np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8,
)  # fmt: skip
SMALL = (
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
    "int4",
    "uint4",
    "int2",
    "uint2",
)
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


@pytest.mark.parametrize("dtype", NUMBERS)
def test_comparisons(dtype):
    a, b = numbers(dtype, (131,), seed=1), numbers(dtype, (131,), seed=2)
    b[::3] = a[::3]
    if np.dtype(dtype).kind not in "iu":
        a[:3], b[1:4] = np.nan, np.nan
    check_calls([a, b], [(op, (0, 1), {}) for op in COMPARISONS])


@pytest.mark.parametrize("name", SMALL)
def test_small_types_are_compared_and_chosen(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    top = 1 << {"4": 4, "2": 2}.get(name[-1], 8) if "int" in name else 16 if name == "float4_e2m1fn" else 256
    codes = np.arange(top, dtype=np.uint8)
    every = codes.view(dtype) if "float" in name else codes.astype(np.int8).astype(dtype)
    other = np.roll(every, 1)
    other[::2] = every[::2]
    check_calls([every, other, codes % 3 == 0], [("Equal", (0, 1), {}), ("Where", (2, 0, 1), {})])


def test_truth_values():
    a, b = numbers(np.bool_, (77,), seed=1), numbers(np.bool_, (77,), seed=2)
    check_calls([a, b], [(op, (0, 1), {}) for op in ("And", "Or", "Xor", "Equal")])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int8, np.bool_, np.complex64, np.complex128])
def test_where_of_every_size(dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 2, s).astype(dtype) for s in ((4, 1, 7), (3, 1)))
    check_op("Where", numbers(np.bool_, (4, 3, 7)), x, y)
    check_op("Where", np.array(True), x, x)


def test_where_of_one_size_of_element_is_one_kernel():
    condition = np.zeros((5,), np.bool_)
    kernels = {lower_op("Where", condition, x, x).actions[0].kernel for x in (np.zeros(5, np.float32), np.zeros(5, np.int32))}
    assert len(kernels) == 1


def test_strings_and_complex_comparisons_are_not_for_the_device():
    assert lower_op("Equal", np.zeros(3, np.complex64), np.zeros(3, np.complex64)) is None
