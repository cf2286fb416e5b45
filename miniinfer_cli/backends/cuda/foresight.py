"""Kernels for other sizes of a model, compiled in the background: some kernels come in a few forms, chosen by size.

A program at a new size must not wait for the compiler. Once the first program runs, the kernels of a ladder of other sizes
are compiled into the cache, from where a new program takes them.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.functions import sources_of
from miniinfer_cli.backends.cuda.making import make_program
from miniinfer_cli.backends.cuda.site import Target
from miniinfer_cli.errors import DeviceError, MiniinferError
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.ir.dims import evaluate, names_in

_LADDER = (1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 512)
_MOST_NAMES = 2  # dimensions that are varied: the batch and the sequence, as a rule
_LOG = logging.getLogger(__name__)


class Foresight:
    """Works once, on a thread of its own, from ``begin`` on. ``done`` is set when it has ended."""

    def __init__(self, graph: Graph, target: Target, cache: KernelCache) -> None:
        """``target`` answers ``supports`` without asking the libraries: that would cost more than it saves."""
        self._graph = graph
        self._target = target
        self._cache = cache
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.done = threading.Event()

    def begin(self, inputs: Sequence[Type | None]) -> None:
        """Starts from the sizes of the first program; later calls do nothing."""
        if self._thread is None:
            # No daemon: the compiler must not be in the middle of its work when the process takes itself apart.
            self._thread = threading.Thread(target=self._work, args=(list(inputs),), name="miniinfer-foresight")
            self._thread.start()

    def close(self) -> None:
        """Ends it after the kernel that is being compiled; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _is_ending(self) -> bool:
        """True once the engine closes, or the program ends without having closed it."""
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def _work(self, inputs: list[Type | None]) -> None:
        try:
            seen = set()
            for types in other_sizes(self._graph, inputs):
                if self._stop.wait(0.01) or self._is_ending():  # the first inferences come first
                    return
                try:
                    kernels = [k for k in make_program(self._graph, types, self._target).kernels if k not in seen]
                except MiniinferError:
                    continue  # a size that the model does not take
                seen.update(kernels)
                for source in sources_of(kernels, self._target.arch):
                    if self._is_ending():
                        return
                    self._cache.get_or_compile(source.text, source.name, source.arch, source.headers)
        except DeviceError as error:
            _LOG.warning("%s (while compiling for other sizes)", error.message)  # who needs the kernel is told in full
        finally:
            self.done.set()


def other_sizes(graph: Graph, inputs: Sequence[Type | None]) -> Iterator[list[Type | None]]:
    """The input types with one named dimension after the other at other sizes."""
    sizes = _sizes(graph, inputs)
    for name in list(sizes)[:_MOST_NAMES]:
        for size in _LADDER:
            if size != sizes[name]:
                yield [_at(v.type, t, {**sizes, name: size}) for v, t in zip(graph.inputs, inputs, strict=True)]


def _sizes(graph: Graph, inputs: Sequence[Type | None]) -> dict[str, int]:
    """Each dimension that the inputs name, and its size now."""
    sizes: dict[str, int] = {}
    for value, given in zip(graph.inputs, inputs, strict=True):
        declared = value.type
        if isinstance(declared, TensorType) and isinstance(given, TensorType) and declared.shape and given.shape:
            for dim, size in zip(declared.shape, given.shape, strict=True):
                if not isinstance(dim, int) and names_in(dim) == {str(dim)} and isinstance(size, int):
                    sizes.setdefault(str(dim), size)
    return sizes


def _at(declared: Type | None, given: Type | None, sizes: Mapping[str, int]) -> Type | None:
    if not isinstance(declared, TensorType) or declared.shape is None or not isinstance(given, TensorType):
        return given
    shape = tuple(evaluate(d, sizes) for d in declared.shape)
    return given if None in shape else TensorType(declared.dtype, shape, given.known)  # type: ignore[arg-type]
