"""Libraries of an emulated device, in numpy; they refuse what they are told to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from miniinfer_cli.backends.cuda.problems import Problem
from miniinfer_cli.backends.cuda.protocols import PreparedCall, Stream
from tests.backends.cuda import numpy_library


@dataclass(frozen=True)
class _Prepared:
    problem: Problem
    streams: dict[int, Stream]
    workspace_nbytes: int = 0

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        stream = self.streams[stream_handle]
        stream._enqueue(partial(numpy_library.perform, self.problem, tuple(addresses)))  # type: ignore[attr-defined]


class EmulatedLibraries:
    """Solve every problem but those that ``refuses`` says; ``asked`` are all that they were asked to prepare, in order."""

    def __init__(self, refuses: Callable[[Problem], bool] = lambda problem: False) -> None:
        self.missing: dict[str, str] = {}
        self.asked: list[Problem] = []
        self._refuses = refuses
        self._streams: dict[int, Stream] = {}

    def prepare(self, problem: Problem) -> PreparedCall | None:
        self.asked.append(problem)
        return None if self._refuses(problem) else _Prepared(problem, self._streams)

    def is_likely(self, problem: Problem) -> bool:
        return True

    def bind(self, stream: Stream) -> None:
        self._streams[stream.handle] = stream

    def unbind(self, stream: Stream) -> None:
        self._streams.pop(stream.handle, None)

    def close(self) -> None:
        self._streams.clear()
