"""Matrix products by cuBLASLt, with bias, residual and activation in the same kernel."""

import ctypes
import threading
import weakref
from collections.abc import Sequence
from ctypes import byref, c_double, c_float, c_int, c_int32, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem, Variant
from miniinfer_cli.backends.cuda.driver import cublaslt_api as api
from miniinfer_cli.backends.cuda.driver.cublaslt_forms import ColumnMajor, form_of
from miniinfer_cli.backends.cuda.driver.library_loading import load_library
from miniinfer_cli.errors import DeviceError

if TYPE_CHECKING:
    from miniinfer_cli.backends.cuda.driver.device import Device

WORKSPACE_LIMIT = 32 << 20
_ALGORITHM = "algorithm"
_COMPUTE = {
    Compute.F32: api.COMPUTE_32F,
    Compute.TF32: api.COMPUTE_32F_FAST_TF32,
    Compute.F64: api.COMPUTE_64F,
    Compute.I32: api.COMPUTE_32I,
}
# The type of alpha and beta under each way to compute, as cudaDataType and for C.
_SCALE: dict[Compute, tuple[int, Any]] = {
    Compute.F32: (api.CUDA_R_32F, c_float),
    Compute.TF32: (api.CUDA_R_32F, c_float),
    Compute.F64: (api.CUDA_R_64F, c_double),
    Compute.I32: (api.CUDA_R_32I, c_int32),
}


class _Descriptors:
    """The library's descriptors of one problem: host memory, freed with the last PreparedMatmul that uses them.

    Freeing them calls nothing of CUDA, so the garbage collector may do it at any time, during a capture too.
    """

    def __init__(self, library: ctypes.CDLL, problem: MatmulProblem, form: ColumnMajor) -> None:
        self.lock = threading.Lock()
        made: list[tuple[str, int]] = []
        # Registered first, so that what was made before a failure is freed as well.
        weakref.finalize(self, _destroy, library, made)
        scale, _ = _SCALE[form.compute]
        self.operation = api.create(library, "cublasLtMatmulDescCreate", _COMPUTE[form.compute], scale)
        made.append(("cublasLtMatmulDescDestroy", self.operation))
        for attribute, value in (
            (api.DESC_TRANSA, c_int32(api.OP_T if form.transpose_first else api.OP_N)),
            (api.DESC_TRANSB, c_int32(api.OP_T if form.transpose_second else api.OP_N)),
            (api.DESC_EPILOGUE, c_uint32(form.epilogue)),
        ):
            api.set_attribute(library, "cublasLtMatmulDescSetAttribute", self.operation, attribute, value)
        if problem.bias:
            # The heuristic reads nothing there, but takes the bias to be as aligned as this address.
            address = c_void_p(problem.alignment)
            api.set_attribute(library, "cublasLtMatmulDescSetAttribute", self.operation, api.DESC_BIAS_POINTER, address)
        layouts = []
        for layout in (form.first, form.second, form.d):
            made_layout = api.create(
                library,
                "cublasLtMatrixLayoutCreate",
                api.DATA_TYPES[layout.dtype],
                layout.rows,
                layout.columns,
                layout.ld,
            )
            made.append(("cublasLtMatrixLayoutDestroy", made_layout))
            layouts.append(made_layout)
            if form.batch > 1:
                set_layout = "cublasLtMatrixLayoutSetAttribute"
                api.set_attribute(library, set_layout, made_layout, api.LAYOUT_BATCH_COUNT, c_int32(form.batch))
                api.set_attribute(library, set_layout, made_layout, api.LAYOUT_STRIDED_BATCH_OFFSET, c_int64(layout.stride))
        self.first, self.second, self.d = layouts
        self.alpha = _SCALE[form.compute][1](int(problem.alpha) if form.compute is Compute.I32 else problem.alpha)
        self.beta = _SCALE[form.compute][1](int(form.beta) if form.compute is Compute.I32 else form.beta)


def _destroy(library: ctypes.CDLL, made: list[tuple[str, int]]) -> None:
    for name, descriptor in made:
        getattr(library, name)(descriptor)


