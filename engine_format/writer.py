"""write_plan: a plan becomes a file, whole or not at all.

The header stands before the weights but holds their digests, and which tensors turn out to be the same is known only
after all were read. So the writer reserves room for the longest header that there can be, streams the weights behind it,
and fills the room when it knows everything; ``pad`` takes up what is left. Each tensor is read once, chunk by chunk, and
one that repeats an earlier one is overwritten by the next. The same plan gives the same bytes.
"""

import errno
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash

from engine_format.copying import copy_range
from engine_format.decode import decode_header
from engine_format.dtypes import DType
from engine_format.encode import Placement, encode_header, format_of
from engine_format.errors import PlanError
from engine_format.layout import (
    CHUNK_NBYTES,
    DIGEST_NBYTES,
    ITEM_ALIGNMENT,
    MAGIC,
    PREAMBLE,
    align,
    chunk_count,
    digest,
    weights_start,
)
from engine_format.plan import Plan
from engine_format.records import ArrayRecord
from engine_format.replacing import replacing, resolved
from engine_format.stored import PlanFile


def write_plan(
    plan: Plan, path: "str | os.PathLike[str]", progress: Callable[[int, int], None] = lambda written, of: None
) -> None:
    """Writes ``plan`` to ``path``, replacing a file that is there.

    ``progress`` is called with the bytes of weights written so far, and the most that there can be.

    Whatever happens, ``path`` is the old file or the new one (``replacing``). A plan that keeps the tensors of the file
    it was opened from, one with a new target section say, has its weights copied by the kernel.

    Raises PlanError when the plan breaks a rule of the format, before anything is written; IsADirectoryError when
    ``path`` is a folder; and OSError (``ENOSPC``, ``EROFS``, ``EACCES`` ...) when the file system refuses.
    """
    target = Path(resolved(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    placement = _placement(plan)
    header = encode_header(plan, placement)
    try:
        decode_header(header)
    except PlanError as error:
        raise PlanError(f"the plan breaks a rule of its format: {error.message}") from None
    start = weights_start(len(header))
    with replacing(target) as file:
        source = _unchanged(plan)
        if source is not None:
            # At the place where they are, if the header lets them: an unchanged plan gives an unchanged file.
            start = max(start, source.weights_range[0])
            copy_range(source.fileno(), source.weights_range[0], file.fileno(), start, placement.weights_nbytes)
        else:
            file.seek(start)
            placement = _stream(plan, placement, file, progress)
        header = encode_header(plan, placement, start)
        file.seek(0)
        file.write(PREAMBLE.pack(MAGIC, format_of(plan), 0, len(header), digest(header)) + header)
        # Cuts off a last tensor that repeated an earlier one; makes the gap after the header where nothing follows.
        file.truncate(start + placement.weights_nbytes)
        file.seek(0, os.SEEK_END)
        for kernel in (k for t in plan.targets for k in t.kernels):
            file.write(kernel.read().ljust(align(kernel.nbytes, ITEM_ALIGNMENT), b"\0"))


def _unchanged(plan: Plan) -> PlanFile | None:
    """The file that holds the weights of ``plan`` as they are to be written, if there is one."""
    return plan.file if plan.file is not None and plan.tensors is plan.file.tensors else None


def _placement(plan: Plan) -> Placement:
    """Where everything would lie if no two tensors had the same contents: the longest header that there can be.

    Exact for a plan whose weights are those of the file that it was opened from.
    """
    numbers: dict[int, int] = {}
    index: list[int] = []
    kept: list[int] = []
    offsets: list[int] = []
    end = 0
    for i, tensor in enumerate(plan.tensors):
        if id(tensor) not in numbers:
            numbers[id(tensor)] = len(kept)
            kept.append(i)
            offsets.append(end)
            end = align(end + tensor.nbytes, ITEM_ALIGNMENT)
        index.append(numbers[id(tensor)])
    source = _unchanged(plan)
    digests = source.digests if source is not None else bytes(chunk_count(end) * DIGEST_NBYTES)
    kernels, kernels_end = [], 0
    for kernel in (k for t in plan.targets for k in t.kernels):
        kernels.append((kernels_end, digest(kernel.read())))
        kernels_end = align(kernels_end + kernel.nbytes, ITEM_ALIGNMENT)
    return Placement(tuple(index), tuple(kept), tuple(offsets), end, digests, tuple(kernels))


def _stream(plan: Plan, upper: Placement, file: BinaryIO, progress: Callable[[int, int], None]) -> Placement:
    """Writes the weights at the file's position, tensors with the same contents once, and tells where they came to lie."""
    weights = _Weights(file)
    first: dict[Hashable, int] = {}
    numbers: list[int] = []
    kept: list[int] = []
    offsets: list[int] = []
    for i in upper.kept:
        tensor, mark = plan.tensors[i], weights.mark()
        contents = xxhash.xxh3_128()
        for chunk in tensor.chunks():
            weights.write(chunk)
            contents.update(chunk)
            progress(weights.end, upper.weights_nbytes)
        if weights.end - mark.end != tensor.nbytes:
            raise ValueError(f"tensor {i} gave {weights.end - mark.end} bytes, but has {tensor.nbytes}")
        strings = tensor.data if isinstance(tensor, ArrayRecord) and tensor.dtype is DType.STR else None
        number = first.setdefault((tensor.dtype, tensor.shape, contents.digest(), strings), len(kept))
        if number < len(kept):
            weights.rewind(mark)
        else:
            kept.append(i)
            offsets.append(mark.end)
            weights.write(bytes(align(weights.end, ITEM_ALIGNMENT) - weights.end))
        numbers.append(number)
    index = tuple(numbers[n] for n in upper.index)
    return Placement(index, tuple(kept), tuple(offsets), weights.end, weights.digests(), upper.kernels)


class _Mark(NamedTuple):
    end: int
    complete: int
    hasher: Any


class _Weights:
    """Writes weights and digests them chunk by chunk; can go back to a mark."""

    def __init__(self, file: BinaryIO) -> None:
        self.end = 0
        self._file = file
        self._start = file.tell()
        self._hasher = xxhash.xxh3_128()
        self._digests: list[bytes] = []

    def write(self, data: Any) -> None:
        self._file.write(data)
        rest = memoryview(data)
        while rest:
            piece = rest[: CHUNK_NBYTES - self.end % CHUNK_NBYTES]
            self._hasher.update(piece)
            self.end += len(piece)
            if self.end % CHUNK_NBYTES == 0:
                self._digests.append(self._hasher.digest())
                self._hasher = xxhash.xxh3_128()
            rest = rest[len(piece) :]

    def mark(self) -> _Mark:
        return _Mark(self.end, len(self._digests), self._hasher.copy())

    def rewind(self, mark: _Mark) -> None:
        self.end, self._hasher = mark.end, mark.hasher
        del self._digests[mark.complete :]
        self._file.seek(self._start + self.end)

    def digests(self) -> bytes:
        last = [self._hasher.digest()] if self.end % CHUNK_NBYTES else []
        return b"".join([*self._digests, *last])
