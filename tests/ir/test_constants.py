"""Constants as handles: every recipe agrees with numpy on any block, in pieces of bounded size, at any depth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import numpy_dtype, pack
from miniinfer_cli.ir.constants import (
    Concatenated,
    Constant,
    Filled,
    Mapped,
    MappedConstant,
    Reshaped,
    Sliced,
    Transposed,
    constant,
    reshaped,
)

DTYPES = [DType.F32, DType.F16, DType.BF16, DType.I64, DType.I8, DType.U4, DType.I4, DType.U2]


def filled_with_different_values(dtype, shape, seed):
    integers = np.random.default_rng(seed).integers(0, 4 if dtype.bits == 2 else 8, shape)
    return integers.astype(numpy_dtype(dtype))


@st.composite
def handles(draw, depth=2):
    """A constant of any kind with the array that it should hold."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=0, max_size=4)))
    array = filled_with_different_values(dtype, shape, draw(st.integers(0, 99)))
    if draw(st.booleans()):
        handle: Constant = constant(array)
    else:
        handle = MappedConstant(dtype, shape, memoryview(pack(array, dtype)), "w@0")
    for _ in range(draw(st.integers(0, depth))):
        handle, array = draw(st.sampled_from(WRAPPERS))(draw, handle, array)
    return handle, array


def transposed(draw, handle, array):
    perm = tuple(draw(st.permutations(range(array.ndim))))
    return Transposed(handle.dtype, array.transpose(perm).shape, handle, perm), array.transpose(perm)


def other_shape(draw, handle, array):
    shape = [array.size] if draw(st.booleans()) else [1, *array.shape[::-1]]
    if array.size == 0:
        shape = [0, 3]
    build = draw(st.sampled_from([reshaped, lambda h, s: Reshaped(h.dtype, s, h)]))
    return build(handle, tuple(shape)), array.reshape(shape)


def sliced(draw, handle, array):
    start = [draw(st.integers(0, n)) for n in array.shape]
    stop = [draw(st.integers(s, n)) for s, n in zip(start, array.shape, strict=True)]
    part = array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return Sliced(handle.dtype, part.shape, handle, tuple(start)), part


def joined(draw, handle, array):
    if array.ndim == 0:
        return handle, array
    axis = draw(st.integers(0, array.ndim - 1))
    both = np.concatenate([array, array], axis)
    return Concatenated(handle.dtype, both.shape, (handle, handle), axis), both


def mapped(draw, handle, array):
    row = constant(filled_with_different_values(DType.F32, (1,) * (array.ndim - 1) + array.shape[-1:], 5))
    result = array.astype(np.float32) + row.data if array.ndim else array.astype(np.float32) + 1
    sources = (handle, row) if array.ndim else (handle,)

    def function(x, y=1):
        return x.astype(np.float32) + y

    return Mapped(DType.F32, result.shape, sources, function, "Add"), result


WRAPPERS = [transposed, other_shape, sliced, joined, mapped]


@settings(max_examples=300, deadline=None)
@given(handles(), st.data())
def test_any_block_of_any_recipe_is_what_numpy_gives(pair, data):
    handle, array = pair
    assert (handle.shape, handle.size, handle.nbytes) == (array.shape, array.size, handle.dtype.nbytes(array.size))
    bounds = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in array.shape]
    index = tuple(slice(a, b) for a, b in bounds)
    block = handle.block(index)
    assert isinstance(block, np.ndarray)
    assert block.dtype == array.dtype
    np.testing.assert_array_equal(block.astype(np.float64), array[index].astype(np.float64))
    np.testing.assert_array_equal(handle.array().astype(np.float64), array.astype(np.float64))


@settings(max_examples=200, deadline=None)
@given(handles(), st.integers(1, 64))
def test_the_pieces_join_to_the_packed_whole(pair, nbytes):
    handle, array = pair
    assert b"".join(handle.chunks(nbytes)) == pack(array, handle.dtype)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DTYPES), st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(8, 200))
