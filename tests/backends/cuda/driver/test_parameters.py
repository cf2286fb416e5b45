"""Launch parameters lie as a C struct of them would."""

import ctypes

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters

C = {
    "int8": ctypes.c_int8,
    "uint8": ctypes.c_uint8,
    "bool": ctypes.c_bool,
    "int16": ctypes.c_int16,
    "float16": ctypes.c_uint16,
    "bfloat16": ctypes.c_uint16,
    "int32": ctypes.c_int32,
    "float32": ctypes.c_float,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float64": ctypes.c_double,
}


def c_type(value):
    item = C[value.dtype.name]
    return item * value.size if isinstance(value, np.ndarray) else item


MIXED = [
    [np.uint64(1 << 40), np.int32(-3), np.uint64(5)],
    [np.int8(1), np.int64(2), np.bool_(True), np.float32(2.5), np.float16(1.5), np.float64(-1)],
    [np.uint8(9), np.array([1, 2, 3], np.int32), np.int8(4), np.array([7, 8], np.int64), np.int16(-2)],
    [np.array([1], np.int8), np.array([1, 2, 3], np.int8), np.float32(0.1), ml_dtypes.bfloat16(1.5), np.uint64(7)],
    [np.arange(12, dtype=np.int32)[::3], np.int64(1)],
]


@pytest.mark.parametrize("values", MIXED)
def test_the_layout_is_that_of_a_struct(values: list):
    names = [f"f{number}" for number in range(len(values))]
    struct = type("S", (ctypes.Structure,), {"_fields_": [(n, c_type(v)) for n, v in zip(names, values, strict=True)]})
    parameters = pack_parameters(values)
    assert parameters.offsets == tuple(getattr(struct, name).offset for name in names)
    assert parameters.buffer.ctypes.data % 16 == 0
    table = (ctypes.c_uint64 * len(values)).from_address(parameters.address)
    for pointer, offset, value in zip(table, parameters.offsets, values, strict=True):
        assert pointer == parameters.buffer.ctypes.data + offset
        assert ctypes.string_at(pointer, value.nbytes) == np.asarray(value).tobytes()
    assert parameters.nbytes == parameters.offsets[-1] + values[-1].nbytes


def test_complex_numbers_are_aligned_as_cuda_has_them():
    assert pack_parameters([np.int32(1), np.complex64(1j), np.int8(1), np.complex128(1)]).offsets == (0, 8, 16, 32)


def test_the_values_are_copied():
    sizes = np.array([1, 2], np.int32)
    parameters = pack_parameters([sizes])
    sizes[:] = 0
    assert parameters.buffer.view(np.int32).tolist() == [1, 2]


def test_no_parameters_have_no_table():
    parameters = pack_parameters([])
    assert (parameters.address, parameters.offsets, parameters.nbytes) == (0, (), 0)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (3, TypeError, "parameter 1: expected a numpy scalar or array, got int"),
        (2.5, TypeError, "got float"),
        (np.str_("a"), TypeError, "no parameters of type <U1"),
        (np.array([None]), TypeError, "no parameters of type object"),
        (np.void(b"abc"), TypeError, r"no parameters of type \|V3"),
        (np.datetime64(1, "s"), TypeError, "no parameters of type datetime64"),
        (np.zeros((2, 2), np.int32), ValueError, r"expected one dimension and at least one item, got shape \(2, 2\)"),
        (np.zeros((), np.int32), ValueError, r"got shape \(\)"),
        (np.zeros(0, np.int32), ValueError, r"got shape \(0,\)"),
        (np.zeros(8192, np.int32), ValueError, "the parameters take 32772 bytes; a kernel can have 32764"),
    ],
)
def test_what_no_kernel_takes_is_refused(value: object, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        pack_parameters([np.int32(1), value])


def test_values_are_replaced_in_a_copy() -> None:
    given = pack_parameters([np.uint64(7), np.int32(1), np.array([2, 3], np.int32)])
    before = given.buffer.tobytes()
    other = given.replaced({1: np.int32(9)})
    assert given.buffer.tobytes() == before
    assert other.buffer.tobytes() == pack_parameters([np.uint64(7), np.int32(9), np.array([2, 3], np.int32)]).buffer.tobytes()
    assert (other.offsets, other.nbytes) == (given.offsets, given.nbytes)
    assert other.address not in (0, given.address) and other.buffer.ctypes.data % 16 == 0
