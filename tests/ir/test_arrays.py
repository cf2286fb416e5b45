"""Element types in numpy: densely packed bytes round-trip for every type, and have the layout that ONNX has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import dtype_of, numpy_dtype, pack, unpack

PACKED = [d for d in DType if d is not DType.STR]


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(PACKED), st.integers(0, 9), st.randoms(use_true_random=False))
def test_bytes_round_trip_in_both_directions(dtype, count, random):
    data = random.randbytes(dtype.nbytes(count))
    if dtype is DType.BOOL:
        data = bytes(b & 1 for b in data)
    spare = dtype.nbytes(count) * 8 - dtype.bits * count
    if spare:  # the bits after the last element are zero
        data = data[:-1] + bytes([data[-1] & (255 >> spare)])
    array = unpack(data, dtype, (count,))
    assert (array.dtype, array.shape) == (numpy_dtype(dtype), (count,))
    assert pack(array, dtype) == data


@pytest.mark.parametrize(
    ("dtype", "data", "values"),
    [
        (DType.I4, b"\x7f\x08", [-1, 7, -8]),  # the low half of a byte comes first
        (DType.U4, b"\x21\x03", [1, 2, 3]),
        (DType.I2, b"\x1b\x02", [-1, -2, 1, 0, -2]),
        (DType.U2, b"\x1b\x02", [3, 2, 1, 0, 2]),
        (DType.F4E2M1, b"\xa1\x07", [0.5, -1.0, 6.0]),
    ],
)
def test_narrow_types_share_bytes_from_the_low_bits_up(dtype, data, values):
    array = unpack(data, dtype, (len(values),))
    np.testing.assert_array_equal(array.astype(np.float64), values)
    assert pack(array, dtype) == data


def test_types_of_whole_bytes_are_read_without_a_copy():
    data = np.arange(6, dtype="<f4").tobytes()
    array = unpack(data, DType.F32, (2, 3))
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_packing_takes_any_memory_order():
    array = np.arange(6, dtype=np.int8).reshape(2, 3).T
    assert pack(array, DType.I8) == bytes([0, 3, 1, 4, 2, 5])
    narrow = np.arange(4).reshape(2, 2).T.astype(numpy_dtype(DType.U4))
    assert pack(narrow, DType.U4) == b"\x20\x31"


@pytest.mark.parametrize("dtype", list(DType))
def test_a_numpy_type_leads_back_to_its_element_type(dtype):
    assert dtype_of(np.empty(0, numpy_dtype(dtype))) is dtype


def test_texts_of_numpy_are_strings_and_dates_are_nothing():
    assert dtype_of(np.array(["a"])) is dtype_of(np.array([b"a"])) is DType.STR
    with pytest.raises(ValueError, match=r"datetime64.* has no ONNX counterpart"):
        dtype_of(np.array(["2020-01-01"], "datetime64[D]"))
