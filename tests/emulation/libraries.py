"""Libraries of an emulated device, in numpy: they refuse what they are told to, and may have several ways, some of them wrong.
Or there are none.
"""

import ctypes
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from miniinfer_cli.backends.cuda.contract.problems import AttentionProblem, ConvolutionProblem, MatmulProblem, Problem, Variant
from miniinfer_cli.backends.cuda.contract.protocols import PreparedCall, Stream
from tests.backends.cuda import numpy_library


@dataclass(frozen=True)
class _Prepared:
    problem: Problem
    streams: dict[int, Stream]
    workspace_nbytes: int = 0
    spoils: Callable[[], int] = lambda: 0

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        stream: Any = self.streams[stream_handle]
        stream._enqueue(partial(numpy_library.perform, self.problem, tuple(addresses)))
        if byte := self.spoils():
            stream._enqueue(partial(ctypes.memset, addresses[_RESULT[type(self.problem)]], byte, 4))


# Which operand is the result (problems.py).
_RESULT: dict[type, int] = {MatmulProblem: 2, ConvolutionProblem: 2, AttentionProblem: 3}


class EmulatedLibraries:
    """Solve every problem but those that ``refuses`` says; ``asked`` are all that they were asked to prepare, in order.

    ``searched`` are those of ``asked`` for which nobody said in which way: a library has to search for that.

    ``ways``: how many other ways there are of each problem, by number; those of ``wrong`` spoil the first element of the
    result, those of ``unsteady`` in another way each time.
    """

    version = "1.0"

    def __init__(
        self,
        refuses: Callable[[Problem], bool] = lambda problem: False,
        *,
        ways: int = 0,
        wrong: Collection[int] = (),
        unsteady: Collection[int] = (),
    ) -> None:
        self._unsteady = unsteady
        self._runs = itertools.count(1)
        self.ways = ways
        self._wrong = wrong
        self.missing: dict[str, str] = {}
        self.asked: list[Problem] = []
        self.searched: list[Problem] = []
        self._refuses = refuses
        self._streams: dict[int, Stream] = {}

    def prepare(self, problem: Problem, variant: Variant | None = None) -> PreparedCall | None:
        self.asked.append(problem)
        if variant is None:
            self.searched.append(problem)
        way = None if variant is None else variant.opaque.get("way")
        if self._refuses(problem) or (variant is not None and way not in range(self.ways)):
            return None

        def spoils() -> int:
            return 0x43 if way in self._wrong else 0x40 + next(self._runs) % 8 if way in self._unsteady else 0

        return _Prepared(problem, self._streams, spoils=spoils)

    def variants(self, problem: Problem, count: int, seconds: float) -> Sequence[Variant]:
        return [Variant.of({"way": n}) for n in range(min(count, self.ways))]

    def to_record(self, problem: Problem, variant: Variant | None) -> Variant | None:
        return variant

    def solved_by(self, problem: Problem) -> str:
        return f"numpy {self.version}"

    def is_likely(self, problem: Problem) -> bool:
        return True

    def bind(self, stream: Stream) -> None:
        self._streams[stream.handle] = stream

    def unbind(self, stream: Stream) -> None:
        self._streams.pop(stream.handle, None)

    def close(self) -> None:
        self._streams.clear()


class NoLibraries:
    """A device without libraries: our own kernels do everything."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def prepare(self, problem: Problem, variant: Variant | None = None) -> PreparedCall | None:
        return None

    def variants(self, problem: Problem, count: int, seconds: float) -> Sequence[Variant]:
        return ()

    def to_record(self, problem: Problem, variant: Variant | None) -> Variant | None:
        return None

    def solved_by(self, problem: Problem) -> str:
        return ""

    def is_likely(self, problem: Problem) -> bool:
        return False

    def bind(self, stream: Stream) -> None: ...

    def unbind(self, stream: Stream) -> None: ...

    def close(self) -> None: ...
