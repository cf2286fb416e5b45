"""An open plan file: mapped, its weights compared with their digests chunk by chunk when something first looks at them."""

import contextlib
import mmap
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine_format.dtypes import DType
from engine_format.errors import PlanError
from engine_format.forking import ForkSafeLock
from engine_format.layout import CHUNK_NBYTES, DIGEST_NBYTES, ITEM_ALIGNMENT, align, chunk_count, digest

if TYPE_CHECKING:
    from engine_format.plan import Plan
    from engine_format.records import Tensor

_LOCKS = 16  # chunks that threads may check at the same time


class PlanFile:
    """The bytes of a plan file behind its header. Thread-safe. Made by the reader."""

    def __init__(self, path: str, fd: int, mapped: mmap.mmap) -> None:
        self.path = path
        self.digest = ""
        self.tensors: tuple[Tensor, ...] = ()
        self._mapped = mapped
        self._view = memoryview(mapped)
        self._fd = fd
        self._close = weakref.finalize(self, os.close, fd)
        self._locks = [ForkSafeLock() for _ in range(_LOCKS)]
        self._records: tuple[object, ...] = ()
        self.place_weights(0, 0, b"")

    def note(self, plan: "Plan") -> None:
        """Tells which plan was read from the file."""
        self._records = _records_of(plan)

    def holds(self, plan: "Plan") -> bool:
        """True for the plan that was read from the file, and for one with all its records."""
        return all(ours is theirs for ours, theirs in zip(self._records, _records_of(plan), strict=True))

    def place_weights(self, start: int, nbytes: int, digests: bytes) -> None:
        """Tells where the weights are, once the header is read."""
        self.weights_range = (start, nbytes)
        self.digests = digests
        self._sound = bytearray(chunk_count(nbytes))

    def fileno(self) -> int:
        """The open file, for reading at offsets. Raises ValueError once closed."""
        if not self._close.alive:
            raise ValueError("the plan file is closed")
        return self._fd

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Bytes of the weights, ``offset`` counted from their start, checked. Raises PlanError when they are damaged."""
        if nbytes:
            for chunk in range(offset // CHUNK_NBYTES, (offset + nbytes - 1) // CHUNK_NBYTES + 1):
                if not self._sound[chunk]:
                    self._check_chunk(chunk)
        start = self.weights_range[0] + offset
        return self._view[start : start + nbytes]

    def code(self, start: int, nbytes: int, expected: bytes) -> memoryview:
        """Bytes of the whole file from ``start``, with the zeros that fill them up, checked against one digest."""
        data = self._view[start : start + nbytes]
        if digest(data) != expected:
            raise PlanError("a kernel does not match its digest: the file is damaged", offset=start, path=self.path)
        _expect_zeros(self._view[start + nbytes : align(start + nbytes, ITEM_ALIGNMENT)], start + nbytes, self.path)
        return data

    def verify(self, chunk: int, data: bytes | memoryview) -> None:
        """Compares bytes that the caller has read with the digest of chunk number ``chunk``. Raises PlanError."""
        expected = self.digests[chunk * DIGEST_NBYTES : (chunk + 1) * DIGEST_NBYTES]
        if digest(data) != expected:
            raise PlanError(
                f"the weights do not match digest {chunk}: the file is damaged",
                offset=self.weights_range[0] + chunk * CHUNK_NBYTES,
                hint="build the plan again, or copy it again",
                path=self.path,
            )

    def check(self) -> None:
        """Compares all weights with their digests, and the gaps between them with zeros. Raises PlanError."""
        start, nbytes = self.weights_range
        for chunk in range(len(self._sound)):
            if not self._sound[chunk]:
                self._check_chunk(chunk)
        end = 0
        for tensor in self.tensors:
            if isinstance(tensor, StoredTensor):
                _expect_zeros(self._view[start + end : start + tensor.offset], start + end, self.path)
                end = tensor.offset + tensor.nbytes
        _expect_zeros(self._view[start + end : start + nbytes], start + end, self.path)

    def close(self) -> None:
        """Closes the file. The mapping goes too, unless arrays still show its bytes; then it goes with the last of them."""
        self._close()
        self._view.release()
        with contextlib.suppress(BufferError):
            self._mapped.close()

    def _check_chunk(self, chunk: int) -> None:
        with self._locks[chunk % _LOCKS]:
            if not self._sound[chunk]:
                start, nbytes = self.weights_range
                first, last = chunk * CHUNK_NBYTES, min((chunk + 1) * CHUNK_NBYTES, nbytes)
                self.verify(chunk, self._view[start + first : start + last])
                self._sound[chunk] = 1


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in a plan file. ``offset`` counts from the start of the weights, and is the same on a device."""

    dtype: DType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    file: PlanFile = field(repr=False)

    def view(self) -> memoryview:
        """The densely packed bytes, mapped and checked. Raises PlanError when the file is damaged there."""
        return self.file.view(self.offset, self.nbytes)

    def chunks(self) -> Iterator[memoryview]:
        """The same bytes piece by piece; each piece is checked when its turn comes."""
        for start in range(0, self.nbytes, CHUNK_NBYTES):
            yield self.file.view(self.offset + start, min(CHUNK_NBYTES, self.nbytes - start))


@dataclass(frozen=True, slots=True, eq=False)
class StoredCode:
    """The code of a kernel in a plan file, ``start`` counted from the start of the file."""

    start: int
    nbytes: int
    expected: bytes
    file: PlanFile = field(repr=False)

    def chunks(self) -> Iterator[memoryview]:
        """All of it, checked. Raises PlanError when the file is damaged there."""
        yield self.file.code(self.start, self.nbytes, self.expected)


def _records_of(plan: "Plan") -> tuple[object, ...]:
    return (plan.graph, plan.tensors, plan.op_sets, plan.ranges, plan.report, plan.targets)


def _expect_zeros(gap: memoryview, offset: int, path: str) -> None:
    if any(gap):
        raise PlanError("there is something in a gap that must be zeros", offset=offset, path=path)