class PreparedMatmul:
    """One algorithm for one problem. Any thread may enqueue it, on any stream of its device."""

    def __init__(
        self, library: ctypes.CDLL, handle: int, problem: MatmulProblem, descriptors: _Descriptors, found: api.HeuristicResult
    ) -> None:
        self.problem = problem
        self.workspace_nbytes = int(found.workspace_nbytes)
        """Bytes of workspace that enqueue() must be given, on a multiple of 256."""
        self.name = _name(library, found.algorithm)
        """The algorithm for a person: its number, and the library's numbers of its tile, stages, cluster and split."""
        self._library = library
        self._handle = handle
        self._descriptors = descriptors
        self._algorithm = found.algorithm
        self.variant = Variant.of({_ALGORITHM: bytes(found.algorithm)})
        """How the library is told of the algorithm again."""
        self._operands = 3 + problem.residual + problem.bias

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        """Puts the product on a stream; the device must be the calling thread's current one. May be captured.

        ``addresses``: A, B, D, then C if there is a residual, then the bias if there is one, each a multiple of the problem's
        alignment; C may be D. ``workspace``: the address of ``workspace_nbytes`` bytes that nothing else uses meanwhile.
        Before a capture every algorithm must have run once, for its kernel is loaded by then. Raises ValueError for addresses
        that do not fit, DeviceError where the library refuses.
        """
        if len(addresses) != self._operands:
            raise ValueError(f"expected {self._operands} addresses, got {len(addresses)}")
        if any(address % self.problem.alignment for address in addresses):
            shown = ", ".join(map(hex, addresses))
            raise ValueError(f"operands must lie on multiples of {self.problem.alignment} bytes, got {shown}")
        if self.workspace_nbytes and not workspace:
            raise ValueError(f"{self.name} needs a workspace of {self.workspace_nbytes} bytes")
        if self.problem.bias:
            # The bias's address is part of the description, which the streams share.
            with self._descriptors.lock:
                bias = c_void_p(addresses[-1])
                operation = self._descriptors.operation
                api.set_attribute(self._library, "cublasLtMatmulDescSetAttribute", operation, api.DESC_BIAS_POINTER, bias)
                self._call(stream_handle, addresses, workspace)
        else:
            self._call(stream_handle, addresses, workspace)

    def _call(self, stream_handle: int, addresses: Sequence[int], workspace: int) -> None:
        a, b, d = addresses[:3]
        c = addresses[3] if self.problem.residual else d
        x = self._descriptors
        arguments = (
            *(self._handle, x.operation, byref(x.alpha), b, x.first, a, x.second, byref(x.beta), c, x.d, d, x.d),
            *(byref(self._algorithm), workspace, self.workspace_nbytes, stream_handle),
        )
        status = self._library.cublasLtMatmul(*arguments)
        if status != api.STATUS_SUCCESS:
            name = api.status_name(self._library, status)
            raise DeviceError(f"cublasLtMatmul failed with {name} for {self.problem} by {self.name}")


def _name(library: ctypes.CDLL, algorithm: api.Algorithm) -> str:
    values = {
        "algorithm ": api.config_value(library, algorithm, api.CONFIG_ID),
        "tile ": api.config_value(library, algorithm, api.CONFIG_TILE_ID, c_uint32),
        "stages ": api.config_value(library, algorithm, api.CONFIG_STAGES_ID, c_uint32),
        "cluster ": api.config_value(library, algorithm, api.CONFIG_CLUSTER_SHAPE_ID, c_uint16),
        "split ": api.config_value(library, algorithm, api.CONFIG_SPLITK_NUM),
    }
    return "cublasLt " + ", ".join(f"{word}{number}" for word, number in values.items() if number >= 0)


