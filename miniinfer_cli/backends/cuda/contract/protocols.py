"""What running programs asks of a device, of its kernels and of its libraries. The driver's classes have it, and so has whatever
stands in for them.

``raw`` is what a thing is to the device that made it; only that device's own streams look at it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from engine_format import StoredKernel
from miniinfer_cli.backends.cuda.contract.cubin import Resources
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import Encoded, Parameters
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.ir import Array

# -- what lives on a device ------------------------------------------------------------------------------------------------


class Owned(Protocol):
    """Something that is given back by ``close()``, which may be called twice, or by ``with``."""

    def close(self) -> None:
        """Gives it back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Memory(Owned, Protocol):
    """``nbytes`` bytes from ``address`` on."""

    @property
    def address(self) -> int:
        """Where it begins."""

    @property
    def nbytes(self) -> int:
        """How long it is."""


class PinnedMemory(Memory, Protocol):
    """Memory of the host that the device copies from and to."""

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """Its bytes, not copied."""


class RegisteredMemory(Memory, Protocol):
    """Memory of the process that is pinned where it is. See ``driver.memory.RegisteredMemory``."""

    @property
    def closed(self) -> bool:
        """True once it is pinned no more."""


class Event(Owned, Protocol):
    """A point in a stream's work. See ``driver.event.Event``."""

    @property
    def raw(self) -> Any:
        """What it is to its device."""

    def synchronize(self) -> None:
        """Waits until it is reached."""

    def is_done(self) -> bool:
        """True when it is reached."""

    def hold_foreign(self, handle: int) -> None:
        """Lets a stream of another library wait for it."""

    def elapsed_ms(self, since: "Event") -> float:
        """Milliseconds from ``since`` to this event."""


class Captured(Owned, Protocol):
    """Captured work, to be launched as one. See ``driver.graph.Graph``."""

    @property
    def raw(self) -> Any:
        """What it is to its device."""


class Function(Protocol):
    """A kernel, loaded. See ``driver.module.Function``."""

    @property
    def name(self) -> str:
        """The kernel's name."""

    @property
    def raw(self) -> Any:
        """What it is to its device."""

    @property
    def resources(self) -> Resources:
        """What it takes of a device."""


