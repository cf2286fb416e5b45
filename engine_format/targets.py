"""Target sections: what was tuned and compiled for one GPU. Always optional: a plan runs without them, only slower.

The timing cache on disk (``timing_cache``) holds the same records.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Union


class TacticKind(enum.StrEnum):
    """Who does the work of a tactic."""

    KERNEL = "kernel"  # one of ours, compiled by NVRTC
    CUBLASLT = "cublaslt"
    CUDNN = "cudnn"


@dataclass(frozen=True, slots=True)
class Tactic:
    """The way found best to compute one node, for one set of input shapes, as format 1 has it. No release wrote or used any.

    ``signature`` says what is computed: the operation, its attributes, element types and layouts, as the backend spells
    them. Nodes that compute the same share it, in other plans too. ``shapes`` are those of the node's inputs.

    ``name`` is the kernel's or engine's, for people. A kernel has ``parameters`` (tile sizes, splits ...) and ``kernel``,
    the index of its code in the section's kernels, if it is kept there. cuBLASLt has ``algorithm``, the library's opaque
    bytes. cuDNN has ``engine`` and ``knobs``, in the order in which the engine lists them.
    ``time_us`` is the measured median, None for a heuristic's choice. What does not apply is empty or None.
    """

    signature: str
    shapes: tuple[tuple[int, ...], ...]
    kind: TacticKind
    name: str = ""
    kernel: int | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    algorithm: bytes = b""
    engine: int | None = None
    knobs: Mapping[str, int] = field(default_factory=dict)
    workspace_nbytes: int = 0
    time_us: float | None = None


class RecordChooser(enum.StrEnum):
    """How a tactic record came about."""

    TIMED = "timed"
    """It was faster than the heuristic's choice, alone and in its plan."""
    HEURISTIC = "heuristic"
    """Nothing that was tried was faster than what the heuristic chooses, which the record names."""


OpaqueValue = Union[int, str, bytes, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class TacticRecord:
    """The tactic found best for what ``signature`` says, on the GPU of the section that the record stands in.

    ``key`` is the tactic's; of several of one key it is the one that does ``claims`` nodes of a region (None: a whole node).
    ``maker`` is a digest of the sources that it was made from, or a library and its version: another maker makes the record
    stale. ``opaque`` is the library's own: how it is told the same algorithm again; empty for ours. ``kernels`` are the indices
    of what it launches among the section's kernels, as far as these are there. ``time_us`` is the median on the device.
    """

    signature: str
    key: str
    maker: str
    opaque: Mapping[str, OpaqueValue] = field(default_factory=dict)
    workspace_nbytes: int = 0
    kernels: tuple[int, ...] = ()
    time_us: float | None = None
    chosen_by: RecordChooser = RecordChooser.TIMED
    claims: int | None = None


@dataclass(frozen=True, slots=True)
class TargetGpu:
    """The GPU that records were made on: its product's name, multiprocessors, and bytes of L2 cache."""

    name: str
    multiprocessors: int
    l2_nbytes: int


class Code(Protocol):
    """Bytes that may lie in a file."""

    @property
    def nbytes(self) -> int:
        """How many."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """All of them in order, in pieces of moderate size. Raises PlanError when the file is damaged there."""


@dataclass(frozen=True, slots=True)
class StoredKernel:
    """Compiled code. ``source`` is a digest of what it was compiled from: a match spares compiling it again."""

    name: str
    source: str
    code: Union[bytes, Code]

    @property
    def nbytes(self) -> int:
        """Length of the code."""
        return len(self.code) if isinstance(self.code, bytes) else self.code.nbytes

    def read(self) -> bytes:
        """The code, checked against its digest when it lies in a file. Raises PlanError when it is damaged."""
        return self.code if isinstance(self.code, bytes) else b"".join(self.code.chunks())


@dataclass(frozen=True, slots=True)
class TargetSection:
    """Records and kernels for the architecture ``arch`` (``sm_90``), made with these ``libraries`` (name to version).

    ``gpu`` is the one that ``records`` were made on; None for a section of kernels alone. ``tactics`` are those of format 1.
    ``signature`` tells who made it (``signing``); empty for a section that nobody signed.
    """

    arch: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    tactics: tuple[Tactic, ...] = ()
    kernels: tuple[StoredKernel, ...] = ()
    signature: str = ""
    gpu: TargetGpu | None = None
    records: tuple[TacticRecord, ...] = ()

    @property
    def is_tuned(self) -> bool:
        """True for a section of format 2: it names a GPU, or holds records."""
        return self.gpu is not None or bool(self.records)

    def replaces(self, other: "TargetSection") -> bool:
        """True when both are of one GPU, or, where none is named, of one architecture and set of libraries."""
        if self.arch != other.arch or self.gpu != other.gpu:
            return False
        return self.gpu is not None or dict(self.libraries) == dict(other.libraries)
