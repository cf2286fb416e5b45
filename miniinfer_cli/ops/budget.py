"""What one inference may spend: its time, and the memory of its arenas, results and steps on the host.

The budget of the inference under way is the thread's (a context variable, as numpy's ``errstate`` is one): what spends it stands
in references, whose parameters are their operation's, and in loops around loops. Without a limit there is none, and nothing is
counted. Checks stand between steps, rounds, and calls of shape rules and references; what does not return is not interrupted.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import LimitExceeded
from miniinfer_cli.ir import Array, TensorType, Type, numpy_dtype
from miniinfer_cli.ir.types import Shape
from miniinfer_cli.wording import Wording

_TEXT_NBYTES = 56  # a text in Python without its characters, and its place in an array
_ARRAY_NBYTES = 112  # an array of numpy's without its items: a loop may collect very many small ones
_TIME_HINT = Wording(
    "give it more by load(time_limit=...), or run smaller shapes", flags="give it more by --time-limit, or run smaller shapes"
)
_MEMORY_HINT = Wording(
    "give it more by load(memory_limit=...), or run smaller shapes", flags="give it more by --memory-limit, or run smaller shapes"
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """``time_s``: of one inference, with the making of its program. ``memory_nbytes``: that it allocates. None: no limit."""

    time_s: float | None = None
    memory_nbytes: int | None = None


UNBOUNDED = Allowance()
_NOTHING = nullcontext()


class Budget:
    """The limits of one context, and what its inference has spent. Used by one thread at a time; any thread may look."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.deadline = math.inf
        """On the clock of ``time.monotonic``; infinite while there is no inference under way."""
        self._arenas: dict[int, int] = {}
        self._held: dict[int, list[int]] = {}  # by the identity of an array: how many hold it, and its bytes
        self._held_nbytes = 0
        self._given: frozenset[int] = frozenset()

    def inference(self, inputs: Sequence[Any]) -> AbstractContextManager[None]:
        """One inference: while it lasts, this budget is the thread's. Raises LimitExceeded at its end, too.

        What is a view of ``inputs``, the caller's, takes no memory.
        """
        return _NOTHING if self.allowance == UNBOUNDED else self._inference(inputs)

    @contextmanager
    def _inference(self, inputs: Sequence[Any]) -> Iterator[None]:
        self._held.clear()
        self._held_nbytes = 0
        self._given = frozenset(id(root) for value in inputs for root in _roots(value))
        if self.allowance.time_s is not None:
            self.deadline = time.monotonic() + self.allowance.time_s
        token = _CURRENT.set(self)
        try:
            yield
            self.check_time()
        finally:
            _CURRENT.reset(token)
            self.deadline = math.inf

    def check_time(self, *where: str) -> None:
        """Raises LimitExceeded when the time is over."""
        if time.monotonic() > self.deadline:
            raise LimitExceeded(self.told, hint=_TIME_HINT, where=where)

    @property
    def told(self) -> str:
        """What the user is told when the time is over."""
        return f"the inference took longer than its time limit of {self.allowance.time_s:g} s"

    def expect(self, nbytes: int, what: str, *where: str) -> None:
        """Raises LimitExceeded unless so many bytes more may be allocated."""
        self._expect(nbytes, sum(self._arenas.values()), what, where)

    def expect_value(self, nbytes: int, what: str, *where: str) -> None:
        """Raises LimitExceeded when a value is too large by itself, whatever else is kept."""
        limit = self.allowance.memory_nbytes
        if limit is not None and nbytes > limit:
            raise LimitExceeded(
                f"{what}: {_mib(nbytes)} needed, the memory limit is {_mib(limit)}", hint=_MEMORY_HINT, where=where
            )

    def expect_arena(self, level: int, nbytes: int, what: str, *where: str) -> None:
        """The same for the memory that the context of this level keeps, in the place of what it kept; notes it."""
        self._expect(nbytes, sum(n for at, n in self._arenas.items() if at != level), what, where)
        self._arenas[level] = nbytes

    def has_room(self, level: int, nbytes: int) -> bool:
        """True when ``expect_arena`` would let it through."""
        limit = self.allowance.memory_nbytes
        others = sum(n for at, n in self._arenas.items() if at != level)
        return limit is None or others + self._held_nbytes + nbytes <= limit

    def forget_arenas(self, above: int) -> None:
        """What contexts within that of this level kept is gone."""
        self._arenas = {at: n for at, n in self._arenas.items() if at <= above}

    def hold(self, value: Any) -> int:
        """Counts what a step on the host has computed, once however often it is held; gives the bytes that are new."""
        before = self._held_nbytes
        if self.allowance.memory_nbytes is None:
            return 0
        for root in _roots(value):
            if id(root) in self._given:
                continue
            held = self._held.setdefault(id(root), [0, 0])
            if not held[0]:
                held[1] = _nbytes(root)
                self._held_nbytes += held[1]
            held[0] += 1
        return self._held_nbytes - before

    def let_go(self, value: Any) -> None:
        """Ends a ``hold``."""
        for root in _roots(value):
            held = self._held.get(id(root))
            if held is not None:
                held[0] -= 1
                if not held[0]:
                    self._held_nbytes -= held[1]
                    del self._held[id(root)]

    def _expect(self, nbytes: int, arenas: int, what: str, where: tuple[str, ...]) -> None:
        limit, used = self.allowance.memory_nbytes, arenas + self._held_nbytes
        if limit is not None and used + nbytes > limit:
            beside = f" beside {_mib(used)} in use" if used else ""
            raise LimitExceeded(
                f"{what}: {_mib(nbytes)} needed{beside}, the memory limit is {_mib(limit)}", hint=_MEMORY_HINT, where=where
            )


