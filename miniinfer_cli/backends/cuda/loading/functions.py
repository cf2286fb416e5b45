"""Kernels ready to launch on one device: compiled (or found in the cache on disk) and loaded once, for all programs."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from engine_format import StoredKernel
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function, Module
from miniinfer_cli.backends.cuda.loading.target_sections import read_stored, source_digest, sources_of


class Functions:
    """The kernels of a device. Thread-safe."""

    def __init__(self, device: Device, cache: KernelCache) -> None:
        self._device = device
        self.cache = cache
        self._lock = threading.Lock()
        self._loaded: dict[Kernel, Function] = {}
        self._modules: list[Module] = []
        self._stored: Mapping[str, StoredKernel] = {}
        self._refused: frozenset[str] = frozenset()
        self._tell: Callable[[int, float], None] = lambda count, seconds: None
        self.taken = 0
        """Kernels taken from the plan."""

    def use_stored(self, kernels: Mapping[str, StoredKernel]) -> None:
        """Takes compiled kernels of a plan, by their sources' digests, instead of compiling or looking in the cache."""
        self._stored = kernels

    def refuse(self, sources: frozenset[str], tell: Callable[[int, float], None]) -> None:
        """Notes which kernels the plan has, by their sources' digests, in sections that are not trusted.

        ``tell`` is given how many of them had to be compiled, and the seconds that this took, whenever some were.
        """
        self._refused, self._tell = sources, tell

    def prepare(self, kernels: Sequence[Kernel]) -> None:
        """Compiles and loads what is missing, several at a time. Raises KernelCompileError with the compiler's log."""
        with self._lock:
            missing = [k for k in dict.fromkeys(kernels) if k not in self._loaded]
            in_plan = {k: s for k in missing if self._stored and (s := self._stored.get(source_digest(k))) is not None}
            for kernel, stored in in_plan.items():
                self._load(kernel, read_stored(stored))
            self.taken += len(in_plan)
            others = [k for k in missing if k not in in_plan]
            for kernel, cubin in zip(others, self._compiled(others), strict=True):
                self._load(kernel, cubin)

    def _compiled(self, kernels: Sequence[Kernel]) -> list[bytes]:
        """Their code out of the cache, which compiles what it lacks."""
        compiled: set[int] = set()
        started = time.perf_counter()
        cubins = self.cache.compile_many(sources_of(kernels, self._device.arch), compiled=compiled)
        again = sum(source_digest(kernels[number]) in self._refused for number in compiled) if self._refused else 0
        if again:
            self._tell(again, time.perf_counter() - started)
        return cubins

    def code(self, kernels: Sequence[Kernel]) -> Sequence[bytes]:
        """The compiled code of kernels, for a plan to hold. Raises KernelCompileError."""
        return self.cache.compile_many(sources_of(kernels, self._device.arch))

    def is_there(self, kernel: Kernel) -> bool:
        """True when the kernel is loaded, or compiled in the plan."""
        return kernel in self._loaded or bool(self._stored and source_digest(kernel) in self._stored)

    def get(self, kernel: Kernel, shared_nbytes: int = 0) -> Function:
        """The function of a kernel that ``prepare`` was told of, allowed to be launched with so much shared memory."""
        function = self._loaded[kernel]
        if shared_nbytes:
            function.allow_shared(shared_nbytes)
        return function

    def _load(self, kernel: Kernel, cubin: bytes) -> None:
        module = self._device.load(cubin)
        self._modules.append(module)
        self._loaded[kernel] = module.function(kernel.name)

    def close(self) -> None:
        """Unloads everything; may be called twice."""
        with self._lock:
            self._loaded.clear()
            for module in reversed(self._modules):
                module.close()
            self._modules.clear()
