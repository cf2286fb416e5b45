"""What a comparison and its workers say to each other: a Job, then requests and answers, in lines of JSON."""

import json
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from miniinfer_cli import errors
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError
from miniinfer_cli.shortage import memory_ran_out

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker opens, and on which inputs (``feeds`` of each case, by name) it measures: ``warmup_s`` seconds first."""

    plan: str
    device: str
    options: DeviceOptions
    plugins: Sequence[str]
    feeds: Sequence[Mapping[str, Any]]
    streams: int
    transfers: bool
    warmup_s: float


def write_job(stream: IO[bytes], job: Job) -> None:
    """Sends ``job`` to a worker."""
    contents = pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(contents)))
    stream.write(contents)
    stream.flush()


def read_job(stream: IO[bytes]) -> Job:
    """The job that the process which started this one wrote. Raises EOFError where that ended before."""
    (count,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    job = pickle.loads(_read(stream, count))
    if not isinstance(job, Job):
        raise TypeError(f"expected a Job, got {type(job).__name__}")
    return job


def write_line(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Sends a request or an answer."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def described(error: BaseException) -> dict[str, Any]:
    """An answer that tells a fault, which ``raised`` raises on the other side. Raises ``error`` where it is a bug."""
    if isinstance(error, MiniinferError):
        fault = error
    elif memory_ran_out(error):
        fault = OutOfMemoryError(f"this machine's memory ran out: {error}".rstrip(": "))
    else:
        raise error
    kind = type(fault).__name__
    return {
        "error": {"kind": kind, "message": fault.message, "hint": fault.own_hint, "where": fault.where, "details": fault.details}
    }


def raised(answer: Mapping[str, Any]) -> None:
    """Raises the fault that an answer tells, if it does."""
    told = answer.get("error")
    if told is not None:
        kind = getattr(errors, told["kind"])
        raise kind(told["message"], hint=told["hint"], where=tuple(told["where"]), details=tuple(told["details"]))


def _read(stream: IO[bytes], count: int) -> bytes:
    contents = stream.read(count)
    if len(contents) < count:
        raise EOFError("the process that started this one has ended")
    return contents