_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current() -> Budget | None:
    """The budget of the inference that this thread computes; None where it has no limit."""
    return _CURRENT.get()


@contextmanager
def unlimited() -> Iterator[None]:
    """What is computed once for all inferences, as another form of a weight, is on no inference's account."""
    token = _CURRENT.set(None)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def check_time() -> None:
    """To be called in loops. Raises LimitExceeded when the time of the inference is over."""
    budget = _CURRENT.get()
    if budget is not None:
        budget.check_time()


def expect_arrays(count: int, nbytes: int, what: str) -> None:
    """To be called before so many arrays are made, of ``nbytes`` together. Raises LimitExceeded when they would take too much."""
    budget = _CURRENT.get()
    if budget is not None:
        budget.expect(count * _ARRAY_NBYTES + nbytes, what)


class Kept:
    """What a loop collects; as a context, so that it no longer counts when the loop has ended.

    ``copied``: it is put together into an array at the end, which takes as much once more.
    """

    def __init__(self, what: str, *, copied: bool = True) -> None:
        self._budget = current()
        self._what = what
        self._copied = copied
        self._values: list[Any] = []
        self._nbytes = 0

    def add(self, value: Any) -> None:
        """Counts a value. Raises LimitExceeded when it is one too many."""
        if self._budget is not None:
            self._values.append(value)  # what is counted must not go
            self._nbytes += self._budget.hold(value)
            self._budget.expect(self._nbytes if self._copied else 0, self._what)

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *exc: object) -> None:
        for value in self._values:
            assert self._budget is not None
            self._budget.let_go(value)


def result_nbytes(types: Sequence[Type | None]) -> int:
    """Bytes of the arrays of these types, as far as their sizes are known."""
    concrete = ((static_shape(t.shape), t.dtype) for t in types if isinstance(t, TensorType))
    return sum(math.prod(shape) * numpy_dtype(dtype).itemsize for shape, dtype in concrete if shape is not None)


def static_shape(shape: Shape | None) -> tuple[int, ...] | None:
    """The sizes where all are numbers."""
    sizes = tuple(d for d in shape or () if isinstance(d, int))
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _roots(value: Any) -> Iterator[Array]:
    """The arrays that have the memory of a value; none for memory that is no array's, as that of a plan."""
    if isinstance(value, list):
        for item in value:
            yield from _roots(item)
    elif isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        if value.base is None:
            yield value


def _nbytes(array: Array) -> int:
    if array.dtype != object:
        return _ARRAY_NBYTES + array.nbytes
    return _ARRAY_NBYTES + sum(_TEXT_NBYTES + len(t) for t in array.reshape(-1) if isinstance(t, (str, bytes)))


def _mib(nbytes: int) -> str:
    if nbytes >> 63:  # perhaps too long to be a float, or even to be written out
        return "more than 2^63 bytes"
    return f"{nbytes} bytes" if nbytes < 1 << 20 else f"{nbytes / 2**20:.1f} MiB"
