"""Tactic records where they are kept: the sections of a plan, and the timing cache that the user names."""

import logging
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine_format import PlanError, TacticRecord, TargetGpu, TargetSection
from engine_format.timing_cache import LIMIT_NBYTES, MAGIC, parse_timing_cache, write_timing_cache
from miniinfer_cli.backends.cuda.contract.protocols import Device
from miniinfer_cli.errors import UsageError, refused, unwritable
from miniinfer_cli.trusted_files import is_trusted

_LOG = logging.getLogger(__name__)


def gpu_of(device: Device) -> TargetGpu:
    """The GPU as records name it."""
    return TargetGpu(device.name, device.multiprocessors, device.l2_nbytes)


def records_for(sections: Iterable[TargetSection], arch: int, gpu: TargetGpu) -> tuple[TacticRecord, ...]:
    """The records of the sections for ``sm_ARCH`` and the GPU."""
    return tuple(r for s in sections if s.arch == f"sm_{arch}" and s.gpu == gpu for r in s.records)


def note_on_foreign(sections: Sequence[TargetSection], arch: int, gpu: TargetGpu) -> tuple[str, ...]:
    """That a plan was tuned on other GPUs alone; nothing where it was on this one, or on none."""
    tuned = [s for s in sections if s.records and s.gpu is not None]
    if not tuned or any(s.arch == f"sm_{arch}" and s.gpu == gpu for s in tuned):
        return ()
    names = ", ".join(dict.fromkeys(s.gpu.name for s in tuned if s.gpu is not None))
    return (f"the plan was tuned on {names}, and runs untuned on this {gpu.name}: miniinfer tune adds what is best here",)


def read_timing_cache(path: Path) -> tuple[TargetSection, ...]:
    """What the timing cache at ``path`` holds; nothing where there is none, or where it is damaged, which is logged.

    Raises UsageError for a file that is something else, is not to be trusted, or cannot be read.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError("the timing cache is not a regular file", hint="give the path of a file").at(str(path))
            if not is_trusted(status):
                told = "the timing cache is another account's, or everybody may write it"
                raise UsageError(told, hint="give one of your own, that others may not write").at(str(path))
            data = file.read(LIMIT_NBYTES + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", path) from None
    if data and not data.startswith(MAGIC):
        hint = "give the path of one, or of a file that is not there yet"
        raise UsageError("this is not a timing cache", hint=hint).at(str(path))
    try:
        return parse_timing_cache(data[: LIMIT_NBYTES + 1])
    except PlanError as error:
        _LOG.warning("%s: %s; it counts as empty", path, error.message)
        return ()


def add_to_timing_cache(path: Path, arch: int, gpu: TargetGpu, records: Sequence[TacticRecord]) -> None:
    """Writes the timing cache anew with these records beside what it holds; those of equal signatures are replaced.

    Raises UsageError where it cannot be written, OutOfMemoryError when the disk is full.
    """
    sections = read_timing_cache(path)
    own = TargetSection(f"sm_{arch}", gpu=gpu)
    kept = [s for s in sections if not own.replaces(s)]
    merged = {r.signature: r for r in (*records_for(sections, arch, gpu), *records)}
    section = TargetSection(own.arch, gpu=gpu, records=tuple(merged[name] for name in sorted(merged)))
    try:
        write_timing_cache(path, [*kept, section])
    except OSError as error:
        raise unwritable(error, path) from None
