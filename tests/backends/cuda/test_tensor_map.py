"""Tensor maps: what no device can have, and one as an argument of a launch on the emulated device."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand, moved
from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap, map_fault
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation.tensor_map import STRUCT, decode_readable, encode_readable

IN, OUT = Operand.input(0), Operand.output(0)
TILED = TensorMap(IN, MapElement.F16, (100, 30, 7), (208, 6400), (64, 16, 1), Swizzle.B128)
IM2COL = TensorMap(
    IN, MapElement.F16, (64, 14, 14, 8), (128, 1792, 25088), im2col=Im2col((-1, -1), (-1, -1), 64, 128), swizzle=Swizzle.B128
)
DEEP = TensorMap(
    IN, MapElement.F32, (8, 5, 5, 5, 2), (32, 160, 800, 4000), im2col=Im2col((-16, 0, 0), (15, 0, 0), 8, 4), steps=(1, 2, 2, 2, 1)
)


def test_bytes_of_an_element():
    assert [e.nbytes for e in MapElement] == [1, 2, 4, 4, 8, 8, 2, 2, 4, 4, 8]
    assert [e for e in MapElement if not e.is_float] == list(MapElement)[:6]


@pytest.mark.parametrize(
    ("tensor", "change"),
    [
        (TILED, {}),
        (TILED, {"strides": (16, 16)}),  # rows that overlap
        (TILED, {"strides": ((1 << 40) - 16, 0)}),
        (TILED, {"dims": (1 << 32, 1, 1)}),
        (TILED, {"box": (8, 256, 256)}),
        (TILED, {"steps": (1, 8, 2), "nan_outside": True, "l2_nbytes": 256}),
        (TILED, {"swizzle": Swizzle.NONE, "box": (256, 1, 1)}),
        (TensorMap(IN, MapElement.U8, (5,), (), (256,)), {}),
        (TensorMap(IN, MapElement.TF32, (4, 4), (16,), (8, 4), Swizzle.B32), {}),
        (IM2COL, {}),
        (IM2COL, {"im2col": Im2col((-128, 127), (127, 127), 8, 1024)}),
        (DEEP, {}),
        (TensorMap(IN, MapElement.F16, (256, 9, 2), (512, 4608), im2col=Im2col((-32768,), (32767,), 256, 1)), {}),
    ],
)
def test_what_a_device_can_have(tensor: TensorMap[Operand], change: dict[str, Any]):
    assert map_fault(replace(tensor, **change)) is None


@pytest.mark.parametrize(
    ("tensor", "change", "why"),
    [
        (TILED, {"dims": (), "strides": (), "box": ()}, "a tensor map has 1 to 5 dimensions, not 0"),
        (TILED, {"dims": (1,) * 6}, "a tensor map has 1 to 5 dimensions, not 6"),
        (TILED, {"strides": (208,)}, "3 dimensions have 2 strides, and 1 are given"),
        (TILED, {"dims": (100, 0, 7)}, "dimensions are from 1 to 2^32: (100, 0, 7)"),
        (TILED, {"dims": (100, (1 << 32) + 1, 7)}, "dimensions are from 1 to 2^32: (100, 4294967297, 7)"),
        (TILED, {"strides": (200, 6400)}, "strides are multiples of 16 bytes below 2^40: (200, 6400)"),
        (TILED, {"strides": (208, 1 << 40)}, "strides are multiples of 16 bytes below 2^40: (208, 1099511627776)"),
        (TILED, {"strides": (-16, 0)}, "strides are multiples of 16 bytes below 2^40: (-16, 0)"),
        (TILED, {"steps": (1, 9, 1)}, "each dimension has a step from 1 to 8: (1, 9, 1)"),
        (TILED, {"steps": (1, 1)}, "each dimension has a step from 1 to 8: (1, 1)"),
        (TILED, {"element": MapElement.U16, "nan_outside": True}, "u16 has no NaN to fill with"),
        (TILED, {"l2_nbytes": 32}, "the L2 cache fetches 0, 64, 128 or 256 bytes more, not 32"),
        (TILED, {"box": (64, 257, 1)}, "a box has 3 sizes from 1 to 256: (64, 257, 1)"),
        (TILED, {"box": (64, 16)}, "a box has 3 sizes from 1 to 256: (64, 16)"),
        (TILED, {"box": (63, 16, 1)}, "the inner dimension of a copy is a multiple of 16 bytes, not 126"),
        (TILED, {"box": (72, 16, 1)}, "the inner dimension of a copy is 128 bytes at most with that swizzle, not 144"),
        (TILED, {"swizzle": Swizzle.B64}, "the inner dimension of a copy is 64 bytes at most with that swizzle, not 128"),
        (TILED, {"swizzle": Swizzle.B32}, "the inner dimension of a copy is 32 bytes at most with that swizzle, not 128"),
        (IM2COL, {"box": (64, 1, 1, 1)}, "a map has a box or is im2col"),
        (IM2COL, {"dims": (64, 14), "strides": (128,)}, "im2col has 3 to 5 dimensions, not 2"),
        (
            IM2COL,
            {"im2col": Im2col((-129, -1), (-1, -1), 64, 128)},
            "the lower corner of rank 4 has 2 offsets from -128 to 127: (-129, -1)",
        ),
        (
            IM2COL,
            {"im2col": Im2col((0, 0), (0, 128), 64, 128)},
            "the upper corner of rank 4 has 2 offsets from -128 to 127: (0, 128)",
        ),
        (IM2COL, {"im2col": Im2col((0,), (0, 0), 64, 128)}, "the lower corner of rank 4 has 2 offsets from -128 to 127: (0,)"),
        (
            DEEP,
            {"im2col": Im2col((0, 0, 0), (0, 0, 16), 8, 4)},
            "the upper corner of rank 5 has 3 offsets from -16 to 15: (0, 0, 16)",
        ),
        (IM2COL, {"im2col": Im2col((1, 0), (-13, 0), 64, 128)}, "no pixel lies between the corners (1, 0) and (-13, 0)"),
        (IM2COL, {"im2col": Im2col((0, 0), (0, 0), 257, 128)}, "a copy takes 1 to 256 channels of a pixel, not 257"),
        (IM2COL, {"im2col": Im2col((0, 0), (0, 0), 64, 1025)}, "a copy takes 1 to 1024 pixels, not 1025"),
        (IM2COL, {"im2col": Im2col((0, 0), (0, 0), 4, 128)}, "the inner dimension of a copy is a multiple of 16 bytes, not 8"),
        (IM2COL, {"steps": (1, 1, 9, 1)}, "each dimension has a step from 1 to 8: (1, 1, 9, 1)"),
    ],
)
def test_what_no_device_can_have(tensor: TensorMap[Operand], change: dict[str, Any], why: str):
    assert map_fault(replace(tensor, **change)) == why


def test_the_tensor_begins_at_a_multiple_of_16():
    assert map_fault(TILED, 48) is None
    assert map_fault(TILED, 56) == "the tensor begins 8 bytes behind a multiple of 16"


def test_a_map_gets_the_place_of_its_operand():
    action = Launch(Kernel("k"), (1,), (1,), (OUT, TILED, np.int32(3)))
    placed = moved(action, lambda operand: (operand.kind.value, operand.number))
    assert placed == Launch(Kernel("k"), (1,), (1,), (("output", 0), replace(TILED, operand=("input", 0)), np.int32(3)))


@pytest.mark.parametrize("tensor", [TILED, IM2COL, DEEP, replace(TILED, steps=(1, 2, 8), nan_outside=True)])
def test_the_emulated_device_s_map_tells_all(tensor: TensorMap[Operand]):
    encoded = encode_readable(tensor, 0x7F0012345640)
    assert len(encoded.contents) == 128
    assert decode_readable(encoded) == replace(tensor, operand=0x7F0012345640, steps=tensor.every)
    with pytest.raises(AssertionError, match="the tensor begins 1 bytes behind"):
        encode_readable(tensor, 0x7F0012345641)


# What a bulk copy of a box does, word for word, by a thread for each element.
COPY = Kernel(
    "copy_box",
    code=STRUCT
    + """
