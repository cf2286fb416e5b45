"""Transpose, Concat, Split, Expand, Tile on the emulated device beside their references."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.movement.transposing import TransposeHeuristic, permute_ways
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op

RNG = np.random.default_rng(11)
SMALL = Target(multiprocessors=1)  # so that every thread goes round its loop


def data(*shape, dtype=np.float32):
    return RNG.integers(0, 100, shape).astype(dtype)


def only_action(*args, **attrs):
    (action,) = lower_op(*args, **attrs).actions
    return action


def macros(action):
    return dict(action.kernel.defines)


# -- Transpose ---------------------------------------------------------------------------------------------------------

TILED = [
    ((70, 130), (1, 0)),  # no whole tile, nothing aligned
    ((64, 96), (1, 0)),
    ((2, 16, 5, 20), (0, 2, 3, 1)),  # NCHW to NHWC
    ((2, 5, 20, 16), (0, 3, 1, 2)),  # and back
    ((2, 20, 3, 36), (3, 0, 2, 1)),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.complex128])
def test_transpose_by_tiles(dtype):
    for shape, perm in TILED:
        check_op("Transpose", data(*shape, dtype=dtype), perm=perm)


def test_transpose_fills_tiles_of_both_sizes():
    check_op("Transpose", data(68, 200), target=SMALL)
    big = only_action("Transpose", np.zeros((2048, 2048), np.float16))
    assert (macros(big)["MI_TILE"], macros(big)["MI_LOAD"], macros(big)["MI_STORE"]) == ("64", "4", "4")
    assert big.grid == (32 * 32,)
    odd = only_action("Transpose", np.zeros((2048, 2047), np.float16))
    assert (macros(odd)["MI_LOAD"], macros(odd)["MI_STORE"]) == ("1", "4")


@pytest.mark.parametrize(
    ("dtype", "keys"),
    [(np.float16, ["tiles 32x32", "tiles 64x64", "copy"]), (np.float64, ["tiles 32x32", "copy"])],
    ids=["narrow", "wide"],
)
def test_every_tactic_transposes_when_it_is_forced(dtype, keys):
    assert check_every_tactic("Transpose", data(70, 130, dtype=dtype), perm=[1, 0], target=Target()) == keys
    assert check_every_tactic("Transpose", data(2, 7, 3, 8, dtype=dtype), perm=[0, 2, 1, 3], target=Target()) == ["copy"]


def test_thresholds_are_those_of_the_table():
    def first(*shape, **table):
        perm, table = [0, 2, 1], TransposeHeuristic(**table)
        return permute_ways(Operand.output(0), Operand.input(0), 4, shape, perm, Target(), table)[0][0]

    assert [first(2, 70, 130, tile_blocks=n) for n in (0, 1)] == ["tiles 64x64", "tiles 32x32"]
    assert [first(2, 9, 9, thin=n) for n in (9, 10)] == ["tiles 32x32", "copy"]


SHORT = [
    ((2, 12, 16, 3), (0, 3, 1, 2)),  # three channels
    ((2, 3, 12, 16), (0, 2, 3, 1)),
    ((2, 7, 3, 8), (0, 2, 1, 3)),  # runs stay together
    ((20, 21, 2), (2, 1, 0)),  # pairs spread over planes: tiles over the axes behind
    ((2, 20, 21), (2, 1, 0)),
    ((2, 20, 32), (2, 1, 0)),
    ((2, 3, 4, 5, 6), (4, 2, 0, 3, 1)),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_transpose_of_short_axes(dtype):
    for shape, perm in SHORT:
        check_op("Transpose", data(*shape, dtype=dtype), perm=perm)


def test_transpose_leaves_what_does_not_move():
    assert only_action("Transpose", data(1, 3, 1, 4), perm=(2, 1, 0, 3)) == only_action("Transpose", data(12), perm=(0,))
    assert isinstance(only_action("Transpose", data()), Copy)
    heads = only_action("Transpose", np.zeros((2, 128, 12, 64), np.float16), perm=(0, 2, 1, 3))
    assert heads.kernel.name == "copy" and "u64, 2" in macros(heads)["MI_T"]
    pairs = only_action("Transpose", np.zeros((32, 32, 2), np.float16), perm=(1, 0, 2))
    assert pairs.kernel.name == "transpose" and macros(pairs)["MI_T"] == "u32"


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (3, 0)])
def test_transpose_of_next_to_nothing(shape):
    check_op("Transpose", data(*shape))


# -- Concat, Split -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_concat(dtype):
    check_op("Concat", data(2, 3, dtype=dtype), data(2, 5, dtype=dtype), data(2, 0, dtype=dtype), axis=1)
    check_op("Concat", data(3, 16, 4, dtype=dtype), data(3, 1, 4, dtype=dtype), axis=-2)
    check_op("Concat", data(2, 3, dtype=dtype), data(5, 3, dtype=dtype), axis=0)
    check_op("Concat", data(7, dtype=dtype), axis=0)
    check_op("Concat", data(0, 3, dtype=dtype), data(0, 2, dtype=dtype), axis=1)
    check_op("Concat", *(data(2, i % 5, 4, dtype=dtype) for i in range(40)), axis=1)


def test_concat_of_long_and_short():
    check_op("Concat", data(9, 5000), data(9, 3), axis=1, target=SMALL)


def test_concat_is_one_launch_for_many():
    parts = [data(4, 64) for _ in range(12)]
    action = only_action("Concat", *parts, axis=1)
    assert isinstance(action, Launch) and "u64, 2" in macros(action)["MI_T"]
    assert len(lower_op("Concat", *parts, *parts, axis=1).actions) == 2
    assert isinstance(only_action("Concat", *parts, axis=0), Launch)
    # Bytes in odd places are what the copy engine does best.
    odd = [data(5, dtype=np.uint8), data(7, dtype=np.uint8)]
    assert all(isinstance(a, Copy) for a in lower_op("Concat", *odd, axis=0).actions)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_split(dtype):
    check_op("Split", data(6, 40, dtype=dtype), axis=1, num_outputs=3, n_outputs=3)
    check_op("Split", data(6, 48, 2, dtype=dtype), axis=-2, num_outputs=24, n_outputs=24)
    check_op("Split", data(6, 40, dtype=dtype), np.array([1, 0, 5]), axis=0, n_outputs=3)
    check_op("Split", data(0, 4, dtype=dtype), axis=1, num_outputs=2, n_outputs=2)
    check_op("Split", data(9, 5003, dtype=dtype), np.array([5000, 3]), axis=1, n_outputs=2, target=SMALL)


# -- Expand, Tile ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.complex128])
def test_expand(dtype):
    for shape, target in [((3, 1), (2, 1, 64)), ((3, 1), (2, 1, 7)), ((), (2, 16)), ((1, 4), (5, 1)), ((3, 1), (0, 1, 4))]:
        check_op("Expand", data(*shape, dtype=dtype), np.array(target))
    check_op("Expand", data(3, 1, 2, dtype=dtype), np.array([1, 3000, 1]), target=SMALL)


def test_expand_to_the_same_shape_is_a_copy():
    check_op("Expand", data(3, 4), np.array([1, 1]))
    assert isinstance(only_action("Expand", data(3, 4), np.array([1, 1]), constants=(1,)), Copy)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_tile(dtype):
    for shape, repeats in [((3, 4), (2, 3)), ((3, 4), (0, 3)), ((3, 1, 4), (2, 3, 1)), ((16,), (5,)), ((2, 3, 5), (3, 1, 2))]:
        check_op("Tile", data(*shape, dtype=dtype), np.array(repeats))


# -- large tensors, strings --------------------------------------------------------------------------------------------


def test_64_bit_indices(wide_indices):
    check_op("Transpose", data(3, 20, 40), perm=(0, 2, 1))
    check_op("Transpose", data(3, 4, 5), perm=(2, 0, 1))
    check_op("Concat", data(2, 3), data(2, 5), axis=1)
    check_op("Split", data(6, 40), axis=1, num_outputs=3, n_outputs=3)
    check_op("Expand", data(3, 1), np.array([2, 1, 64]))


def test_strings_are_the_hosts():
    words = np.array(["a", "b"], object)
    assert lower_op("Concat", words, words, axis=0) is None
    assert lower_op("Transpose", words) is None


@pytest.mark.parametrize(
    ("axis", "dtype", "keys"),
    [(0, np.float32, ["{}", "copies"]), (0, np.int8, ["copies", "{}"]), (1, np.float32, ["{}"])],
)
def test_every_tactic_moves_parts_when_it_is_forced(axis, dtype, keys):
    x = data(7, 5, dtype=dtype) if axis == 0 else data(5, 7, dtype=dtype)
    pieces = np.split(x, [1, 3], axis=axis)
    found = check_every_tactic("Concat", *pieces, axis=axis, target=Target())
    assert found == [key.format("concat") for key in keys]
    found = check_every_tactic("Split", x, np.array([1, 2, 4]), axis=axis, n_outputs=3, target=Target())
    assert found == [key.format("split") for key in keys]
