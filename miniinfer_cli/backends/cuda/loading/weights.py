"""The constants of a model on the device: preloaded once from the plan's file, shared by all programs and contexts.

Looked up on three levels: what was preloaded; what was made while programs were lowered (other forms of a constant are kept
here, small constants lie in a program's tables); and, for the rest, a copy of the program's own, which is counted.
"""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from engine_format.stored import PlanFile
from miniinfer_cli.backends.cuda.arrays.counts import WeightCounts
from miniinfer_cli.backends.cuda.arrays.transfers import Transfers
from miniinfer_cli.backends.cuda.contract.protocols import Device, Memory
from miniinfer_cli.backends.cuda.contract.steps import Derived
from miniinfer_cli.backends.cuda.loading.preload import preload
from miniinfer_cli.ir import Constant, DType, Graph
from miniinfer_cli.ir.constants import PackedBytes
from miniinfer_cli.planning.thaw import StoredConstant

_LOG = logging.getLogger(__name__)


class DeviceWeights:
    """Addresses of constants. ``evaluate(derived)`` gives device memory that holds a derived form. Thread-safe.

    ``beside``: the weights of the same plan on another device, which the file is not read again for.
    """

    def __init__(
        self,
        device: Device,
        transfers: Transfers,
        graph: Graph,
        evaluate: Callable[[Derived], Memory],
        beside: "DeviceWeights | None" = None,
    ) -> None:
        self._device = device
        self._transfers = transfers
        self._evaluate = evaluate
        self._lock = threading.RLock()
        self._arena: Memory | None = None
        self._held: dict[Constant, Memory] = {}
        self._unfolded: dict[Constant, Memory | None] = {}
        self._derived: dict[tuple[str | Constant, ...], Memory] = {}
        self.counts = WeightCounts()
        constants = dict.fromkeys(v.constant for v in graph.all_constants())
        handles = [h for h in constants if h is not None and h.dtype is not DType.STR]
        files = {h.tensor.file for h in handles if isinstance(h, StoredConstant)}
        self._file = files.pop() if len(files) == 1 else None
        try:
            self._load(handles, beside)
        except BaseException:
            self.close()
            raise

    def _load(self, handles: list[Constant], beside: "DeviceWeights | None") -> None:
        started = time.perf_counter()
        if self._file is not None:
            source = None if beside is None or beside._file is not self._file else beside
            if source is not None and source._arena is not None:
                self._arena = _copy_arena(self._device, source._arena, source._device)
                self.counts.copied_from = f"cuda:{source._device.ordinal}"
            else:
                self._arena = _preload_file(self._device, self._file)
            self.counts.nbytes = self._arena.nbytes
            self.counts.tensors = sum(self._place(h) is not None for h in handles)
        for (
            handle
        ) in handles:  # of a plan that was never written; or narrower than a byte, an element a byte when it is asked for
            if not self._is_preloaded(handle) and self._place(handle) is not None:
                self._unfolded[handle] = None
            elif not self._is_preloaded(handle):
                self._held[handle] = self._upload(handle)
                self.counts.tensors += 1
                self.counts.nbytes += self._held[handle].nbytes
        self.counts.preload_s = time.perf_counter() - started
        _LOG.info(
            "preloaded %d tensors, %.1f MiB in %.1f ms (%.2f GB/s)",
            self.counts.tensors,
            self.counts.nbytes / 2**20,
            self.counts.preload_s * 1e3,
            self.counts.nbytes / max(self.counts.preload_s, 1e-9) / 1e9,
        )

    def holds(self, handle: Constant) -> bool:
        """True for a constant that was there when the model was loaded."""
        if isinstance(handle, PackedBytes):
            return handle.source in self._unfolded
        return self._is_preloaded(handle) or handle in self._held or handle in self._unfolded

    def address(self, handle: Constant) -> int | None:
        """Where the constant lies, one element a byte at least; None for one that was not there when the model was loaded."""
        with self._lock:
            if self._is_preloaded(handle):
                assert isinstance(handle, StoredConstant) and self._arena is not None
                found = self._arena.address + handle.tensor.offset
            elif isinstance(handle, PackedBytes) and handle.source in self._unfolded:
                place = self._place(handle.source)
                assert place is not None and self._arena is not None
                found = self._arena.address + place
            elif handle in self._unfolded:
                memory = self._unfolded[handle]
                if memory is None:
                    memory = self._unfolded[handle] = self._upload(handle)
                    self.counts.nbytes += memory.nbytes
                found = memory.address
            elif handle in self._held:
                found = self._held[handle].address
            else:
                return None
            self.counts.preloaded_hits += 1
            return found

    def late(self, handle: Constant, *, counted: bool = True) -> Memory:
        """Memory with a constant that was made since, which is the caller's to close.

        ``counted``: a model pays for it again whenever a program is made.
        """
        memory = self._upload(handle)
        if counted:
            with self._lock:
                self.counts.late_copies += 1
                self.counts.late_nbytes += memory.nbytes
        return memory

    def derived(self, derived: Derived) -> int:
        """Where the derived form lies, which is made at the first call."""
        with self._lock:
            key: tuple[str | Constant, ...] = (derived.key, *derived.sources)
            memory = self._derived.get(key)
            if memory is None:
                memory = self._derived[key] = self._evaluate(derived)
                self.counts.derived_nbytes += memory.nbytes
            else:
                self.counts.derived_hits += 1
            return memory.address

    def close(self) -> None:
        """Frees everything; may be called twice."""
        with self._lock:
            unfolded = [memory for memory in self._unfolded.values() if memory is not None]
            for memory in (*self._derived.values(), *self._held.values(), *unfolded, *([self._arena] if self._arena else [])):
                memory.close()
            self._unfolded.clear()
            self._derived.clear()
            self._held.clear()
            self._arena = None

    def _is_preloaded(self, handle: Constant) -> bool:
        return self._place(handle) is not None and handle.dtype.bits >= 8

    def _place(self, handle: Constant) -> int | None:
        """Where the packed bytes of a constant of the file lie in the arena; None for another one."""
        is_stored = isinstance(handle, StoredConstant) and handle.tensor.file is self._file
        return handle.tensor.offset if is_stored and isinstance(handle, StoredConstant) else None

    def _upload(self, handle: Constant) -> Memory:
        array = np.ascontiguousarray(handle.array())
        memory = self._device.allocate(array.nbytes, "memory for a constant")
        try:
            self._transfers.send(memory.address, array)
        except BaseException:
            memory.close()
            raise
        return memory


def _copy_arena(device: Device, source: Memory, peer: Device) -> Memory:
    """What the file gave another device, whose digests were compared then."""
    arena = device.allocate(source.nbytes, "memory for the weights")
    try:
        with device.create_stream() as stream:
            stream.copy_from_peer(arena.address, source.address, source.nbytes, peer)
            stream.synchronize()
    except BaseException:
        arena.close()
        raise
    return arena


def _preload_file(device: Device, file: PlanFile) -> Memory:
    _, nbytes = file.weights_range
    arena = device.allocate(nbytes, "memory for the weights")
    try:
        preload(device, file, arena.address)
    except BaseException:
        arena.close()
        raise
    return arena
