"""Inputs that are no numpy arrays: lists, and arrays of other libraries on the host."""

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends import dlpack
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, TensorType, numpy_dtype
from miniinfer_cli.runtime.bindings import Binding, check_inputs
from tests.emulation.engine import open_emulated, plan_of


class Tensor:
    """A tensor of another library on the host, as torch has it: it gives itself by DLPack."""

    def __init__(self, array: np.ndarray, kind: int = dlpack.CPU) -> None:
        self.array, self.kind = array, kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, *, stream: object = None) -> object:
        assert stream is None  # a host's tensor has none
        array = self.array
        capsule = dlpack.give(array.ctypes.data, array.shape, array.dtype, 0, self)
        tensor = dlpack._Managed.from_address(dlpack._pointer_of(capsule, b"dltensor")).tensor
        tensor.device.kind = self.kind
        for axis, step in enumerate(array.strides):
            tensor.strides[axis] = step // array.itemsize
        return capsule


class NeedsGradient(Tensor):
    def __dlpack__(self, *, stream: object = None) -> object:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")


class WithArray:
    """What gives itself by ``__array__`` alone: an image, a data frame, a series."""

    def __init__(self, array: object) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


class Both(NeedsGradient, WithArray):
    pass


def taken(value: object, dtype: DType = DType.F32) -> np.ndarray:
    shape = TensorType(dtype, None)
    (got,) = check_inputs((Binding("x", shape),), {}, {"x": value})
    assert got.dtype == numpy_dtype(dtype)
    return got


ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("array", [ROWS, ROWS.T, ROWS[:, ::2], ROWS[::-1], ROWS[:0], ROWS[0, :1].reshape(())])
def test_a_tensor_of_dlpack_is_read_where_it_is(array):
    got = taken(Tensor(array))
    assert got.tolist() == array.tolist()
    assert np.shares_memory(got, array) == bool(array.size)
    assert taken(Tensor(array, dlpack.PINNED)).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16, DType.I64, DType.U8, DType.BOOL, DType.C128, DType.F8E4M3FN])
def test_every_type_of_dlpack(dtype):
    array = np.array([[0, 1], [1, 0]]).astype(numpy_dtype(dtype))
    assert taken(Tensor(array), dtype).astype(complex).tolist() == array.astype(complex).tolist()


def test_a_tensor_lives_as_long_as_what_was_taken_of_it():
    tensor = Tensor(ROWS.copy())
    alive = weakref.ref(tensor)
    got = taken(tensor)
    del tensor
    gc.collect()
    assert (alive() is None, got.tolist()) == (False, ROWS.tolist())
    del got
    gc.collect()
    assert alive() is None


def test_what_has_an_array_gives_it():
    assert taken(WithArray(ROWS)) is ROWS
    assert taken(Both(ROWS)) is ROWS  # DLPack refuses, __array__ does not
    assert taken([ROWS[0], WithArray(ROWS[1])]).tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            NeedsGradient(ROWS),
            r"input 'x': NeedsGradient gives no array: Can't export .*\n  hint: give a plain dense one: .detach",
        ),
        (WithArray(TypeError("sparse")), "input 'x': WithArray gives no array: sparse"),
        (Both(RuntimeError("no")), "input 'x': Both gives no array: Can't export"),
        (
            Tensor(ROWS, 8),
            r"input 'x': expected an array f32.* on the host, got Tensor on DLPack's device 8\n  hint: copy",
        ),
        (Tensor(ROWS.astype(np.float64)), r"input 'x': got f64\[2,3\], expected f32"),
        (b"abc", r"input 'x': expected an array f32.*, got bytes\n  hint: a numpy array, a list of numbers"),
        (None, "input 'x': expected an array f32.*, got NoneType"),
    ],
)
def test_what_gives_no_array_is_refused(value, message):
    with pytest.raises(UsageError, match=message):
        taken(value)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], DType.F16, [1, 2]),
        ([1, 2], DType.I64, [1, 2]),
        ([True, False], DType.BOOL, [True, False]),
        ([0.1], DType.F32, [np.float32(0.1)]),
        ([0.1], DType.F64, [0.1]),
        (3.5, DType.BF16, 3.5),
        ([1 << 63], DType.U64, [1 << 63]),
        ([float("inf"), 1], DType.F16, [float("inf"), 1]),
        ([1, 2j], DType.C64, [1, 2j]),
        (["a"], DType.STR, ["a"]),
        ([[]], DType.I8, [[]]),
        ([ml_dtypes.bfloat16(1)], DType.BF16, [1]),
    ],
)
def test_lists_take_the_inputs_type(value, dtype, expected):
    assert taken(value, dtype).tolist() == expected


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ([1, 16_777_217], DType.F32, r"input 'x': 16777217 does not fit f32.*\n  hint: round it yourself, .*\.astype\(float32\)"),
        ([257], DType.BF16, "257 does not fit bf16"),
        (2**63 - 1, DType.F64, f"{2**63 - 1} does not fit f64"),
        ([1e30], DType.F16, r"1e\+30 does not fit f16"),
        ([1, 1e39], DType.F32, r"1e\+39 does not fit f32"),
        ([float("inf")], DType.F8E4M3FN, "inf does not fit f8e4m3fn"),
        ([300], DType.U8, "300 does not fit u8"),
        ([1 << 63, -1], DType.I64, f"{1 << 63} does not fit i64"),
        ([1 << 70], DType.I64, f"{1 << 70} does not fit i64"),
        ([1.5], DType.I32, r"got f64\[1\], expected i32"),
        ([1, 0], DType.BOOL, r"got i64\[2\], expected bool"),
        ([1.0, None], DType.F32, "the list holds NoneType"),
        (["1"], DType.F32, r"got str\[1\], expected f32"),
        ([[1, 2], [3]], DType.F32, "its lists differ in length"),
    ],
)
def test_lists_lose_nothing_but_decimals(value, dtype, message):
    with pytest.raises(UsageError, match=message):
        taken(value, dtype)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_engine_takes_them_on_both_devices(device):
    plan = plan_of("graph main(x: f32[n,3], y: bf16[n]) {\n  a = Neg(x)\n  b = Neg(y)\n  return a, b\n}")
    with load(plan, "cpu") if device == "cpu" else open_emulated(plan) as engine:
        for x in (Tensor(ROWS), WithArray(ROWS), ROWS.tolist(), [[0, 1, 2], [3, 4, 5]], Tensor(np.asfortranarray(ROWS))):
            outputs = engine.run({"x": x, "y": Tensor(np.array([1, 2], ml_dtypes.bfloat16))})
            assert outputs["a"].tolist() == (-ROWS).tolist()
            assert outputs["b"].tolist() == [-1, -2]
        for given in (ROWS, [ROWS], None):
            with pytest.raises(
                UsageError, match=r"inputs: expected a dict of names and arrays, got \w+\n  hint: .*\{'x': array\}"
            ):
                engine.run(given)
