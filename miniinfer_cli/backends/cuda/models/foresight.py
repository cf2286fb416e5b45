"""Kernels for other sizes of a model, compiled in the background: some kernels come in a few forms, chosen by size.

A program at a new size must not wait for the compiler. Once the first program runs, the kernels of a ladder of other sizes
are compiled into the cache, from where a new program takes them. Only in idle moments of the whole process: what serves comes
first, by whichever engine. Each call of the driver gives the interpreter up, and had to wait 5 ms for it while another engine's
programs were made here.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.making.sizes import other_sizes
from miniinfer_cli.errors import DeviceError, MiniinferError
from miniinfer_cli.ir import Graph, Type
from miniinfer_cli.shortage import start_thread

_IDLE_S = 0.05  # without an inference; making programs holds the interpreter, and an inference would wait for it
_QUIET_S = 0.5  # after the first program is made: the first inference loads what it uses, and is not to wait either
_LOG = logging.getLogger(__name__)


class _Ended(Exception):
    """It is to end in the middle of its work."""


class Foresight:
    """Works once, on a thread of its own, from ``begin`` on. ``done`` is set when it has ended."""

    def __init__(
        self,
        target: Target,
        cache: KernelCache,
        last_use: Callable[[], float],
        is_there: Callable[[Kernel], bool] = lambda kernel: False,
        quiet_s: float = _QUIET_S,
    ) -> None:
        """``target`` answers ``supports`` without asking the libraries: that would cost more than it saves.

        ``last_use``: when any engine last enqueued an inference, on the clock of ``time.monotonic``. ``is_there``: whether a
        kernel needs no compiling. ``quiet_s``: how long nothing is done from ``begin`` on.
        """
        self._target = replace(target, watch=self._give_way)
        self._cache = cache
        self._last_use = last_use
        self._is_there = is_there
        self._quiet_s = quiet_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.done = threading.Event()

    def begin(self, inputs: Sequence[Type | None], graph: Graph) -> None:
        """Starts from the graph and the sizes of the first program; later calls do nothing."""
        if self._thread is None:
            # No daemon: the compiler must not be in the middle of its work when the process takes itself apart.
            thread = threading.Thread(target=self._work, args=(list(inputs), graph), name="miniinfer-foresight")
            start_thread(thread)
            self._thread = thread

    def close(self) -> None:
        """Ends it after the kernel that is being compiled; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _wait_until_idle(self, earliest: float) -> bool:
        """Waits until then at least. False when it is to end instead."""
        while not self._is_ending():
            left = max(self._last_use() + _IDLE_S, earliest) - time.monotonic()
            if left <= 0:
                return True
            self._stop.wait(min(left, _IDLE_S))  # the program may end meanwhile
        return False

    def _give_way(self, *_: object) -> None:
        """Between two nodes, and two kernels: inferences may have begun meanwhile. Raises _Ended where it is to end."""
        if not self._wait_until_idle(0.0):
            raise _Ended

    def _is_ending(self) -> bool:
        """True once the engine closes, or the program ends without having closed it."""
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def _work(self, inputs: list[Type | None], graph: Graph) -> None:
        earliest = time.monotonic() + self._quiet_s
        try:
            seen = set()
            for types in other_sizes(graph, inputs):
                if not self._wait_until_idle(earliest):
                    return
                try:
                    kernels = [k for k in make_program(graph, types, self._target).kernels if k not in seen]
                except MiniinferError:
                    continue  # a size that the model does not take
                seen.update(kernels)
                for source in sources_of([k for k in kernels if not self._is_there(k)], self._target.arch):
                    self._give_way()
                    self._cache.get(source)
        except _Ended:
            pass
        except DeviceError as error:
            _LOG.warning("%s (while compiling for other sizes)", error.message)  # who needs the kernel is told in full
        finally:
            self.done.set()
