"""Workers as who compares sees them: a process for each, started, asked, and ended."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from miniinfer_cli.comparison.messages import Job, raised, write_job
from miniinfer_cli.errors import DeviceError, MiniinferError, OutOfMemoryError
from miniinfer_cli.verification.oracles import child_environment
from miniinfer_cli.wording import Wording

_MODULE = "miniinfer_cli.comparison.worker_process"
_TIMEOUT_S = 900.0  # without an answer
_TAIL = 300  # characters of what a process that ended said last


@dataclass(frozen=True, slots=True)
class Reading:
    """One segment: milliseconds of one inference, latencies (sorted; a sample of them where they are many)."""

    time_ms: float
    latencies_ms: tuple[float, ...]


class Worker(Protocol):
    """What a race asks of a worker."""

    @property
    def pid(self) -> int:
        """The number of its process."""

    @property
    def cpu_s(self) -> float:
        """Seconds of processors that it has taken, as it told last."""

    def ready(self) -> list[float]:
        """Waits until it is warm; milliseconds of one inference of each case."""

    def stay_on(self, processors: Sequence[int]) -> None:
        """From now on it computes on these processors alone."""

    def segment(self, case: int, seconds: float) -> Reading:
        """Measures one case for about so many seconds."""

    def state(self) -> Mapping[str, Any]:
        """The state of its GPU; empty on a CPU."""

    def close(self) -> None:
        """Ends it. May be called twice."""


class WorkerProcess:
    """A worker in a process of its own, which is under way when the constructor returns; ``name`` is for errors.

    Its faults are raised here as they would have been without a process: a MiniinferError of the same class.
    """

    def __init__(self, name: str, job: Job) -> None:
        self._name = name
        self.cpu_s = 0.0
        self._rest = b""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        command = [sys.executable, "-P", "-m", _MODULE]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said, env=_environment())
        except OSError as error:
            self._said.close()
            raise OutOfMemoryError(f"a process to measure {name} cannot be started: {error.strerror or error}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._open = True
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended: the answer says how
                write_job(self._input, job)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ready(self) -> list[float]:
        """See Worker."""
        return [float(t) for t in self._answer()["times_ms"]]

    def stay_on(self, processors: Sequence[int]) -> None:
        """See Worker."""
        self._ask(f"stay {','.join(map(str, processors))}\n")

    def segment(self, case: int, seconds: float) -> Reading:
        """See Worker."""
        answer = self._ask(f"{case} {seconds:.6f}\n")
        return Reading(float(answer["time_ms"]), tuple(answer["latencies_ms"]))

    def state(self) -> Mapping[str, Any]:
        """See Worker."""
        state: Mapping[str, Any] = self._ask("state\n")["state"]
        return state

    def close(self) -> None:
        """See Worker."""
        if self._open:
            self._open = False
            self._process.kill()
            for stream in (self._input, self._output):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            self._process.wait()
            self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: str) -> Mapping[str, Any]:
        with contextlib.suppress(BrokenPipeError):
            self._input.write(request.encode())
            self._input.flush()
        return self._answer()

    def _answer(self) -> Mapping[str, Any]:
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\n" not in self._rest:
            waiting, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not waiting:
                raise DeviceError(
                    f"a process that measures {self._name} has not answered for {_TIMEOUT_S:g} s",
                    hint=Wording(
                        "see whether one inference ends, and give smaller sizes by shapes",
                        flags="see whether miniinfer run ends, and give smaller sizes by --shapes",
                    ),
                )
            part = os.read(self._output.fileno(), 1 << 16)
            if not part:
                raise self._ended()
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        answer: Mapping[str, Any] = json.loads(line)
        raised(answer)
        self.cpu_s = float(answer.get("cpu_s", self.cpu_s))
        return answer

    def _ended(self) -> MiniinferError:
        """What to raise when it ended without an answer."""
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()[-_TAIL:].splitlines()
        what = f"a process that measures {self._name} ended"
        if code == -signal.SIGKILL:
            return OutOfMemoryError(f"{what} by signal SIGKILL: has the memory run out?")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(code)
        how = f"by signal {name}" if code < 0 else f"with exit code {code}"
        return DeviceError(
            f"{what} {how}{f' ({said[-1]})' if said else ''}",
            hint=Wording("one inference by itself shows it", flags="miniinfer run shows it by itself"),
        )


def _environment() -> dict[str, str]:
    """Ours, in which modules are found that are found here: plugins among them."""
    return {**child_environment(), "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, sys.path)))}