class Stream(Owned, Protocol):
    """Work in order. See ``driver.stream.Stream``."""

    @property
    def handle(self) -> int:
        """What libraries know the stream by."""

    def copy_to_device(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        """See driver.stream.Stream."""

    def copy_to_host(self, target: int, source: int, nbytes: int, *, pinned: bool = False) -> None:
        """See driver.stream.Stream."""

    def gather_to_device(self, target: int, sources: Sequence[int], sizes: Sequence[int]) -> None:
        """See driver.stream.Stream."""

    def copy_on_device(self, target: int, source: int, nbytes: int) -> None:
        """See driver.stream.Stream."""

    def copy_from_peer(self, target: int, source: int, nbytes: int, peer: "Device") -> None:
        """See driver.stream.Stream."""

    def fill(self, target: int, byte: int, nbytes: int) -> None:
        """See driver.stream.Stream."""

    def launch(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        parameters: Parameters,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> None:
        """See driver.stream.Stream."""

    def launcher(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_nbytes: int,
        attributes: LaunchAttributes = NO_ATTRIBUTES,
    ) -> Callable[[Parameters], None]:
        """See driver.stream.Stream."""

    def launch_graph(self, graph: Captured) -> None:
        """See driver.stream.Stream."""

    def record(self, event: Event) -> None:
        """See driver.stream.Stream."""

    def note(self, event: Event) -> None:
        """See driver.stream.Stream."""

    def wait(self, event: Event) -> None:
        """See driver.stream.Stream."""

    def wait_for_foreign(self, handle: int) -> None:
        """See driver.stream.Stream."""

    def synchronize(self) -> None:
        """See driver.stream.Stream."""

    def is_done(self) -> bool:
        """See driver.stream.Stream."""

    def begin_capture(self) -> None:
        """See driver.stream.Stream."""

    def end_capture(self) -> Captured:
        """See driver.stream.Stream."""


class Properties(Protocol):
    """What a device is. See ``driver.properties.DeviceProperties``."""

    @property
    def pci_bus_id(self) -> str:
        """Where NVML finds it."""


class Device(Protocol):
    """A GPU, and the maker of whatever lives on it. See ``driver.device.Device``."""

    @property
    def ordinal(self) -> int:
        """Its number, as in ``cuda:N``."""

    @property
    def name(self) -> str:
        """The product's name."""

    @property
    def arch(self) -> int:
        """Compute capability as 10 * major + minor."""

    @property
    def multiprocessors(self) -> int:
        """How many streaming multiprocessors it has."""

    @property
    def shared_nbytes(self) -> int:
        """Dynamic shared memory that a block may ask for."""

    @property
    def l2_nbytes(self) -> int:
        """Bytes of its L2 cache."""

    @property
    def reads_pageable_memory(self) -> bool:
        """True where what is copied from memory that is not pinned has to stay until the copy is done."""

    @property
    def total_memory(self) -> int:
        """Bytes of its memory."""

    @property
    def driver_version(self) -> tuple[int, int]:
        """The CUDA version that the driver supports."""

    @property
    def properties(self) -> Properties:
        """Limits, clocks and names."""

    @property
    def allocations(self) -> int:
        """How many allocations were ever made here."""

    def make_current(self) -> None:
        """See driver.device.Device."""

    def allocate(self, nbytes: int, what: str = "") -> Memory:
        """See driver.device.Device."""

    def allocate_pinned(self, nbytes: int, what: str = "") -> PinnedMemory:
        """See driver.device.Device."""

    def register(self, memory: Array) -> RegisteredMemory:
        """See driver.device.Device."""

    def create_stream(self) -> Stream:
        """See driver.device.Device."""

    def create_event(self, *, timing: bool = False) -> Event:
        """See driver.device.Device."""

    def encode(self, tensor: TensorMap[Any], address: int) -> Encoded:
        """See driver.device.Device."""

    def collect(self) -> None:
        """See driver.device.Device."""

    def close(self) -> None:
        """See driver.device.Device."""


# -- kernels and libraries -------------------------------------------------------------------------------------------------


class Functions(Protocol):
    """The kernels of a device. See ``loading.functions.Functions``."""

    def use_stored(self, kernels: Mapping[str, StoredKernel]) -> None:
        """Takes compiled kernels of a plan, by their sources' digests."""

    def refuse(self, sources: frozenset[str], tell: Callable[[int, float], None]) -> None:
        """Notes which kernels the plan has in sections that are not trusted."""

    def prepare(self, kernels: Sequence[Kernel]) -> None:
        """Compiles and loads what is missing."""

    def code(self, kernels: Sequence[Kernel]) -> Sequence[bytes]:
        """The compiled code of kernels, for a plan to hold."""

    def get(self, kernel: Kernel, shared_nbytes: int = 0) -> Function:
        """The function of a kernel that ``prepare`` was told of."""

    def close(self) -> None:
        """Unloads everything; may be called twice."""


class PreparedCall(Protocol):
    """A library's solution of one problem."""

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of device memory that a call works in."""

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        """Solves it over these addresses, in the order that the problem's class documents."""


class Libraries(Protocol):
    """Who solves problems on a device. See ``loading.libraries``."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Why a library could not be opened, by name."""

    def prepare(self, problem: Problem, variant: Variant | None = None) -> PreparedCall | None:
        """What solves the problem, in the way of ``variant`` if given; None when no library here does."""

    def variants(self, problem: Problem, count: int, seconds: float) -> Sequence[Variant]:
        """Up to ``count`` other ways of solving it than ``prepare`` takes by itself, likely ones first.

        No further one is prepared once so many seconds have passed.
        """

    def to_record(self, problem: Problem, variant: Variant | None) -> Variant | None:
        """The variant, or what ``prepare`` takes by itself, with all that helps to prepare it again in another process.

        None where no library here solves the problem.
        """

    def solved_by(self, problem: Problem) -> str:
        """The library for problems of this kind and its version; empty where it is not here."""

    def is_likely(self, problem: Problem) -> bool:
        """Whether the library for problems of this kind is here; asks it nothing."""

    def bind(self, stream: Stream) -> None:
        """Makes handles for calls on ``stream``."""

    def unbind(self, stream: Stream) -> None:
        """Gives the handles for ``stream`` back."""

    def close(self) -> None:
        """Closes what was opened; may be called twice."""


class Ranges(Protocol):
    """Names what is enqueued to profilers. See ``driver.nvtx.Ranges``."""

    def push(self, text: str) -> None:
        """Begins a range of this name."""

    def pop(self) -> None:
        """Ends the range that was begun last."""
