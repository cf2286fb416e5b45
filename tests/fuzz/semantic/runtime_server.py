"""ONNX Runtime in a forked process that lives across cases, as importing it takes longer than a case; it may crash or hang."""

import ctypes
import os
import pickle
import resource
import select
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from miniinfer_cli import onnxruntime_process as process
from miniinfer_cli.verification.oracles import OracleGone, OracleRefused, _received, _sent

_LIMIT_S = 20.0
_ROOM = 2 << 30  # address space beyond what the process had
_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("<Q")


class RuntimeServer:
    """Starts its process when it is first asked, and again when that has ended. Use as a context manager, or ``close``."""

    def __init__(self) -> None:
        self.pid = 0
        """Of the process; 0 where there is none."""
        self._requests = self._answers = -1

    def load(self, model: Path, names: Sequence[str], optimized: bool = True) -> "RuntimeModel":
        """A model that ``model`` holds, to be asked for the outputs ``names``; as it is written, unless it is ``optimized``.

        Raises OracleGone where it is not taken.
        """
        error = self.ask(("load", str(model), optimized))
        if error is not None:
            raise OracleGone(error)
        return RuntimeModel(self, names)

    def ask(self, request: tuple[Any, ...]) -> Any:
        """The answer. Raises OracleGone when there is none: it crashed, or took too long."""
        if not self.pid:
            self._start()
        try:
            _write(self._requests, pickle.dumps(request))
            return pickle.loads(_read(self._answers, time.monotonic() + _LIMIT_S))
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self.close()
            raise OracleGone("it crashed, or took too long") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.close(self._requests)
            os.close(self._answers)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _start(self) -> None:
        theirs_in, self._requests = os.pipe()
        self._answers, theirs_out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._requests)
                os.close(self._answers)
                _serve(theirs_in, theirs_out)
            finally:
                os._exit(1)
        os.close(theirs_in)
        os.close(theirs_out)


class RuntimeModel:
    """The model that a server has loaded last: what ``miniinfer_cli.verification`` calls an oracle."""

    name = "onnxruntime"

    def __init__(self, server: RuntimeServer, names: Sequence[str]) -> None:
        self._server = server
        self._names = list(names)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name. Raises OracleRefused for these inputs, OracleGone when the server is gone."""
        error, values = self._server.ask(("run", self._names, {name: _sent(value) for name, value in feeds.items()}))
        if error is not None:
            raise OracleRefused(error)
        return dict(zip(self._names, map(_received, values), strict=True))


def _serve(requests: int, answers: int) -> None:
    die_with_parent()
    os.chdir("/")  # the folder of a case is removed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    import onnxruntime  # here alone: the process under test does not have it loaded

    session: Any = None
    while True:
        what, *rest = pickle.loads(_read(requests, float("inf")))
        answer: Any
        try:
            if what == "load":
                session = None
                session = _session(onnxruntime, *rest)
                answer = None
            else:
                wanted = {i.name for i in session.get_inputs()}
                feeds = {name: value for name, value in rest[1].items() if name in wanted}
                answer = None, process._run(onnxruntime, session, rest[0], feeds)
        except Exception as error:  # its errors have no base class of their own
            told = f"{type(error).__name__}: {error}"
            answer = told if what == "load" else (told, [])
        _write(answers, pickle.dumps(answer))


def _session(onnxruntime: Any, model: str, optimized: bool) -> Any:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def die_with_parent() -> None:
    """Ends this process when the one that forked it ends, however that does; on Linux alone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, deadline: float) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size, deadline))
    return _read_exactly(fd, length, deadline)


def _read_exactly(fd: int, count: int, deadline: float) -> bytes:
    chunks = bytearray()
    while len(chunks) < count:
        wait = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        if not select.select([fd], [], [], wait)[0]:
            raise EOFError("too long")
        chunk = os.read(fd, min(count - len(chunks), 1 << 20))
        if not chunk:
            raise EOFError("ended")
        chunks += chunk
    return bytes(chunks)
