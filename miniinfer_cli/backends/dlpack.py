"""DLPack: arrays from other libraries, and arrays on a GPU to them (torch, cupy, jax), without a copy.

The structures are those of dlpack.h 1.0 (https://dmlc.github.io/dlpack), the manners of capsules those of the Python array
API standard: a capsule that was taken is renamed, and whoever took it calls the deleter once.
"""

import ctypes
import itertools
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, DType, dtype_of, numpy_dtype

CPU = 1  # kDLCPU
CUDA = 2  # kDLCUDA
PINNED = 3  # kDLCUDAHost
MANAGED = 13  # kDLCUDAManaged
LEGACY_STREAM = 1  # how the standard and the driver spell the default stream

# dlpack.h: kDLInt 0, kDLUInt 1, kDLFloat 2, kDLBfloat 4, kDLComplex 5, kDLBool 6, kDLFloat8_e4m3fn 10 and what follows.
_FORMS: dict[tuple[int, int], DType] = {
    (0, 8): DType.I8, (0, 16): DType.I16, (0, 32): DType.I32, (0, 64): DType.I64,
    (1, 8): DType.U8, (1, 16): DType.U16, (1, 32): DType.U32, (1, 64): DType.U64,
    (2, 16): DType.F16, (2, 32): DType.F32, (2, 64): DType.F64,
    (4, 16): DType.BF16, (5, 64): DType.C64, (5, 128): DType.C128, (6, 8): DType.BOOL,
    (10, 8): DType.F8E4M3FN, (11, 8): DType.F8E4M3FNUZ, (12, 8): DType.F8E5M2, (13, 8): DType.F8E5M2FNUZ, (14, 8): DType.F8E8M0,
}  # fmt: skip
_CODES = {dtype: form for form, dtype in _FORMS.items()}

_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _Form(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("form", _Form),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


def _python(name: str, result: Any, *arguments: Any) -> Any:
    # Prototypes of our own: those on ctypes.pythonapi's attributes are everybody's.
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_capsule = _python("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_capsule = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_pointer_of = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_rename = _python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
# A capsule that is being destroyed has no references left, and must not get one: its address stands for it.
_is_dying_capsule = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_pointer_of_dying = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)

_FRESH, _USED = b"dltensor", b"used_dltensor"


class Borrowed:
    """A producer's tensor: its deleter is called when this goes."""

    def __init__(self, pointer: int, deleter: int | None) -> None:
        if deleter:
            self._end = weakref.finalize(self, _Deleter(deleter), pointer)
            self._end.atexit = False  # the producer may be gone before us


@dataclass(frozen=True, slots=True)
class Taken:
    """What a capsule held. ``strides`` count elements, None for dense; ``owner`` keeps the memory alive; ``kind``: of device."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: "np.dtype[Any]"
    ordinal: int
    owner: Borrowed
    kind: int = CPU


def is_on_gpu(value: Any) -> bool:
    """True for what says by DLPack that it is on an NVIDIA GPU."""
    return hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) in (CUDA, MANAGED)


def take(capsule: Any) -> Taken:
    """Takes over what a capsule holds. Raises ValueError for what is no fresh capsule, or holds a type that ONNX lacks."""
    if not _is_capsule(capsule, _FRESH):
        raise ValueError("no DLPack capsule, or one that was taken before")
    pointer = _pointer_of(capsule, _FRESH)
    managed = _Managed.from_address(pointer)
    _rename(capsule, _USED)
    owner = Borrowed(pointer, managed.deleter)
    tensor = managed.tensor
    form = tensor.form
    dtype = _FORMS.get((form.code, form.bits)) if form.lanes == 1 else None
    if dtype is None:
        what = f"DLPack type {form.code} with {form.bits} bits and {form.lanes} lanes"
        raise ValueError(f"elements of {what} have no ONNX counterpart")
    ndim = tensor.ndim
    return Taken(
        int(tensor.data or 0) + int(tensor.byte_offset),
        tuple(tensor.shape[:ndim]) if ndim else (),
        tuple(tensor.strides[:ndim]) if ndim and tensor.strides else None,
        numpy_dtype(dtype),
        tensor.device.ordinal,
        owner,
        tensor.device.kind,
    )


def host_view(taken: Taken) -> Array:
    """What lies in the host's memory as an array, which keeps its owner; where it is shared, it is the producer's to write."""
    itemsize = taken.dtype.itemsize
    if not math.prod(taken.shape):
        return np.empty(taken.shape, taken.dtype)
    steps = taken.strides if taken.strides is not None else dense_strides(taken.shape)
    raw = np.dtype(f"u{itemsize}" if itemsize <= 8 else f"c{itemsize}")  # numpy's protocol cannot spell ml_dtypes' types
    view = np.asarray(_HostMemory(taken, tuple(s * itemsize for s in steps), raw.str))
    return view.view(taken.dtype)


class _HostMemory:
    """See numpy's array interface protocol, version 3."""

    def __init__(self, taken: Taken, strides: tuple[int, ...], typestr: str) -> None:
        self._owner = taken.owner
        self.__array_interface__ = {
            "shape": taken.shape,
            "typestr": typestr,
            "data": (taken.address, True),
            "strides": strides,
            "version": 3,
        }


def give(address: int, shape: tuple[int, ...], dtype: "np.dtype[Any]", ordinal: int, owner: Any, *, kind: int = CUDA) -> Any:
    """A capsule over dense memory of a device, which keeps ``owner`` alive until its taker is done. Raises BufferError."""
    form = _CODES.get(dtype_of(np.empty(0, dtype)))
    if form is None:
        raise BufferError(f"DLPack has no type for {dtype}")
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*dense_strides(shape))
    tensor = _Tensor(address, _Device(kind, ordinal), len(shape), _Form(*form, 1), sizes, steps, 0)
    number = next(_numbers)
    managed = _Managed(tensor, number, ctypes.cast(_given_back, ctypes.c_void_p))
    _given[number] = (managed, sizes, steps, owner)
    return _new_capsule(ctypes.addressof(managed), _FRESH, ctypes.cast(_forgotten, ctypes.c_void_p))


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a dense row-major array."""
    steps = []
    step = 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


_numbers = itertools.count(1)
_given: dict[int, Any] = {}  # what takers of our capsules still use, by number


def _end_loan(pointer: int) -> None:
    _given.pop(_Managed.from_address(pointer).manager, None)


def _end_capsule(capsule: int) -> None:
    """The destructor of a capsule: when nobody took what it held, nobody will."""
    if _is_dying_capsule(capsule, _FRESH):
        _end_loan(_pointer_of_dying(capsule, _FRESH))


# As C calls them. A taker may call the deleter without Python's lock, which the first form takes.
_given_back = _Deleter(_end_loan)
_forgotten = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_end_capsule)
