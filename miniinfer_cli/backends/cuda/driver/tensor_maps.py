"""Tensor maps as the driver encodes them for its device.

By way of the driver's own functions: those of cuda.bindings give maps wherever Python puts them, and the driver wants memory that
begins at a multiple of 64.
"""

import ctypes
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import ENCODED_ALIGNMENT, Encoded
from miniinfer_cli.backends.cuda.contract.tensor_map import MAP_ARCH, MapElement, Swizzle, TensorMap, map_fault
from miniinfer_cli.backends.cuda.driver.handle import Owner
from miniinfer_cli.errors import DeviceError

_NBYTES = 128
_SINCE = 12000  # the version of CUDA in which both functions came
_HEAD = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_TAIL = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)
TILED = ctypes.CFUNCTYPE(ctypes.c_int, *_HEAD, ctypes.c_void_p, *_TAIL)
"""``cuTensorMapEncodeTiled``."""
IM2COL = ctypes.CFUNCTYPE(ctypes.c_int, *_HEAD, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, *_TAIL)
"""``cuTensorMapEncodeIm2col``."""
_TYPES = {
    MapElement.U8: "UINT8",
    MapElement.U16: "UINT16",
    MapElement.U32: "UINT32",
    MapElement.I32: "INT32",
    MapElement.U64: "UINT64",
    MapElement.I64: "INT64",
    MapElement.F16: "FLOAT16",
    MapElement.BF16: "BFLOAT16",
    MapElement.F32: "FLOAT32",
    MapElement.TF32: "TFLOAT32",
    MapElement.F64: "FLOAT64",
}
_SWIZZLES = {Swizzle.NONE: "NONE", Swizzle.B32: "32B", Swizzle.B64: "64B", Swizzle.B128: "128B"}


def encode_tensor_map(device: Owner, arch: int, tensor: TensorMap[Any], address: int) -> Encoded:
    """The map of the tensor at ``address``, for launches on ``device``, which is of ``arch`` (90 for sm_90).

    Raises DeviceError for what ``map_fault`` tells, for an older device, and for what the driver refuses.
    """
    why = map_fault(tensor, address)
    if why is None and arch < MAP_ARCH:
        why = f"tensor maps begin with sm_{MAP_ARCH}, and this is sm_{arch}"
    if why is not None:
        raise DeviceError(why, where=(str(tensor),))
    driver = device.driver
    raw = np.zeros(_NBYTES + ENCODED_ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ENCODED_ALIGNMENT
    kinds, swizzles, fetches = driver.CUtensorMapDataType, driver.CUtensorMapSwizzle, driver.CUtensorMapL2promotion
    dims, strides = np.array(tensor.dims, np.uint64), np.array(tensor.strides or (0,), np.uint64)
    every = np.array(tensor.every, np.uint32)
    head = (
        raw.ctypes.data + start,
        int(getattr(kinds, f"CU_TENSOR_MAP_DATA_TYPE_{_TYPES[tensor.element]}")),
        len(tensor.dims),
        address,
        dims.ctypes.data,
        strides.ctypes.data,
    )
    fetch = f"L2_{tensor.l2_nbytes}B" if tensor.l2_nbytes else "NONE"
    fill = "NAN_REQUEST_ZERO_FMA" if tensor.nan_outside else "NONE"
    tail = (
        every.ctypes.data,
        int(driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE),
        int(getattr(swizzles, f"CU_TENSOR_MAP_SWIZZLE_{_SWIZZLES[tensor.swizzle]}")),
        int(getattr(fetches, f"CU_TENSOR_MAP_L2_PROMOTION_{fetch}")),
        int(getattr(driver.CUtensorMapFloatOOBfill, f"CU_TENSOR_MAP_FLOAT_OOB_FILL_{fill}")),
    )
    if tensor.im2col is None:
        name, box = "cuTensorMapEncodeTiled", np.array(tensor.box, np.uint32)
        status = TILED(_function(device, name))(*head, box.ctypes.data, *tail)
    else:
        name, columns = "cuTensorMapEncodeIm2col", tensor.im2col
        lower, upper = (np.array(c, np.int32) for c in (columns.lower, columns.upper))
        taken = (columns.channels, columns.pixels)
        status = IM2COL(_function(device, name))(*head, lower.ctypes.data, upper.ctypes.data, *taken, *tail)
    if status:
        raise device.fault(driver.CUresult(status), name).at(str(tensor))
    return Encoded(raw[start : start + _NBYTES].tobytes())


def _function(device: Owner, name: str) -> int:
    """The address of a function of the driver."""
    driver = device.driver
    flags = int(driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT)
    address, _ = device.call(driver.cuGetProcAddress, name.encode(), _SINCE, flags)
    return int(address)
