"""read_plan: opens a plan file. Reads the preamble and the header; the weights stay on the disk until something looks."""

import copyreg
import errno
import mmap
import os
import stat
from pathlib import Path
from typing import Any

from engine_format.decode import Header, TargetEntry, decode_header
from engine_format.errors import PlanError
from engine_format.layout import FORMAT_VERSION, HEADER_LIMIT, MAGIC, PREAMBLE, digest, weights_start
from engine_format.plan import Plan
from engine_format.records import ArrayRecord
from engine_format.stored import PlanFile, StoredCode, StoredTensor
from engine_format.targets import StoredKernel, TargetSection

_NOT_A_PLAN = "plans are made by: miniinfer build model.onnx -o model.plan, or miniinfer_cli.build(model, plan)"


def read_plan(path: "str | os.PathLike[str]") -> Plan:
    """Opens the plan file at ``path``, checks its header, and maps the rest.

    Takes milliseconds whatever the size of the weights, and memory in proportion to the header. The file must not be
    changed in place while the plan is open; replacing it by another file of the same name is fine.
    Raises PlanError for a file that is not a sound plan, and OSError for one that cannot be opened.
    """
    name = os.fspath(path)
    # A pipe is opened without waiting for a writer, and then refused.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mapped = _map(fd, name)
    except BaseException:
        os.close(fd)
        raise
    file = PlanFile(name, fd, mapped)
    try:
        with memoryview(mapped) as view:
            return _read(file, view)
    except PlanError as error:
        file.close()
        error.path = name
        raise


def reopen_plan(path: str, digest: str) -> Plan:
    """The plan of ``path`` whose header has this ``digest`` (hexadecimal), as another process sent it.

    Raises what ``read_plan`` does, and PlanError when another plan lies there.
    """
    plan = read_plan(path)
    if plan.digest != digest:
        plan.close()
        raise PlanError(
            f"this is not the plan that was sent: its digest is {plan.digest}, expected {digest}",
            hint="give both processes the same file, or send the plan that lies there now",
            path=path,
        )
    return plan


def _travel(plan: Plan) -> Any:
    """What pickling keeps of a plan: of one from a file path and digest, of one in memory all that it holds."""
    file = plan.file
    if file is None:
        return plan.__reduce_ex__(4)
    if not file.holds(plan):
        raise PlanError(
            "the plan was changed since it was read, so its file cannot stand for it",
            hint="write it to a file, and send the plan that is read from there: write_plan(plan, path)",
            path=file.path,
        )
    return reopen_plan, (str(Path(file.path).absolute()), file.digest)


copyreg.pickle(Plan, _travel)


def _map(fd: int, path: str) -> mmap.mmap:
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_size < PREAMBLE.size:
        raise PlanError(f"this is not a plan: {status.st_size} bytes are too few", offset=0, hint=_NOT_A_PLAN, path=path)
    return mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ)


def _read(file: PlanFile, view: memoryview) -> Plan:
    version, length, expected = _preamble(view)
    header = bytes(view[PREAMBLE.size : PREAMBLE.size + length])
    if digest(header) != expected:
        raise PlanError(
            "the header does not match its digest: the file is damaged",
            offset=PREAMBLE.size,
            hint="build the plan again, or copy it again",
        )
    records = decode_header(header, PREAMBLE.size, version)
    _check_extent(records, PREAMBLE.size + length, view)
    start = weights_start(length)
    file.place_weights(start, records.weights_nbytes, records.digests)
    file.digest = expected.hex()
    file.tensors = tuple(
        StoredTensor(t.dtype, t.shape, t.offset, t.nbytes, file)
        if t.strings is None
        else ArrayRecord(t.dtype, t.shape, t.strings)
        for t in records.tensors
    )
    end = start + records.weights_nbytes
    targets = tuple(_bind(t, end, file) for t in records.targets)
    plan = Plan(records.graph, file.tensors, records.op_sets, records.ranges, records.report, targets, file)
    file.note(plan)
    return plan


def _preamble(view: memoryview) -> tuple[int, int, bytes]:
    """The format, and length and digest of the header."""
    magic, version, zero, length, expected = PREAMBLE.unpack_from(view)
    if magic != MAGIC:
        raise PlanError(f"this is not a plan: it begins with {magic!r}, not {MAGIC!r}", offset=0, hint=_NOT_A_PLAN)
    if version > FORMAT_VERSION:
        raise PlanError(
            f"the plan has format {version}, and this release reads up to {FORMAT_VERSION}",
            offset=8,
            hint="upgrade miniinfer, or build the plan again with this release",
        )
    if version < 1:
        raise PlanError(f"there is no plan format {version}", offset=8)
    if zero:
        raise PlanError(f"expected a zero, got {zero}", offset=12)
    if length > HEADER_LIMIT:
        raise PlanError(f"a header of {length} bytes is above {HEADER_LIMIT}", offset=16)
    if PREAMBLE.size + length > len(view):
        raise PlanError(f"the header ends at byte {PREAMBLE.size + length}, but the file has only {len(view)}", offset=len(view))
    return version, length, expected


def _check_extent(records: Header, header_end: int, view: memoryview) -> None:
    start = weights_start(header_end - PREAMBLE.size)
    end = start + records.weights_nbytes + records.kernels_nbytes
    if len(view) < end:
        raise PlanError(f"the file is cut short: it has {len(view)} bytes of {end}", offset=len(view))
    if len(view) > end:
        raise PlanError(f"the file goes on after its end: it has {len(view)} bytes, and {end} are described", offset=end)
    if any(view[header_end:start]):
        raise PlanError("there is something in the gap after the header, which must be zeros", offset=header_end)


def _bind(target: TargetEntry, kernels_start: int, file: PlanFile) -> TargetSection:
    kernels = tuple(
        StoredKernel(k.name, k.source, StoredCode(kernels_start + k.offset, k.nbytes, k.digest, file)) for k in target.kernels
    )
    return TargetSection(target.arch, target.libraries, target.tactics, kernels, target.signature, target.gpu, target.records)
