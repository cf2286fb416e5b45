"""Who says what a model's outputs are: ONNX Runtime in a process of its own, or the numpy references of the graph as imported."""

import contextlib
import json
import os
import select
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from miniinfer_cli import onnxruntime_process as process
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph, dtype_of
from miniinfer_cli.ir.arrays import pack, unpack
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code

_TAIL = 300  # characters of what a process that ended said last


class OracleGone(Exception):
    """Why this oracle answers nothing more, in one line: it is not installed, takes no such model, crashed, or took too long."""


class OracleRefused(Exception):
    """Why the oracle does not run the model on these inputs, in one line."""


class Oracle(Protocol):
    """What ``verify_plan`` asks."""

    name: str

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name. Raises OracleRefused for these inputs, OracleGone for all from now on."""


class References:
    """The numpy references of ``graph``, which is as imported, not optimized, and without dead nodes."""

    name = "the unoptimized graph (numpy references)"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """See Oracle."""
        try:
            with np.errstate(all="ignore"):
                outputs = interpret(self._graph, [feeds[v.name] for v in self._graph.inputs])
        except (MiniinferError, IndexError, ValueError, ArithmeticError, MemoryError) as error:
            raise OracleRefused(_first_line(error)) from None
        return dict(zip(self._graph.output_names, outputs, strict=True))


class OnnxRuntime:
    """ONNX Runtime on the model file ``model``, or on its bytes. Use as a context manager, which ends the process.

    ``names``: the outputs to ask for. ``timeout_s``: how long loading, and each run, may take. ``plain``: it optimizes nothing.
    Raises OracleGone when it does not get as far as to have loaded the model.
    """

    def __init__(self, model: Any, names: Sequence[str], timeout_s: float, *, plain: bool = False) -> None:
        self._plain = plain
        self._names = list(names)
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="miniinfer-verify-")
        self._rest = b""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            path = self._as_file(model)
            self._said = (self._place / "stderr").open("w+b")
            self._process = self._start(path)
            loaded = self._answer("it loaded the model")
            self.name = f"onnxruntime {loaded['version']}" if "version" in loaded else "onnxruntime"
            self.name += " (without optimizations)" if plain else ""
            if "error" in loaded:
                reason = loaded["error"]
                raise OracleGone(reason if loaded["of"] == "package" else f"{self.name} does not take this model: {reason}")
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """See Oracle."""
        inputs, outputs = self._place / "inputs.npz", self._place / "outputs.npz"
        process.write_values(inputs, [_sent(value) for value in feeds.values()])
        self._ask({"feeds": list(feeds), "inputs": str(inputs), "names": self._names, "outputs": str(outputs)})
        answer = self._answer("it ran the model")
        if "error" in answer:
            raise OracleRefused(answer["error"])
        return dict(zip(self._names, map(_received, process.read_values(outputs)), strict=True))

    def close(self) -> None:
        """Ends the process and removes its files. May be called twice."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._process.wait()
            self._process = None
            self._said.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _place(self) -> Path:
        return Path(self._folder.name)

    def _as_file(self, model: Any) -> Path:
        if isinstance(model, (str, Path)):
            return Path(model)
        if not isinstance(model, bytes):
            if model.ByteSize() >= 1 << 31:
                raise OracleGone("onnxruntime is given a file, and this model in memory is too large for one: save it first")
            model = model.SerializeToString()
        path = self._place / "model.onnx"
        path.write_bytes(model)
        return path

    def _start(self, model: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", process.__name__, str(model), *(["plain"] if self._plain else [])]
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said, env=child_environment())
        except OSError as error:
            raise OracleGone(f"a process for onnxruntime cannot be started: {error.strerror or error}") from None

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer says how
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, before: str) -> dict[str, Any]:
        """Its next line. Raises OracleGone when it ends, or lets us wait too long, ``before`` it has answered."""
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout.fileno()
        deadline = time.monotonic() + self._timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise OracleGone(f"onnxruntime was stopped after {self._timeout_s:g} s, before {before}")
            part = os.read(stream, 1 << 16)
            if not part:
                raise OracleGone(f"onnxruntime ended {self._how_it_ended()} before {before}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how_it_ended(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()[-_TAIL:].splitlines()
        if code >= 0:
            return f"with exit code {code}" + (f" ({said[-1]})" if said else "")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"by signal {name}" + (" (has the memory run out?)" if -code == signal.SIGKILL else "")


def child_environment() -> dict[str, str]:
    """Ours, in which this package is found: the process looks neither into the working folder nor where we were told to."""
    root = str(Path(process.__file__).resolve().parents[1])
    if root in (*site.getsitepackages(), site.getusersitepackages()):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))}


def _sent(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_sent(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _sent(item) for key, item in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return value
    dtype = dtype_of(value)
    return process.Packed(code_of_dtype(dtype), value.shape, pack(value, dtype))


def _received(value: Any) -> Any:
    if isinstance(value, process.Packed):
        return unpack(value.data, dtype_of_code(value.code), value.shape)
    if isinstance(value, list):
        return [_received(item) for item in value]
    return {key: _received(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
