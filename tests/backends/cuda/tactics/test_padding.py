"""Pad and CenterCropPad on the emulated device beside their references."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

MODES = ("constant", "edge", "reflect", "wrap")


def data(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def ints(*items):
    return np.array(items, np.int64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_modes(mode, dtype):
    x = data(3, 4, 8, dtype=dtype)
    check_op("Pad", x, ints(1, 0, 2, 0, 3, 1), mode=mode)
    check_op("Pad", x, ints(1, 0, 0, 2, 3, 0), mode=mode)  # whole rows stay together
    check_op("Pad", x, ints(-1, 0, 5, 2, -1, 17), mode=mode)  # crops, and turns several times
    check_op("Pad", data(3, 4, 1, dtype=dtype), ints(3, 4), None, ints(-1), mode=mode)


def test_the_value_is_read_where_it_lies():
    check_op("Pad", data(3, 8), ints(0, 4, 1, 8), np.array(7, np.float32))
    check_op("Pad", data(3, 8), ints(0, 4, 1, 8), np.array([7], np.float32), constants=(2,))
    check_op("Pad", data(0, 4), ints(1, 0, 1, 0), np.array([7], np.float32))
    check_op("Pad", data(4, 4, 16), ints(-4, 0, 0, 1, 0, 0), np.array([7], np.float32))  # nothing of it is left
    check_op("Pad", data(2, 3, dtype=np.complex128), ints(1, 1, 1, 1), np.array(1 + 2j))


@pytest.mark.parametrize("size", range(4))
def test_crops_beyond_the_axis(size):
    for before, after in ((-2, 2), (3, -4), (-4, 4), (1, -1), (-5, 3), (4, -5)):
        if size + before + after >= 0:
            check_op("Pad", data(2, size), ints(0, before, 1, after), np.array(7, np.float32))


def test_channels_last_images_are_padded_by_units():
    check_op("Pad", data(2, 9, 9, 8, dtype=np.float16), ints(1, 1, 1, 1), None, ints(1, 2), target=Target(multiprocessors=1))
    pads = lower_op("Pad", np.zeros((2, 9, 9, 8), np.float16), ints(1, 1, 1, 1), None, ints(1, 2), constants=(1, 3))
    macros = dict(pads.actions[0].kernel.defines)
    assert macros["MI_WIDTH"] == "8" and macros["MI_RANK"] == "3"


def test_nothing_to_add():
    check_op("Pad", data(), ints())
    check_op("Pad", data(3, 4, 8), ints(0, -1, 0, 0, 0, -4))
    same = lower_op("Pad", data(3, 4), ints(0, 0, 0, 0), constants=(1,))
    assert isinstance(same.actions[0], Copy)


def test_pads_that_depend_on_data_are_the_hosts():
    assert lower_op("Pad", data(3, 4), ints(0, 0, 0, 0)) is None


def test_center_crop_pad():
    check_op("CenterCropPad", data(5, 4, 8), ints(2, 7, 8))
    check_op("CenterCropPad", data(5, 4, 8, dtype=np.uint8), ints(9, 3), axes=[1, -1])
    check_op("CenterCropPad", data(5, 4, 8), ints(0, 7, 8))


def test_64_bit_indices(wide_indices):
    check_op("Pad", data(3, 4, 8), ints(1, 0, 2, 0, 3, 1), mode="reflect")
    check_op("Pad", data(3, 4, 8), ints(1, 0, 2, 0, 3, 1))
