"""Constants made from constants: small ones are arrays, large ones recipes, and recipes do not pile up."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType, constant
from miniinfer_cli.ir.constants import ArrayConstant, Concatenated, Filled, Mapped, MappedConstant, Sliced, Transposed
from miniinfer_cli.passes.recipes import (
    concatenate_constants,
    map_constants,
    reshape_constant,
    slice_constant,
    transpose_constant,
)

DATA = np.arange(300 * 200, dtype=np.float32).reshape(300, 200)
LARGE = MappedConstant(DType.F32, (300, 200), DATA.tobytes(), "w@0")
SMALL = constant(DATA[:3, :2])
EVEN = Filled(DType.F32, (300, 200), 2.0)


@pytest.mark.parametrize("source", [LARGE, SMALL, EVEN])
def test_every_recipe_agrees_with_numpy(source):
    array = source.array()
    rows, columns = array.shape
    cases = [
        (transpose_constant(source, (1, 0)), array.T),
        (reshape_constant(source, (rows * columns,)), array.reshape(-1)),
        (slice_constant(source, (1, 0), (rows - 1, 2)), array[1:, :2]),
        (concatenate_constants([source, source], 1), np.concatenate([array, array], 1)),
        (map_constants(np.negative, [source], DType.F16, array.shape, "neg"), -array.astype(np.float16)),
    ]
    for handle, expected in cases:
        assert handle.shape == expected.shape
        np.testing.assert_array_equal(handle.array().astype(np.float32), expected.astype(np.float32))


def test_large_results_are_recipes_and_small_ones_arrays():
    assert [type(transpose_constant(s, (1, 0))) for s in (LARGE, SMALL, EVEN)] == [Transposed, ArrayConstant, Filled]
    assert [type(slice_constant(s, (0, 0), (2, 2))) for s in (LARGE, SMALL, EVEN)] == [ArrayConstant, ArrayConstant, Filled]
    assert type(slice_constant(LARGE, (0, 0), (299, 200))) is Sliced
    assert type(concatenate_constants([LARGE, LARGE], 0)) is Concatenated
    assert type(map_constants(np.negative, [LARGE], DType.F32, (300, 200), "neg")) is Mapped
    assert type(map_constants(np.add, [EVEN, constant(np.float32(1))], DType.F32, (300, 200), "add")) is Filled


def test_what_changes_nothing_is_the_source():
    assert transpose_constant(LARGE, (0, 1)) is LARGE
    assert transpose_constant(transpose_constant(LARGE, (1, 0)), (1, 0)) is LARGE
    assert reshape_constant(LARGE, (300, 200)) is LARGE
    assert slice_constant(LARGE, (0, 0), (300, 200)) is LARGE
    assert concatenate_constants([LARGE], 0) is LARGE


def test_two_permutations_become_one():
    cube = MappedConstant(DType.F32, (30, 40, 50), DATA.tobytes(), "w@0")
    once = transpose_constant(transpose_constant(cube, (1, 2, 0)), (1, 0, 2))
    assert (type(once), once.source, once.perm) == (Transposed, cube, (2, 1, 0))


def test_axes_of_size_one_move_without_a_recipe():
    kernel = MappedConstant(DType.F32, (300, 200, 1, 1), DATA.tobytes(), "w@0")
    moved = transpose_constant(kernel, (0, 2, 3, 1))
    assert (type(moved), moved.shape, moved.buffer) == (MappedConstant, (300, 1, 1, 200), kernel.buffer)


def test_operands_of_lower_rank_broadcast():
    handle = map_constants(np.multiply, [LARGE, constant(DATA[0])], DType.F32, (300, 200), "mul")
    np.testing.assert_array_equal(handle.array(), DATA * DATA[0])
