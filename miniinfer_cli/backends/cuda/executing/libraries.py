"""cuBLASLt and cuDNN behind one question: who solves this problem, and how? Each is opened when it is first asked."""

import logging
import threading
from typing import Any

from miniinfer_cli.backends.cuda.problems import MatmulProblem, Problem
from miniinfer_cli.errors import DeviceError

_LOG = logging.getLogger(__name__)


class NoLibraries:
    """A device without libraries: our own kernels do everything."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def prepare(self, problem: Problem) -> Any:
        """Nobody solves it."""
        return None

    def is_likely(self, problem: Problem) -> bool:
        """Nobody does."""
        return False

    def bind(self, stream: Any) -> None:
        """Nothing to make ready."""

    def unbind(self, stream: Any) -> None:
        """Nothing to let go."""

    def close(self) -> None:
        """Nothing to give back."""


class Libraries:
    """The libraries of one device. Thread-safe. ``missing`` says why one could not be opened, by name."""

    def __init__(self, device: Any, cache: Any = None) -> None:
        self._device = device
        self._cache = cache
        self._lock = threading.RLock()
        self._opened: dict[str, Any] = {}
        self._streams: list[Any] = []
        self.missing: dict[str, str] = {}

    def prepare(self, problem: Problem) -> Any:
        """What solves the problem, with ``workspace_nbytes`` and ``enqueue``; None when no library here does.

        Equal problems give the same object: each library keeps what it prepared.
        """
        with self._lock:
            library = self._open(_library_of(problem))
            return None if library is None else library.prepare(problem)

    def is_likely(self, problem: Problem) -> bool:
        """Whether the library for problems of this kind is here; asks it nothing."""
        return _library_of(problem) not in self.missing

    def bind(self, stream: Any) -> None:
        """Makes handles for calls on ``stream``."""
        with self._lock:
            self._streams.append(stream)
            if self._opened.get("cudnn") is not None:
                self._opened["cudnn"].bind(stream.handle)

    def unbind(self, stream: Any) -> None:
        """Gives the handles for ``stream`` back."""
        with self._lock:
            self._streams = [s for s in self._streams if s is not stream]
            if self._opened.get("cudnn") is not None:
                self._opened["cudnn"].unbind(stream.handle)

    def close(self) -> None:
        """Closes what was opened; may be called twice."""
        with self._lock:
            for library in self._opened.values():
                if library is not None:
                    library.close()
            self._opened.clear()

    def _open(self, name: str) -> Any:
        if name not in self._opened:
            try:
                self._opened[name] = self._make(name)
            except DeviceError as error:
                self._opened[name] = None
                self.missing[name] = error.message
                _LOG.warning("%s; our own kernels take its place", error.message)
        return self._opened[name]

    def _make(self, name: str) -> Any:
        if name == "cublaslt":
            from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt

            return CublasLt(self._device)
        from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn

        cudnn = Cudnn(self._device, self._cache)
        for stream in self._streams:
            cudnn.bind(stream.handle)
        return cudnn


def _library_of(problem: Problem) -> str:
    return "cublaslt" if isinstance(problem, MatmulProblem) else "cudnn"
