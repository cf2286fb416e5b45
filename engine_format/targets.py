"""Target sections: what was tuned and compiled for one GPU architecture and set of libraries. Always optional.

A plan runs without them, only slower; the same records serve the timing cache on disk.
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
    """The way found best to compute one node, for one set of input shapes.

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
    """Tactics and kernels for the architecture ``arch`` (``sm_90``), tuned with these ``libraries`` (name to version).

    ``signature`` tells who made it (``signing``); empty for a section that nobody signed.
    """

    arch: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    tactics: tuple[Tactic, ...] = ()
    kernels: tuple[StoredKernel, ...] = ()
    signature: str = ""