extern "C" __global__ void copy_box(i32 front, const __grid_constant__ TensorMap map, f32* y, i32 x0, i32 x1) {
  i32 i = (i32)threadIdx.x, j = (i32)threadIdx.y;
  i64 c0 = x0 + i, c1 = x1 + j * map.steps[1];
  bool inside = c0 >= 0 && c1 >= 0 && c0 < (i64)map.dims[0] && c1 < (i64)map.dims[1];
  const char* row = (const char*)map.address + c1 * (i64)map.strides[0];
  y[j * map.box[0] + i] = inside ? ((const f32*)row)[c0] + front : map.nan_outside ? NAN : 0.0f;
}
""",
)


@pytest.mark.parametrize(("x0", "x1"), [(0, 0), (3, 2), (-2, -1), (9, 4)])
@pytest.mark.parametrize("nan_outside", [False, True])
def test_a_kernel_reads_the_map_it_is_launched_with(x0: int, x1: int, nan_outside: bool):
    x, y = Buffer(4 * 12 * 6), Buffer(4 * 8 * 3)
    values = np.random.default_rng(100 + x0 + 10 * x1).standard_normal((6, 12), np.float32)
    x.view(np.float32, (6, 12))[...] = values
    tensor = TensorMap(IN, MapElement.F32, (10, 6), (48,), (8, 6), steps=(1, 2), nan_outside=nan_outside)
    arguments = (np.int32(100), tensor, OUT, np.int32(x0), np.int32(x1))
    launch(Launch(COPY, (1,), (8, 3), arguments), lambda operand: (x if operand == IN else y).address)
    y.check()
    expected = np.full((3, 8), np.nan if nan_outside else 0, np.float32)
    for j, i in np.ndindex(3, 8):
        row, column = x1 + 2 * j, x0 + i
        if 0 <= row < 6 and 0 <= column < 10:
            expected[j, i] = values[row, column] + 100
    np.testing.assert_array_equal(y.view(np.float32, (3, 8)), expected)
