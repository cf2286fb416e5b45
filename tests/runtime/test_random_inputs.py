"""Random inputs: seeded, shaped by flags, files and ranges."""

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli.errors import OutOfMemoryError, UsageError
from miniinfer_cli.ir import DType, SequenceType, TensorType, symbol
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.random_inputs import random_inputs

BATCH, SEQ = symbol("batch"), symbol("seq")
X = Binding("x", TensorType(DType.F32, (BATCH, 3, SEQ)))
IDS = Binding("ids", TensorType(DType.I64, (BATCH, SEQ)))
MASK = Binding("mask", TensorType(DType.BOOL, (SEQ,)))


def shapes(bindings, ranges=None, given_shapes=None, given=None, seed=0):
    arrays = random_inputs(bindings, ranges or {}, given_shapes or {}, given or {}, seed)
    return {n: a.shape for n, a in arrays.items()}


def test_open_dimensions_are_the_optimum_or_one():
    assert shapes([X, IDS, MASK]) == {"x": (1, 3, 1), "ids": (1, 1), "mask": (1,)}
    ranges = {"seq": DimensionRange("seq", 1, 7, 9)}
    assert shapes([X, IDS, MASK], ranges) == {"x": (1, 3, 7), "ids": (1, 7), "mask": (7,)}


def test_a_shape_given_for_one_input_holds_for_all():
    assert shapes([X, IDS, MASK], None, {"ids": (4, 6)}) == {"x": (4, 3, 6), "ids": (4, 6), "mask": (6,)}


def test_a_file_gives_shapes_too():
    given = {"ids": np.ones((2, 5), np.int64)}
    arrays = random_inputs([X, IDS, MASK], {}, {}, given, 0)
    assert arrays["ids"] is given["ids"]
    assert arrays["x"].shape == (2, 3, 5)


def test_values_are_seeded_and_in_range():
    one, same, other = (random_inputs([X, IDS, MASK], {}, {"ids": (50, 60)}, {}, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[n], same[n]) for n in one)
    assert not np.array_equal(one["x"], other["x"])
    assert one["x"].dtype == np.float32
    assert -1 <= one["x"].min() < -0.9
    assert 0.9 < one["x"].max() < 1
    assert sorted(set(one["ids"].reshape(-1).tolist())) == [0, 1]
    assert one["mask"].dtype == bool


def test_rank_0_gives_arrays_too():
    kinds = (DType.F32, DType.BF16, DType.I64, DType.BOOL, DType.C64)
    arrays = random_inputs([Binding(k.value, TensorType(k, ())) for k in kinds], {}, {}, {}, 0)
    assert [(type(a), a.shape) for a in arrays.values()] == [(np.ndarray, ())] * len(kinds)


def test_integers_may_be_drawn_from_other_bounds():
    arrays = random_inputs([IDS, MASK], {}, {"ids": (50, 60)}, {}, 0, integers=(1, 1))
    assert arrays["ids"].min() == arrays["ids"].max() == 1
    assert 0 < arrays["mask"].sum() < 60


@pytest.mark.parametrize(
    ("bindings", "given_shapes", "message"),
    [
        ([X], {"y": (1,)}, r"there is no input 'y'\n  hint: the inputs are x: f32\[batch,3,seq\]"),
        ([X], {"x": (1, 3)}, r"input 'x': shape 1x3 has rank 2, expected f32\[batch,3,seq\]"),
        ([X], {"x": (1, 4, 2)}, r"input 'x': shape 1x4x2 does not fit f32\[batch,3,seq\]: 4 is not 3"),
        ([X, IDS], {"x": (1, 3, 2), "ids": (2, 2)}, r"input 'ids': batch is 2, but 1 in another input"),
        ([Binding("s", SequenceType(None))], {}, r"input 's' is seq\(\?\): random values are made for tensors only"),
        ([Binding("s", TensorType(DType.STR, (2,)))], {}, r"input 's' holds strings\n  hint: give it: {'s': array}"),
        (
            [Binding("e", TensorType(DType.F32, (0, 2**62)))],
            {},
            r"'e' of 0x4611686018427387904 is beyond what an array can be\n  hint",
        ),
        (
            [Binding("u", TensorType(DType.F32))],
            {},
            r"the rank of input 'u' is not known\n  hint: give its shape: {'u': \(1, 3, 224, 224\)}",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(bindings, given_shapes, message):
    with pytest.raises(UsageError, match=message):
        random_inputs(bindings, {}, given_shapes, {}, 0)


def test_an_input_that_cannot_fit_is_refused_with_both_numbers():
    with pytest.raises(
        OutOfMemoryError,
        match=r"input 'x' of 1000000000x3x1000000000: more than 2\^63 bytes needed, \d+ MiB free\n  hint: run",
    ):
        random_inputs([X], {}, {"x": (10**9, 3, 10**9)}, {}, 0)