def test_pieces_stay_near_the_size_asked_for(dtype, shape, nbytes):
    handle = Filled(dtype, tuple(shape), 1)
    row = dtype.nbytes(math.prod(shape[1:])) + 1
    assert max(map(len, handle.chunks(nbytes))) <= nbytes + 8 * row
    assert sum(map(len, handle.chunks(nbytes))) == handle.nbytes


def test_a_large_recipe_is_read_in_small_blocks():
    class Watched(Filled):
        """Notes the largest block that was asked for."""

        largest = 0

        def block(self, index):
            Watched.largest = max(Watched.largest, math.prod(s.stop - s.start for s in index))
            return super().block(index)

    source = Watched(DType.F32, (2000, 1000), 1)
    halved = Mapped(DType.F16, source.shape, (source,), lambda x: x / 2, "half")
    turned = Transposed(DType.F16, (1000, 2000), halved, (1, 0))
    flat = Reshaped(DType.F16, (2_000_000,), turned)
    for handle in (halved, turned, flat):
        Watched.largest = 0
        assert sum(map(len, handle.chunks(64 << 10))) == handle.nbytes
        assert Watched.largest < 100_000


def test_a_scalar_is_an_array_of_rank_0():
    for handle in (constant(3), MappedConstant(DType.I64, (), bytes([3] + [0] * 7)), Filled(DType.I64, (), 3)):
        assert handle.array().shape == ()
        assert handle.array() == 3
        assert b"".join(handle.chunks()) == bytes([3] + [0] * 7)


def test_texts_are_held_as_objects():
    handle = constant(np.array(["a", "bc"], object))
    assert (handle.dtype, handle.shape, handle.array().tolist()) == (DType.STR, (2,), ["a", "bc"])


def test_another_shape_of_a_file_range_is_a_file_range():
    source = MappedConstant(DType.U8, (6,), bytes(range(6)), "w@9")
    other = reshaped(source, (2, 3))
    assert (type(other), other.source, other.buffer) == (MappedConstant, "w@9", source.buffer)
    np.testing.assert_array_equal(other.array(), [[0, 1, 2], [3, 4, 5]])


def test_smallness_is_about_bytes():
    assert Filled(DType.F32, (128, 128), 0).is_small
    assert not Filled(DType.F32, (128, 129), 0).is_small
    assert Filled(DType.U4, (128, 1024), 0).is_small


def test_the_base_class_has_no_contents():
    with pytest.raises(NotImplementedError):
        Constant(DType.F32, (2,)).array()


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.F32, DType.F64])
@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_magnitudes_are_those_of_numpy_whatever_the_pieces(dtype, axes, monkeypatch):
    data = np.random.default_rng(1).standard_normal((24, 3, 8)).astype(numpy_dtype(dtype))
    data[5] = 0
    monkeypatch.setattr("miniinfer_cli.ir.constants.CHUNK_NBYTES", 64)
    found = MappedConstant(dtype, data.shape, data.tobytes()).magnitudes(axes)
    plain = np.abs(data.astype(np.float64))
    assert found.largest.dtype == found.smallest.dtype == data.dtype
    np.testing.assert_array_equal(found.largest.astype(np.float64), plain.max(axis=axes, keepdims=True))
    np.testing.assert_array_equal(
        found.smallest.astype(np.float64), np.where(plain > 0, plain, np.inf).min(axis=axes, keepdims=True)
    )


def test_magnitudes_show_what_is_not_finite_and_are_taken_once():
    reads = []
    handle = Mapped(DType.F32, (2, 3), (Filled(DType.F32, (1, 1), 1),), lambda one: reads.append(one) or one * np.float32(np.nan))
    assert np.isnan(handle.magnitudes([1]).largest).all()
    assert np.isnan(handle.magnitudes((1,)).largest).all()
    assert len(reads) == 1
    data = np.array([[-np.inf, 1], [0, 0]], np.float16)
    found = constant(data).magnitudes([1])
    assert (found.largest.tolist(), found.smallest.tolist()) == ([[np.inf], [0]], [[1], [np.inf]])
    assert constant(np.float32(-3)).magnitudes([]).largest == 3
    assert Filled(DType.F32, (0, 2), 1).magnitudes([0]).largest.tolist() == [[0, 0]]
