"""cuBLASLt and cuDNN behind one question: who solves this problem, and how? Each is opened when it is first asked."""

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from miniinfer_cli.backends.cuda.contract.problems import MatmulProblem, Problem, Variant
from miniinfer_cli.backends.cuda.contract.protocols import PreparedCall, Stream
from miniinfer_cli.backends.cuda.driver.library_loading import LoadingAhead
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.errors import DeviceError

if TYPE_CHECKING:
    from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
    from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
    from miniinfer_cli.backends.cuda.driver.device import Device

_CUBLASLT, _CUDNN = "cublaslt", "cudnn"
_LOG = logging.getLogger(__name__)


class Libraries:
    """The libraries of one device. Thread-safe. ``missing`` says why one could not be opened, by name."""

    def __init__(self, device: "Device", cache: TacticCache | None = None, ahead: LoadingAhead | None = None) -> None:
        """``ahead``: what was begun to load them, which is waited for when one is opened."""
        self._device = device
        self._cache = cache
        self._ahead = ahead
        self._lock = threading.RLock()
        self._cublaslt: CublasLt | None = None
        self._cudnn: Cudnn | None = None
        self._streams: list[Stream] = []
        self.missing: dict[str, str] = {}

    def prepare(self, problem: Problem, variant: Variant | None = None) -> PreparedCall | None:
        """What solves the problem, with ``workspace_nbytes`` and ``enqueue``; None when no library here does.

        ``variant``: in which way, instead of the library's own choice. Equal problems and variants give the same object: each
        library keeps what it prepared.
        """
        with self._lock:
            if isinstance(problem, MatmulProblem):
                matrices = self._matrices()
                return None if matrices is None else matrices.prepare(problem, variant)
            networks = self._networks()
            return None if networks is None else networks.prepare(problem, variant)

    def variants(self, problem: Problem, count: int, seconds: float) -> Sequence[Variant]:
        """See protocols.Libraries."""
        with self._lock:
            if isinstance(problem, MatmulProblem):
                matrices = self._matrices()
                return () if matrices is None else matrices.variants(problem, count)
            networks = self._networks()
            return () if networks is None else networks.variants(problem, count, seconds)

    def to_record(self, problem: Problem, variant: Variant | None) -> Variant | None:
        """See protocols.Libraries."""
        with self._lock:
            if isinstance(problem, MatmulProblem):
                matrices = self._matrices()
                prepared = None if matrices is None else matrices.prepare(problem, variant)
                return None if prepared is None else prepared.variant
            networks = self._networks()
            return None if networks is None else networks.to_record(problem, variant)

    def solved_by(self, problem: Problem) -> str:
        """See protocols.Libraries."""
        with self._lock:
            library = self._matrices() if isinstance(problem, MatmulProblem) else self._networks()
            return "" if library is None else f"{_library_of(problem)} {library.version}"

    def is_likely(self, problem: Problem) -> bool:
        """Whether the library for problems of this kind is here; asks it nothing."""
        return _library_of(problem) not in self.missing

    def bind(self, stream: Stream) -> None:
        """Makes handles for calls on ``stream``."""
        with self._lock:
            self._streams.append(stream)
            if self._cudnn is not None:
                self._cudnn.bind(stream.handle)

    def unbind(self, stream: Stream) -> None:
        """Gives the handles for ``stream`` back."""
        with self._lock:
            self._streams = [s for s in self._streams if s is not stream]
            if self._cudnn is not None:
                self._cudnn.unbind(stream.handle)

    def close(self) -> None:
        """Closes what was opened; may be called twice."""
        with self._lock:
            self._wait()
            for library in (self._cublaslt, self._cudnn):
                if library is not None:
                    library.close()
            self._cublaslt = self._cudnn = None

    def _matrices(self) -> "CublasLt | None":
        """cuBLASLt, opened at first need."""
        if self._cublaslt is None and _CUBLASLT not in self.missing:
            from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt

            self._wait()
            try:
                self._cublaslt = CublasLt(self._device)
            except DeviceError as error:
                self._miss(_CUBLASLT, error)
        return self._cublaslt

    def _networks(self) -> "Cudnn | None":
        """cuDNN, opened at first need, with handles for the streams that are there."""
        if self._cudnn is None and _CUDNN not in self.missing:
            from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn

            self._wait()
            try:
                cudnn = Cudnn(self._device, self._cache)
                for stream in self._streams:
                    cudnn.bind(stream.handle)
                self._cudnn = cudnn
            except DeviceError as error:
                self._miss(_CUDNN, error)
        return self._cudnn

    def _wait(self) -> None:
        if self._ahead is not None:
            self._ahead.wait()

    def _miss(self, name: str, error: DeviceError) -> None:
        self.missing[name] = error.message
        _LOG.warning("%s; our own kernels take its place", error.message)


def _library_of(problem: Problem) -> str:
    return _CUBLASLT if isinstance(problem, MatmulProblem) else _CUDNN