class CublasLt:
    """cuBLASLt on one device. Owns the library's handle until close(); what it prepared must not be used after that.

    Algorithms are not kept between processes: the heuristic answers in 0.4 ms, once the library is loaded.
    """

    def __init__(self, device: "Device") -> None:
        """Loads the library (0.1 to 0.6 s the first time). Raises DeviceError where it is absent or refuses the device."""
        self._device = device
        self._library = load_library("cublasLt")
        api.declare(self._library)
        device.make_current()
        self._handle = api.create(self._library, "cublasLtCreate")
        self._lock = threading.RLock()
        self._prepared: dict[tuple[MatmulProblem, Variant | None, int], PreparedMatmul | None] = {}
        number = int(self._library.cublasLtGetVersion())
        self.version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
        """For example ``13.1.1``."""

    def __enter__(self) -> "CublasLt":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Destroys the handle, which waits for the device; never during a capture. Closing twice is no error."""
        with self._lock:
            self._prepared.clear()
            handle, self._handle = self._handle, 0
        if handle:
            self._device.make_current()
            api.call(self._library, "cublasLtDestroy", handle)

    def prepare(
        self, problem: MatmulProblem, variant: Variant | None = None, *, workspace_limit: int = WORKSPACE_LIMIT
    ) -> PreparedMatmul | None:
        """The heuristic's first algorithm for the problem, of at most ``workspace_limit`` bytes of workspace; or ``variant``.

        None: the library has none, or refuses the variant. Equal problems give the same object. Any thread may call it, but not
        during a capture of its own. Raises ValueError for a problem that contradicts itself, DeviceError where the library
        fails.
        """
        with self._lock:
            key = (problem, variant, workspace_limit)
            if key not in self._prepared:
                if variant is None:
                    found = self.candidates(problem, 1, workspace_limit=workspace_limit)
                    self._prepared[key] = found[0] if found else None
                else:
                    self._prepared[key] = self._restore(problem, variant, workspace_limit)
            return self._prepared[key]

    def variants(self, problem: MatmulProblem, count: int) -> list[Variant]:
        """Up to ``count`` other algorithms than the heuristic's first, in its order."""
        return [c.variant for c in self.candidates(problem, count + 1)[1:]]

    def candidates(
        self, problem: MatmulProblem, count: int = 16, *, workspace_limit: int = WORKSPACE_LIMIT
    ) -> list[PreparedMatmul]:
        """Up to ``count`` algorithms, the one that the heuristic thinks fastest first. Raises as prepare() does.

        Algorithms that add partial sums in the result's memory, or in a narrower type than they compute in, are left out: all
        of these give the same bits on every run.
        """
        form = form_of(problem)
        if form is None:
            return []
        with self._lock:
            self._device.make_current()
            descriptors = _Descriptors(self._library, problem, form)
            preference = api.create(self._library, "cublasLtMatmulPreferenceCreate")
            try:
                return self._ask(problem, descriptors, preference, count, workspace_limit)
            finally:
                api.call(self._library, "cublasLtMatmulPreferenceDestroy", preference)

    def _ask(
        self, problem: MatmulProblem, d: _Descriptors, preference: int, count: int, workspace_limit: int
    ) -> list[PreparedMatmul]:
        for attribute, value in (
            (api.PREF_MAX_WORKSPACE_BYTES, c_uint64(workspace_limit)),
            (api.PREF_REDUCTION_SCHEME_MASK, c_uint32(api.REDUCTION_SCHEME_COMPUTE_TYPE)),
            *((one, c_uint32(problem.alignment)) for one in api.PREF_MIN_ALIGNMENT_BYTES),
        ):
            api.set_attribute(self._library, "cublasLtMatmulPreferenceSetAttribute", preference, attribute, value)
        results = (api.HeuristicResult * count)()
        returned = c_int()
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            *(self._open_handle(), d.operation, d.first, d.second, d.d, d.d, preference, count, results, byref(returned))
        )
        # INVALID_VALUE is how some releases say that a layout is beyond them, as 2^31 rows are.
        if status in (api.STATUS_NOT_SUPPORTED, api.STATUS_INVALID_VALUE, api.STATUS_ARCH_MISMATCH):
            return []
        if status != api.STATUS_SUCCESS:
            name = api.status_name(self._library, status)
            raise DeviceError(f"cublasLtMatmulAlgoGetHeuristic failed with {name} for {problem}")
        found = (results[i] for i in range(returned.value) if results[i].state == api.STATUS_SUCCESS)
        return [PreparedMatmul(self._library, self._handle, problem, d, f) for f in found]

    def _restore(self, problem: MatmulProblem, variant: Variant, workspace_limit: int) -> PreparedMatmul | None:
        """The algorithm of a variant, once the library has checked it for the problem; None where it refuses."""
        form, data = form_of(problem), variant.opaque.get(_ALGORITHM)
        if form is None or not isinstance(data, bytes) or len(data) != api.ALGORITHM_NBYTES or len(variant.items) != 1:
            return None
        self._device.make_current()
        d = _Descriptors(self._library, problem, form)
        found = api.HeuristicResult(algorithm=api.Algorithm.from_buffer_copy(data))
        scheme = api.config_value(self._library, found.algorithm, api.CONFIG_REDUCTION_SCHEME, c_uint32)
        # As the heuristic is asked: no sums in the result's memory, or in a narrower type.
        if scheme > 0 and scheme & ~api.REDUCTION_SCHEME_COMPUTE_TYPE:
            return None
        layouts = (d.operation, d.first, d.second, d.d, d.d)
        checked = api.HeuristicResult()
        status = self._library.cublasLtMatmulAlgoCheck(self._open_handle(), *layouts, byref(found.algorithm), byref(checked))
        if status != api.STATUS_SUCCESS or checked.workspace_nbytes > workspace_limit:
            return None
        found.workspace_nbytes = checked.workspace_nbytes
        return PreparedMatmul(self._library, self._handle, problem, d, found)

    def _open_handle(self) -> int:
        if not self._handle:
            raise ValueError("this CublasLt is closed")
        return self._handle
