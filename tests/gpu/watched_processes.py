"""Processes side by side that end by a time, or are ended."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """What a process printed, and its exit code; None for one that had not ended by itself."""

    text: str
    code: int | None


def run_watched(commands: Sequence[Sequence[str]], seconds: float) -> list[Ended]:
    """Runs the commands at once; what has not ended after ``seconds`` is killed, with what it started.

    Each prints into a file, so that none waits for another's output to be read.
    """
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for command, file in zip(commands, files, strict=True):
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
                processes.append(process)
            codes = [_code(p, until) for p in processes]
        finally:
            for process in processes:
                _kill(process)
        ended = []
        for file, code in zip(files, codes, strict=True):
            file.seek(0)
            ended.append(Ended(file.read().decode(errors="replace"), code))
        return ended


def _code(process: "subprocess.Popen[bytes]", until: float) -> int | None:
    try:
        return process.wait(max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process that still runs, and its group, which it leads."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
