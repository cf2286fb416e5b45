"""Tensor maps as the driver is asked for them, and as parameters of a launch."""

import numpy as np
import pytest
from cuda.bindings.driver import CUresult

from miniinfer_cli.backends.cuda.contract.parameters import Encoded, pack_parameters
from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.tensor_maps import encode_tensor_map
from miniinfer_cli.errors import DeviceError
from tests.backends.cuda.driver.fake_driver import FakeDriver

TILED = TensorMap(None, MapElement.BF16, (100, 30), (208,), (64, 16), Swizzle.B128, nan_outside=True, l2_nbytes=128)
IM2COL = TensorMap(
    None,
    MapElement.TF32,
    (8, 7, 6, 5, 4),
    (32, 224, 1344, 6720),
    im2col=Im2col((-1, -2, -3), (1, 2, 3), 8, 40),
    steps=(1, 2, 3, 4, 1),
)


def test_the_driver_gets_a_box(device: Device, fake: FakeDriver):
    encoded = device.encode(TILED, 0x1000)
    assert encoded.contents == b"\x5a" * 128
    assert fake.maps == [(9, 0x1000, (100, 30), (208,), (64, 16), (1, 1), (0, 3, 2, 1))]


def test_the_driver_gets_corners(device: Device, fake: FakeDriver):
    device.encode(IM2COL, 0x2000)
    box = ((-1, -2, -3), (1, 2, 3), 8, 40)
    assert fake.maps == [(11, 0x2000, (8, 7, 6, 5, 4), (32, 224, 1344, 6720), box, (1, 2, 3, 4, 1), (0, 0, 0, 0))]


def test_a_vector_has_no_strides(device: Device, fake: FakeDriver):
    device.encode(TensorMap(None, MapElement.U8, (99,), (), (16,)), 0x3000)
    assert fake.maps == [(0, 0x3000, (99,), (), (16,), (1,), (0, 0, 0, 0))]


@pytest.fixture
def refusing(fake: FakeDriver) -> FakeDriver:
    fake.map_status = int(CUresult.CUDA_ERROR_INVALID_VALUE)
    return fake


def test_what_is_refused(device: Device, refusing: FakeDriver):
    with pytest.raises(DeviceError, match=r"^TensorMap\(.*\): the tensor begins 8 bytes behind a multiple of 16"):
        device.encode(TILED, 0x1008)
    with pytest.raises(DeviceError, match="tensor maps begin with sm_90, and this is sm_80"):
        encode_tensor_map(device, 80, TILED, 0x1000)
    assert refusing.maps == []
    with pytest.raises(DeviceError, match=r"^TensorMap\(.*\): cuTensorMapEncodeTiled failed: CUDA_ERROR_INVALID_VALUE"):
        device.encode(TILED, 0x1000)
    with pytest.raises(DeviceError, match="cuTensorMapEncodeIm2col failed"):
        device.encode(IM2COL, 0x1000)


def test_a_map_is_a_parameter_of_64_bytes_alignment():
    first, second = Encoded(bytes(range(128))), Encoded(b"\7" * 128)
    parameters = pack_parameters([np.uint64(5), first, np.int32(3), second])
    assert parameters.offsets == (0, 64, 192, 256) and parameters.nbytes == 384
    assert parameters.buffer.ctypes.data % 64 == 0
    assert parameters.buffer[64:192].tobytes() == first.contents and parameters.buffer[256:].tobytes() == second.contents
    again = parameters.replaced({2: np.int32(9)})
    assert again.buffer.ctypes.data % 64 == 0
    assert again.buffer[64:192].tobytes() == first.contents and again.buffer[192:196].view(np.int32) == [9]
