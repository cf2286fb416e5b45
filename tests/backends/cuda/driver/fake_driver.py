"""A stand-in for ``cuda.bindings.driver`` on machines without a GPU: device memory is host memory, work is done at once.

It has the functions that the driver layer calls, with their arguments and results, the real enumerations, and counts what is
alive, so that a test sees what was not given back. ``refuse[name]`` is the status that a function returns instead of working.
"""

# The names are the driver's.
# ruff: noqa: N802, N803

import ctypes
import itertools
import threading
from collections import Counter
from functools import partial
from typing import Any

from cuda.bindings import driver as real

from miniinfer_cli.backends.cuda.driver.quick_calls import FORMS
from miniinfer_cli.backends.cuda.driver.tensor_maps import IM2COL, TILED

OK = real.CUresult.CUDA_SUCCESS
CONTEXT = 0xC0DE


class FakeDriver:
    CUcontext = real.CUcontext
    CUctx_flags = real.CUctx_flags
    CUdevice_attribute = real.CUdevice_attribute
    CUevent_flags = real.CUevent_flags
    CUevent_record_flags = real.CUevent_record_flags
    CUfunction_attribute = real.CUfunction_attribute
    CUlaunchAttribute = real.CUlaunchAttribute
    CUlaunchAttributeID = real.CUlaunchAttributeID
    CUlaunchConfig = real.CUlaunchConfig
    CUresult = real.CUresult
    CUstream = real.CUstream
    CUstreamCaptureMode = real.CUstreamCaptureMode
    CUstream_flags = real.CUstream_flags
    CUtensorMapDataType = real.CUtensorMapDataType
    CUtensorMapFloatOOBfill = real.CUtensorMapFloatOOBfill
    CUtensorMapInterleave = real.CUtensorMapInterleave
    CUtensorMapL2promotion = real.CUtensorMapL2promotion
    CUtensorMapSwizzle = real.CUtensorMapSwizzle
    CUdriverProcAddress_flags = real.CUdriverProcAddress_flags
    CU_MEMHOSTALLOC_PORTABLE = real.CU_MEMHOSTALLOC_PORTABLE
    CU_MEMHOSTREGISTER_PORTABLE = real.CU_MEMHOSTREGISTER_PORTABLE
    CUmemcpyAttributes = real.CUmemcpyAttributes
    CUmemcpySrcAccessOrder = real.CUmemcpySrcAccessOrder

    def __init__(self, memory: int = 1 << 30) -> None:
        self.free = memory
        self.memory: dict[int, Any] = {}
        self.alive: Counter[str] = Counter()
        self.refuse: dict[str, Any] = {}
        self.calls: list[str] = []
        self.launches: list[tuple[Any, ...]] = []
        self.scheduling: list[int] = []
        self.maps: list[tuple[Any, ...]] = []
        self.map_status = 0
        self.lacking: set[str] = set()
        """Functions that ``cuGetProcAddress`` does not find."""
        self.registered: dict[int, int] = {}
        """Bytes of registered memory by address."""
        self._functions: dict[str, Any] = {
            "cuTensorMapEncodeTiled": TILED(self._tiled),
            "cuTensorMapEncodeIm2col": IM2COL(self._im2col),
            **{name: form(partial(self._called, name)) for name, form in FORMS.items()},
        }
        self._numbers = itertools.count(1)
        self._current = threading.local()
        self._captures: dict[int, list[Any]] = {}
        self._spoilt: set[int] = set()
        self._graphs: dict[int, list[Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("cu"):
            return value

        def called(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            status = self.refuse.get(name)
            if status is not None:
                return (status, *[0] * 2)[: 1 + _RESULTS.get(name, 0)]
            return value(*arguments)

        called.__name__ = name
        return called

    def _make(self, kind: str, wrap: Any) -> tuple[Any, Any]:
        self.alive[kind] += 1
        return OK, wrap(next(self._numbers) << 8)

    def _drop(self, kind: str) -> tuple[Any]:
        self.alive[kind] -= 1
        return (OK,)

    def _work(self, stream: Any, do: Any) -> tuple[Any]:
        noted = self._captures.get(int(stream))
        if noted is None:
            do()
        else:
            noted.append(do)
        return (OK,)

    # Devices and contexts.

    def cuInit(self, Flags):
        return (OK,)

    def cuDriverGetVersion(self):
        return OK, 13010

    def cuDeviceGet(self, ordinal):
        return OK, ordinal

    def cuDeviceGetName(self, length, dev):
        return OK, b"Fake GPU".ljust(length, b"\0")

    def cuDeviceGetPCIBusId(self, length, dev):
        return OK, b"0000:17:00.0".ljust(length, b"\0")

    def cuDeviceTotalMem(self, dev):
        return OK, 1 << 30

    def cuDeviceGetAttribute(self, attrib, dev):
        known = {"COMPUTE_CAPABILITY_MAJOR": 9, "COMPUTE_CAPABILITY_MINOR": 0, "MULTIPROCESSOR_COUNT": 132}
        known |= {"MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 227 << 10, "L2_CACHE_SIZE": 50 << 20}
        return OK, known.get(attrib.name.removeprefix("CU_DEVICE_ATTRIBUTE_"), 7)

    def cuDevicePrimaryCtxRetain(self, dev):
        self.alive["context"] += 1
        return OK, real.CUcontext(CONTEXT)

    def cuDevicePrimaryCtxRelease(self, dev):
        return self._drop("context")

    def cuDevicePrimaryCtxSetFlags(self, dev, flags):
        self.scheduling.append(flags)
        return (OK,)

    def cuCtxGetCurrent(self):
        return OK, real.CUcontext(getattr(self._current, "context", 0))

    def cuCtxSetCurrent(self, ctx):
        self._current.context = int(ctx)
        return (OK,)

    def cuCtxGetStreamPriorityRange(self):
        return OK, 0, -5

    def cuCtxSynchronize(self):
        return (OK,)

    # Memory.

    def cuMemGetInfo(self):
        return OK, self.free, 1 << 30

    def _allocate(self, kind: str, nbytes: int) -> tuple[Any, int]:
        if self._captures:
            self._spoilt |= set(self._captures)
            return real.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 0
        if nbytes == 0:
            return real.CUresult.CUDA_ERROR_INVALID_VALUE, 0
        if nbytes > self.free:
            return real.CUresult.CUDA_ERROR_OUT_OF_MEMORY, 0
        self.free -= nbytes
        memory = ctypes.create_string_buffer(nbytes)
        self.memory[ctypes.addressof(memory)] = memory
        self.alive[kind] += 1
        return OK, ctypes.addressof(memory)

    def _free(self, kind: str, address: int) -> tuple[Any]:
        self.free += len(self.memory.pop(int(address)))
        return self._drop(kind)

    def cuMemAlloc(self, bytesize):
        status, address = self._allocate("memory", bytesize)
        return status, real.CUdeviceptr(address)

    def cuMemFree(self, dptr):
        return self._free("memory", dptr)

    def cuMemHostAlloc(self, bytesize, Flags):
        assert Flags == real.CU_MEMHOSTALLOC_PORTABLE
        return self._allocate("pinned", bytesize)

    def cuMemFreeHost(self, p):
        return self._free("pinned", p)

    def _copy(self, target: int, source: int, nbytes: int, stream: Any) -> tuple[Any]:
        return self._work(stream, lambda: ctypes.memmove(target, source, nbytes))

    def cuMemcpyHtoDAsync(self, dstDevice, srcHost, ByteCount, hStream):
        return self._copy(dstDevice, srcHost, ByteCount, hStream)

    def cuMemcpyDtoHAsync(self, dstHost, srcDevice, ByteCount, hStream):
        return self._copy(dstHost, srcDevice, ByteCount, hStream)

    def cuMemcpyBatchAsync(self, dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, hStream):
        assert attrs == [real.CUmemcpySrcAccessOrder.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM]
        assert (tuple(attrsIdxs), numAttrs, len(dsts)) == ((0,), 1, count)
        for target, source, nbytes in zip(dsts, srcs, sizes, strict=True):
            assert any(at <= source and source + nbytes <= at + size for at, size in self.registered.items())
            self._copy(target, source, nbytes, hStream)
        return (OK,)

    def cuMemHostRegister(self, p, bytesize, Flags):
        assert Flags == real.CU_MEMHOSTREGISTER_PORTABLE
        self.registered[p] = bytesize
        self.alive["registered"] += 1
        return (OK,)

    def cuMemHostUnregister(self, p):
        del self.registered[p]
        return self._drop("registered")

    def cuMemcpyDtoDAsync(self, dstDevice, srcDevice, ByteCount, hStream):
        return self._copy(dstDevice, srcDevice, ByteCount, hStream)

    def cuMemsetD8Async(self, dstDevice, uc, N, hStream):
        return self._work(hStream, lambda: ctypes.memset(dstDevice, uc, N))

    # Tensor maps.

    def cuGetProcAddress(self, symbol, cudaVersion, flags):
        if symbol.decode() in self.lacking:
            return real.CUresult.CUDA_ERROR_NOT_FOUND, 0, 0
        return OK, ctypes.cast(self._functions[symbol.decode()], ctypes.c_void_p).value, 0

    def _called(self, name: str, *arguments: int | None) -> int:
        """What the function at an address does: what the one of that name does with numbers."""
        numbers = [argument or 0 for argument in arguments]
        if name == "cuCtxGetCurrent":
            status, context = self.cuCtxGetCurrent()
            ctypes.c_void_p.from_address(numbers[0]).value = int(context)
            return int(status)
        if name == "cuMemcpyBatchAsync":
            count, words = numbers[3], ctypes.c_uint64
            pieces = [_read(at, words, count) for at in numbers[:3]]
            access, first = ctypes.c_int.from_address(numbers[4]).value, _read(numbers[5], words, numbers[6])
            return int(self.cuMemcpyBatchAsync(*pieces, count, [access], first, numbers[6], numbers[7])[0])
        return int(getattr(self, name)(*numbers)[0])

    def _tiled(self, target, element, rank, address, dims, strides, box, *tail):
        return self._map(target, rank, element, address, dims, strides, _read(box, ctypes.c_uint32, rank), *tail)

    def _im2col(self, target, element, rank, address, dims, strides, lower, upper, channels, pixels, *tail):
        corners = (_read(lower, ctypes.c_int32, rank - 2), _read(upper, ctypes.c_int32, rank - 2))
        return self._map(target, rank, element, address, dims, strides, (*corners, channels, pixels), *tail)

    def _map(self, target, rank, element, address, dims, strides, box, every, *modes):
        assert target % 64 == 0
        ctypes.memset(target, 0x5A, 128)
        sizes = (_read(dims, ctypes.c_uint64, rank), _read(strides, ctypes.c_uint64, rank - 1))
        self.maps.append((element, address, *sizes, box, _read(every, ctypes.c_uint32, rank), modes))
        return self.map_status

    # Streams and events.

    def cuStreamCreate(self, flags):
        assert flags == 1  # non-blocking
        return self._make("stream", real.CUstream)

    def cuStreamDestroy(self, hStream):
        assert int(hStream) not in self._captures
        return self._drop("stream")

    def cuStreamSynchronize(self, hStream):
        return (OK,)

    def cuStreamQuery(self, hStream):
        return (OK,)

    def cuStreamWaitEvent(self, hStream, hEvent, Flags):
        return (OK,)

    def cuEventCreate(self, Flags):
        return self._make("event", real.CUevent)

    def cuEventDestroy(self, hEvent):
        return self._drop("event")

    def cuEventRecord(self, hEvent, hStream):
        return (OK,)

    def cuEventRecordWithFlags(self, hEvent, hStream, flags):
        assert flags == real.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
        return (OK,)

    def cuEventSynchronize(self, hEvent):
        return (OK,)

    def cuEventQuery(self, hEvent):
        return (OK,)

    def cuEventElapsedTime(self, hStart, hEnd):
        return OK, 0.25

    # Kernels.

    def cuModuleLoadData(self, image):
        return self._make("module", real.CUmodule)

    def cuModuleUnload(self, hmod):
        return self._drop("module")

    def cuModuleGetFunction(self, hmod, name):
        if name == b"absent":
            return real.CUresult.CUDA_ERROR_NOT_FOUND, None
        return OK, real.CUfunction(next(self._numbers))

    def cuFuncLoad(self, function):
        return (OK,)

    def cuFuncGetAttribute(self, attrib, hfunc):
        return OK, {"CU_FUNC_ATTRIBUTE_NUM_REGS": 40, "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES": 1024}.get(attrib.name, 0)

    def cuFuncSetAttribute(self, hfunc, attrib, value):
        return (OK,)

    def cuLaunchKernel(self, f, gx, gy, gz, bx, by, bz, sharedMemBytes, hStream, kernelParams, extra):
        sizes = (gx, gy, gz, bx, by, bz, sharedMemBytes)
        return self._work(hStream, lambda: self.launches.append((int(f), *sizes, kernelParams, extra)))

    def cuLaunchKernelEx(self, config, f, kernelParams, extra):
        grid = (config.gridDimX, config.gridDimY, config.gridDimZ)
        block = (config.blockDimX, config.blockDimY, config.blockDimZ)
        attributes = {a.id.name.removeprefix("CU_LAUNCH_ATTRIBUTE_"): bytes(a.value.pad) for a in config.attrs[: config.numAttrs]}
        launch = (int(f), *grid, *block, config.sharedMemBytes, kernelParams, extra, attributes)
        return self._work(config.hStream, lambda: self.launches.append(launch))

    # Graphs.

    def cuStreamBeginCapture(self, hStream, mode):
        assert mode == real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._captures[int(hStream)] = []
        return (OK,)

    def cuStreamEndCapture(self, hStream):
        noted = self._captures.pop(int(hStream))
        if int(hStream) in self._spoilt:
            self._spoilt.remove(int(hStream))
            return real.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, real.CUgraph(0)
        _, graph = self._make("template", real.CUgraph)
        self._graphs[int(graph)] = noted
        return OK, graph

    def cuGraphDestroy(self, hGraph):
        return self._drop("template")

    def cuGraphInstantiate(self, hGraph, flags):
        status, graph = self._make("graph", real.CUgraphExec)
        self._graphs[int(graph)] = self._graphs[int(hGraph)]
        return status, graph

    def cuGraphExecDestroy(self, hGraphExec):
        return self._drop("graph")

    def cuGraphLaunch(self, hGraphExec, hStream):
        for do in self._graphs[int(hGraphExec)]:
            do()
        return (OK,)


def _read(address: int, kind: Any, count: int) -> tuple[int, ...]:
    return tuple((kind * count).from_address(address))


# How many values come behind the status of a function that was refused.
_RESULTS = {
    "cuCtxGetCurrent": 1,
    "cuCtxGetStreamPriorityRange": 2,
    "cuDevicePrimaryCtxRetain": 1,
    "cuEventElapsedTime": 1,
    "cuGraphInstantiate": 1,
    "cuMemAlloc": 1,
    "cuMemHostAlloc": 1,
    "cuMemGetInfo": 2,
    "cuModuleGetFunction": 1,
    "cuModuleLoadData": 1,
    "cuStreamCreate": 1,
    "cuStreamEndCapture": 1,
}
