"""The functions of cublasLt that are used, in numpy over host memory: column-major, as the real ones think.

``algorithms`` are the answers of the heuristic: workspace bytes of each.
"""

# The names are the library's.
# ruff: noqa: N802

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.driver import cublaslt_api as api

NUMPY = {
    api.CUDA_R_32F: np.float32,
    api.CUDA_R_64F: np.float64,
    api.CUDA_R_16F: np.float16,
    api.CUDA_R_8I: np.int8,
    api.CUDA_R_32I: np.int32,
}
SCALAR = {
    api.CUDA_R_32F: ctypes.c_float,
    api.CUDA_R_64F: ctypes.c_double,
    api.CUDA_R_32I: ctypes.c_int32,
}


class FakeCublasLt:
    def __init__(self, algorithms: list[int] | None = None) -> None:
        self.algorithms = [0] if algorithms is None else algorithms
        self.heuristic_status = 0
        self.scheme = 0
        self.objects: dict[int, dict[Any, Any]] = {}
        self.preferences: list[dict[Any, Any]] = []
        self.calls: list[str] = []
        self.streams: list[Any] = []
        self.library = SimpleNamespace(**{n: self._logged(n) for n in [*api._PROTOTYPES]})
        self.library.cublasLtGetVersion = lambda: 130101
        self.library.cublasLtGetStatusName = lambda status: b"CUBLAS_STATUS_NOT_SUPPORTED" if status == 15 else None

    def _logged(self, name: str) -> Any:
        method = getattr(self, name.removeprefix("cublasLt"))

        def function(*arguments: Any) -> int:
            self.calls.append(name)
            return method(*arguments) or 0

        return function

    def _make(self, out: Any, **fields: Any) -> None:
        number = 1000 + len(self.calls)
        self.objects[number] = fields
        out._obj.value = number

    def _set(self, number: int, attribute: int, value: Any, nbytes: int) -> None:
        assert ctypes.sizeof(value._obj) == nbytes
        self.objects[number][attribute] = value._obj.value

    def Create(self, out: Any) -> None:
        self._make(out)

    def Destroy(self, handle: int) -> None:
        del self.objects[handle]

    def MatmulDescCreate(self, out: Any, compute: int, scale: int) -> None:
        self._make(out, compute=compute, scale=scale)

    def MatrixLayoutCreate(self, out: Any, dtype: int, rows: int, columns: int, ld: int) -> None:
        assert ld >= rows
        self._make(out, dtype=dtype, rows=rows, columns=columns, ld=ld)

    def MatmulPreferenceCreate(self, out: Any) -> None:
        self._make(out)

    MatmulDescDestroy = MatrixLayoutDestroy = MatmulPreferenceDestroy = Destroy
    MatmulDescSetAttribute = MatrixLayoutSetAttribute = MatmulPreferenceSetAttribute = _set

    def MatmulAlgoGetHeuristic(self, handle: int, desc: int, *rest: Any) -> int:
        preference, count, results, returned = rest[4:]
        wanted = self.objects[preference]
        self.preferences.append({**wanted, "bias": self.objects[desc].get(api.DESC_BIAS_POINTER)})
        fitting = [(i, w) for i, w in enumerate(self.algorithms) if w <= wanted[api.PREF_MAX_WORKSPACE_BYTES]][:count]
        for result, (number, workspace) in zip(results, fitting, strict=False):
            result.algorithm.data[0], result.workspace_nbytes = number, workspace
        returned._obj.value = len(fitting)
        return self.heuristic_status

    def MatmulAlgoCheck(self, handle: int, desc: int, *rest: Any) -> int:
        algorithm, result = rest[4:]
        number = algorithm._obj.data[0]
        if number >= len(self.algorithms):
            return api.STATUS_NOT_SUPPORTED
        result._obj.workspace_nbytes = self.algorithms[number]
        return 0

    def MatmulAlgoConfigGetAttribute(self, algorithm: Any, attribute: int, out: Any, nbytes: int, written: Any) -> int:
        if attribute == api.CONFIG_REDUCTION_SCHEME:
            out._obj.value = self.scheme
            return 0
        if attribute != api.CONFIG_ID:
            return api.STATUS_NOT_SUPPORTED
        out._obj.value = algorithm._obj.data[0]
        return 0

    def _matrix(self, address: int, layout: int, index: int) -> Any:
        """The column-major matrix as a numpy array of rows x columns over the memory itself."""
        x = self.objects[layout]
        dtype = np.dtype(NUMPY[x["dtype"]])
        start = address + index * x.get(api.LAYOUT_STRIDED_BATCH_OFFSET, 0) * dtype.itemsize
        count = (x["columns"] - 1) * x["ld"] + x["rows"]
        raw = np.frombuffer((ctypes.c_uint8 * (count * dtype.itemsize)).from_address(start), np.uint8).view(dtype)
        strides = (dtype.itemsize, x["ld"] * dtype.itemsize)
        return np.lib.stride_tricks.as_strided(raw, (x["rows"], x["columns"]), strides)

    def Matmul(self, handle: int, desc: int, alpha: Any, *rest: Any) -> int:
        a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, _algorithm, _workspace, _nbytes, stream = rest
        self.streams.append(stream)
        x = self.objects[desc]
        assert type(alpha._obj) is type(beta._obj) is SCALAR[x["scale"]]
        batch = self.objects[d_layout].get(api.LAYOUT_BATCH_COUNT, 1)
        epilogue = x[api.DESC_EPILOGUE]
        for index in range(batch):
            first, second = (
                self._matrix(address, layout, index).astype(np.float64) for address, layout in ((a, a_layout), (b, b_layout))
            )
            first = first.T if x[api.DESC_TRANSA] else first
            second = second.T if x[api.DESC_TRANSB] else second
            total = alpha._obj.value * (first @ second)
            if beta._obj.value:
                total = total + beta._obj.value * self._matrix(c, c_layout, index).astype(np.float64)
            target = self._matrix(d, d_layout, index)
            if epilogue & api.EPILOGUE_BIAS:
                rows = target.shape[0]
                raw = (ctypes.c_uint8 * (rows * target.itemsize)).from_address(x[api.DESC_BIAS_POINTER])
                total = total + np.frombuffer(raw, np.uint8).view(target.dtype).astype(np.float64)[:, None]
            if epilogue & api.EPILOGUE_RELU:
                total = np.maximum(total, 0)
            if epilogue & api.EPILOGUE_GELU:
                total = 0.5 * total * (1 + np.tanh(0.7978845608028654 * (total + 0.044715 * total**3)))
            target[...] = total
        return 0
