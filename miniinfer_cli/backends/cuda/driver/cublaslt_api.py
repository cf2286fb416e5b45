"""The part of cublasLt.h that is used: numbers and C prototypes, and one check for every status.

The numbers are the same in cuBLAS 12 and 13. Descriptors are made by the library, so their sizes stay its own affair.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any

from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType

# cudaDataType
CUDA_R_32F = 0
CUDA_R_64F = 1
CUDA_R_16F = 2
CUDA_R_8I = 3
CUDA_R_32I = 10
CUDA_R_16BF = 14
CUDA_R_8F_E4M3 = 28
CUDA_R_8F_E5M2 = 29
DATA_TYPES = {
    DType.F32: CUDA_R_32F,
    DType.F64: CUDA_R_64F,
    DType.F16: CUDA_R_16F,
    DType.I8: CUDA_R_8I,
    DType.I32: CUDA_R_32I,
    DType.BF16: CUDA_R_16BF,
    DType.F8E4M3FN: CUDA_R_8F_E4M3,
    DType.F8E5M2: CUDA_R_8F_E5M2,
}

# cublasComputeType_t
COMPUTE_32F = 68
COMPUTE_64F = 70
COMPUTE_32I = 72
COMPUTE_32F_FAST_TF32 = 77

# cublasOperation_t
OP_N = 0
OP_T = 1

# cublasLtMatrixLayoutAttribute_t
LAYOUT_BATCH_COUNT = 5  # int32
LAYOUT_STRIDED_BATCH_OFFSET = 6  # int64

# cublasLtMatmulDescAttributes_t
DESC_TRANSA = 3  # int32
DESC_TRANSB = 4  # int32
DESC_EPILOGUE = 7  # uint32
DESC_BIAS_POINTER = 8  # address

# cublasLtEpilogue_t
EPILOGUE_DEFAULT = 1
EPILOGUE_RELU = 2
EPILOGUE_BIAS = 4
EPILOGUE_GELU = 32  # by tanh

# cublasLtMatmulPreferenceAttributes_t
PREF_MAX_WORKSPACE_BYTES = 1  # uint64
PREF_REDUCTION_SCHEME_MASK = 3  # uint32
PREF_MIN_ALIGNMENT_BYTES = (5, 6, 7, 8)  # uint32; of A, B, C, D

# cublasLtReductionScheme_t: bits of a mask; no reduction at all is always allowed
REDUCTION_SCHEME_COMPUTE_TYPE = 2

# cublasLtMatmulAlgoConfigAttributes_t
CONFIG_ID = 0  # int32
CONFIG_TILE_ID = 1  # uint32
CONFIG_SPLITK_NUM = 2  # int32
CONFIG_REDUCTION_SCHEME = 3  # uint32
CONFIG_STAGES_ID = 6  # uint32
CONFIG_CLUSTER_SHAPE_ID = 8  # uint16

# cublasStatus_t
STATUS_SUCCESS = 0
STATUS_INVALID_VALUE = 7
STATUS_ARCH_MISMATCH = 8
STATUS_NOT_SUPPORTED = 15


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = (("data", c_uint64 * 8),)


ALGORITHM_NBYTES = ctypes.sizeof(Algorithm)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", Algorithm),
        ("workspace_nbytes", c_size_t),
        ("state", c_int),
        ("waves", ctypes.c_float),
        ("reserved", c_int * 4),
    )


_HANDLE = c_void_p
_OUT = POINTER(c_void_p)
_SET = (c_void_p, c_int, c_void_p, c_size_t)
_GET = (c_void_p, c_int, c_void_p, c_size_t, POINTER(c_size_t))
_LAYOUTS = (c_void_p, c_void_p, c_void_p, c_void_p)  # of A, B, C, D
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_OUT,),
    "cublasLtDestroy": (_HANDLE,),
    "cublasLtMatmulDescCreate": (_OUT, c_int, c_int),
    "cublasLtMatmulDescDestroy": (c_void_p,),
    "cublasLtMatmulDescSetAttribute": _SET,
    "cublasLtMatrixLayoutCreate": (_OUT, c_int, c_uint64, c_uint64, c_int64),
    "cublasLtMatrixLayoutDestroy": (c_void_p,),
    "cublasLtMatrixLayoutSetAttribute": _SET,
    "cublasLtMatmulPreferenceCreate": (_OUT,),
    "cublasLtMatmulPreferenceDestroy": (c_void_p,),
    "cublasLtMatmulPreferenceSetAttribute": _SET,
    # handle, description, layouts, preference, how many, results, how many were found
    "cublasLtMatmulAlgoGetHeuristic": (_HANDLE, c_void_p, *_LAYOUTS, c_void_p, c_int, POINTER(HeuristicResult), POINTER(c_int)),
    "cublasLtMatmulAlgoConfigGetAttribute": _GET,
    # handle, description, layouts, algorithm, what it needs
    "cublasLtMatmulAlgoCheck": (_HANDLE, c_void_p, *_LAYOUTS, POINTER(Algorithm), POINTER(HeuristicResult)),
    # handle, description, alpha, A, its layout, B, its layout, beta, C, its layout, D, its layout, algorithm, workspace,
    # its size, stream
    "cublasLtMatmul": (
        *(_HANDLE, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
        *(c_void_p, POINTER(Algorithm), c_void_p, c_size_t, c_void_p),
    ),
}


def declare(library: ctypes.CDLL) -> None:
    """Gives the library's functions their types. Raises DeviceError where one of them is missing."""
    try:
        for name, arguments in _PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
        library.cublasLtGetStatusName.argtypes, library.cublasLtGetStatusName.restype = (c_int,), c_char_p
        library.cublasLtGetVersion.argtypes, library.cublasLtGetVersion.restype = (), c_size_t
    except AttributeError as error:
        raise DeviceError(f"this cublasLt library is too old: {error}") from error


def call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Calls a function that returns a status. Raises DeviceError with the status's name unless it succeeded."""
    status = getattr(library, name)(*arguments)
    if status != STATUS_SUCCESS:
        raise DeviceError(f"{name} failed with {status_name(library, status)}")


def status_name(library: ctypes.CDLL, status: int) -> str:
    """``CUBLAS_STATUS_...`` and the number."""
    name: bytes | None = library.cublasLtGetStatusName(status)
    return f"{name.decode() if name else 'an unknown status'} ({status})"


def create(library: ctypes.CDLL, name: str, *arguments: Any) -> int:
    """The address of what a function ``cublasLt...Create`` made. Raises DeviceError where it fails."""
    made = c_void_p()
    call(library, name, byref(made), *arguments)
    return made.value or 0


def set_attribute(library: ctypes.CDLL, name: str, descriptor: int, attribute: int, value: Any) -> None:
    """Sets an attribute of a descriptor through the function ``name``; ``value`` is a ctypes scalar of its exact type."""
    call(library, name, descriptor, attribute, byref(value), ctypes.sizeof(value))


def config_value(library: ctypes.CDLL, algorithm: Algorithm, attribute: int, kind: type = c_int32) -> int:
    """An attribute of an algorithm, of the ctypes scalar type ``kind``; -1 where the algorithm has none."""
    value, written = kind(), c_size_t()
    status = library.cublasLtMatmulAlgoConfigGetAttribute(
        byref(algorithm), attribute, byref(value), ctypes.sizeof(value), byref(written)
    )
    return int(value.value) if status == STATUS_SUCCESS else -1
