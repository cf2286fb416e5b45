"""Streams: queues of copies, launches and graphs on a device, and the capture of what is enqueued into a graph."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from miniinfer_cli.backends.cuda.contract import protocols
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes, launch_fault
from miniinfer_cli.backends.cuda.contract.parameters import Parameters
from miniinfer_cli.backends.cuda.driver.collector_pause import CollectorPause
from miniinfer_cli.backends.cuda.driver.graph import Graph
from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner
from miniinfer_cli.errors import DeviceError, MiniinferError
from miniinfer_cli.wording import Wording


class Stream(Handle):
    """A queue of work that runs in order, apart from the default stream. ``handle`` is the CUstream, for libraries.

    Everything but the waits returns at once. Addresses are ints and sizes bytes; memory that work reads or writes must
    outlive it. The device must be current on the calling thread (``device.make_current()``); one thread at a time.
    Raises DeviceError; for faults of the work itself, in whatever call comes after them.
    """

    def __init__(self, device: Owner) -> None:
        """Use ``device.create_stream``."""
        driver = device.driver
        self.raw = device.call(driver.cuStreamCreate, int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        super().__init__(device, driver.cuStreamDestroy, self.raw)
        self.handle = int(self.raw)
        self._driver = driver
        # Bound once: these run for every inference, and a look-up in the module costs as much as a small call.
        self._launch_kernel = driver.cuLaunchKernel
        self._launch_kernel_ex = driver.cuLaunchKernelEx
        self._to_device = driver.cuMemcpyHtoDAsync
        self._to_host = driver.cuMemcpyDtoHAsync
        self._note = int(driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
        self._quick = quick = device.quick
        self._launch_graph, self._record, self._wait = quick.launch_graph, quick.record, quick.wait
        self._pause: CollectorPause | None = None  # while it captures
        self._foreign: protocols.Event | None = None  # marks the end of what another library's stream holds, again and again

    def copy_to_device(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        """Copies from host memory; overlaps with other work only when that is ``pinned`` (or registered): then say so.

        From other memory the driver copies in the call, during which other threads have the interpreter.
        """
        if not nbytes:
            return
        if pinned:
            self._expect(self._quick.to_device(target, source, nbytes, self.handle), "cuMemcpyHtoDAsync")
        elif status := self._to_device(target, source, nbytes, self.raw)[0]:
            raise self._device.fault(status, "cuMemcpyHtoDAsync")

    def copy_to_host(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        """Copies to host memory; ``pinned`` as of ``copy_to_device``."""
        if not nbytes:
            return
        if pinned:
            self._expect(self._quick.to_host(target, source, nbytes, self.handle), "cuMemcpyDtoHAsync")
        elif status := self._to_host(target, source, nbytes, self.raw)[0]:
            raise self._device.fault(status, "cuMemcpyDtoHAsync")

    def gather_to_device(self, target: int, sources: Sequence[int], sizes: Sequence[int]) -> None:
        """Copies pieces of host memory, all pinned or registered, one behind another: ``sizes`` bytes from each of ``sources``.

        By one call where the driver has it, which takes a tenth of the time of one for each.
        """
        targets = accumulate(sizes, initial=target)
        pieces = [piece for piece in zip(targets, sources, sizes, strict=False) if piece[2]]
        if len(pieces) > 1 and self._quick.copies_batches:
            to, source, size = zip(*pieces, strict=True)
            self._expect(self._quick.batch_to_device(to, source, size, self.handle), "cuMemcpyBatchAsync")
            return
        for piece in pieces:
            self._expect(self._quick.to_device(*piece, self.handle), "cuMemcpyHtoDAsync")

    def copy_on_device(self, target: int, source: int, nbytes: int) -> None:
        """Copies within the device; the ranges must not overlap."""
        if nbytes and (status := self._driver.cuMemcpyDtoDAsync(target, source, nbytes, self.raw)[0]):
            raise self._device.fault(status, "cuMemcpyDtoDAsync")

    def copy_from_peer(self, target: int, source: int, nbytes: int, peer: protocols.Device) -> None:
        """Copies from the memory of another device to this one, through the host's where they do not reach each other.

        Both lie in one address space (on all 64-bit systems), so the driver tells from ``source`` where it is.
        """
        if nbytes and (status := self._driver.cuMemcpyAsync(target, source, nbytes, self.raw)[0]):
            raise self._device.fault(status, "cuMemcpyAsync").at(f"copy from cuda:{peer.ordinal}")

    def fill(self, target: int, byte: int, nbytes: int) -> None:
        """Sets device memory to ``byte`` (0 to 255)."""
        if nbytes and (status := self._driver.cuMemsetD8Async(target, byte, nbytes, self.raw)[0]):
            raise self._device.fault(status, "cuMemsetD8Async")

    def launch(
        self,
        function: protocols.Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Parameters,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> None:
        """Launches a kernel over ``grid`` blocks of ``block`` threads, each up to three sizes (x, y, z).

        ``shared_nbytes`` is dynamic; above 48 KiB after ``function.allow_shared``. The error of a refused launch has the
        kernel's name and all sizes. With ``attributes``, what the device cannot do is refused before it is asked.
        """
        self.launcher(function, grid, block, shared_nbytes, attributes)(parameters)

    def launcher(
        self,
        function: protocols.Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> Callable[[Parameters], None]:
        """What launches a kernel with parameters, again and again; all that the launches share is prepared once.

        See ``launch``. What the device cannot do is refused here.
        """
        blocks, threads = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        where = f"kernel {function.name} (grid {_times(blocks)}, block {_times(threads)}, {shared_nbytes} bytes shared)"
        if attributes is NO_ATTRIBUTES:
            call = partial(self._launch_kernel, function.raw, *blocks, *threads, shared_nbytes, self.raw)
            return partial(self._launch, "cuLaunchKernel", where, call)
        where = f"{where}, {attributes}"
        if (why := launch_fault(grid, block, shared_nbytes, attributes, self._device.launch_limits)) is not None:
            raise DeviceError(why, where=(where,))
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks
        config.blockDimX, config.blockDimY, config.blockDimZ = threads
        config.sharedMemBytes, config.hStream = shared_nbytes, self.raw
        config.attrs = raw = raw_attributes(self._driver, attributes)
        config.numAttrs = len(raw)
        return partial(self._launch, "cuLaunchKernelEx", where, partial(self._launch_kernel_ex, config, function.raw))

    def _launch(self, name: str, where: str, call: Callable[[int, int], Any], parameters: Parameters) -> None:
        if status := call(parameters.address, 0)[0]:
            raise self._device.fault(status, name).at(where)

    def record(self, event: protocols.Event) -> None:
        """Sets ``event`` to this point of the stream."""
        if status := self._record(event.raw, self.handle):
            raise self._fault(status, "cuEventRecord")

    def note(self, event: protocols.Event) -> None:
        """Within a capture: every launch of the graph sets ``event`` when it comes to this point.

        Both ends of a time may be noted in one graph. ``record`` within a capture would only order the work in it.
        """
        if status := self._driver.cuEventRecordWithFlags(event.raw, self.raw, self._note)[0]:
            raise self._device.fault(status, "cuEventRecordWithFlags")

    def wait(self, event: protocols.Event) -> None:
        """Lets what is enqueued from now on wait for ``event``; the host does not wait."""
        if status := self._wait(self.handle, event.raw, 0):
            raise self._fault(status, "cuStreamWaitEvent")

    def wait_for_foreign(self, handle: int) -> None:
        """Lets what is enqueued from now on wait for what is now in a stream of another library, on the same device.

        ``handle`` is its CUstream; 1 is the legacy default stream, 2 the calling thread's own.
        """
        if self._foreign is None:
            self._foreign = self._device.create_event()
        self._expect(self._record(self._foreign.raw, handle), "cuEventRecord")
        self.wait(self._foreign)

    def synchronize(self) -> None:
        """Waits until everything enqueued is done. Other Python threads run meanwhile."""
        if status := self._driver.cuStreamSynchronize(self.raw)[0]:
            raise self._device.fault(status, "cuStreamSynchronize")

    def is_done(self) -> bool:
        """True when everything enqueued is done; does not wait."""
        return self._device.is_ready(self._driver.cuStreamQuery, self.raw)

    def begin_capture(self) -> None:
        """From here to ``end_capture``, on this thread, what is enqueued is noted instead of done.

        Nothing may be allocated, created, loaded or waited for meanwhile on this thread; other threads go on. Python's cyclic
        garbage collector is off until nothing in the process captures any more (``collector_pause``).
        """
        self._device.forget_capture_fault()
        self._device.call(
            self._driver.cuStreamBeginCapture, self.raw, self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        )
        self._pause = CollectorPause()

    def end_capture(self) -> Graph:
        """What was noted, ready to launch. Raises DeviceError when something went wrong in between, saying what if it was ours.

        The stream works as before either way, so this is also how a capture is given up: call it and drop what it gives.
        """
        device = self._device
        status, noted = self._end_capture()
        if status:
            why = device.forget_capture_fault()
            error = device.fault(status, "cuStreamEndCapture")
            device.forget_capture_fault()
            if why is None:
                raise error.at("graph capture")
            raise DeviceError(f"{why} (then {error.message})", hint=error.own_hint or _CAPTURE_HINT, where=("graph capture",))
        try:
            return Graph(device, noted)
        finally:
            device.call(self._driver.cuGraphDestroy, noted)

    def launch_graph(self, graph: protocols.Captured) -> None:
        """Enqueues a graph. The hot path: one call, one comparison."""
        if status := self._launch_graph(graph.raw, self.handle):
            raise self._fault(status, "cuGraphLaunch")

    def close(self) -> None:
        """Gives the stream back, and up a capture that is going on; what is enqueued is still done."""
        if self._pause is not None and not self.closed:
            _, noted = self._end_capture()
            if int(noted or 0):
                self._device.call(self._driver.cuGraphDestroy, noted)
        if self._foreign is not None:
            self._foreign.close()
        super().close()

    def _expect(self, status: int, call: str) -> None:
        if status:
            raise self._fault(status, call)

    def _fault(self, status: int, call: str) -> MiniinferError:
        """What a quick call's status says."""
        return self._device.fault(self._driver.CUresult(status), call)

    def _end_capture(self) -> tuple[Any, Any]:
        ended: tuple[Any, Any] = self._driver.cuStreamEndCapture(self.raw)
        if self._pause is not None:
            self._pause.end()
            self._pause = None
        return ended


def raw_attributes(driver: Any, attributes: LaunchAttributes) -> list[Any]:
    """The driver's records of those attributes that ask for something."""
    ids = driver.CUlaunchAttributeID
    raw: list[Any] = []

    def add(kind: Any) -> Any:
        made = driver.CUlaunchAttribute()
        made.id = kind
        raw.append(made)
        return made.value

    if any(n > 1 for n in attributes.cluster):
        size = add(ids.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION).clusterDim
        size.x, size.y, size.z = (*attributes.cluster, 1, 1)[:3]
    if attributes.programmatic:
        add(ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION).programmaticStreamSerializationAllowed = 1
    if attributes.priority is not None:
        add(ids.CU_LAUNCH_ATTRIBUTE_PRIORITY).priority = attributes.priority
    return raw


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


_CAPTURE_HINT = Wording(
    "allocate, load, create and synchronize before the capture begins; load(plan, cuda_graph=False) runs without one",
    flags="allocate, load, create and synchronize before the capture begins; --no-cuda-graph runs without one",
)
