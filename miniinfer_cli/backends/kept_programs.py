"""Programs that were made, kept for when inputs of the same types come again."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from engine_format.forking import ForkSafeLock
from miniinfer_cli.backends.interface import Program

ProgramT = TypeVar("ProgramT", bound=Program)


class KeptPrograms(Generic[ProgramT]):
    """The programs used last, at most ``most`` of them, by key; for several threads.

    One that has to go is not closed: a context may be in the middle of it, so it goes with the last that holds it.
    """

    def __init__(self, most: int) -> None:
        self.making = ForkSafeLock(threading.RLock)
        """Held while a program is made: to wait for that. Making one may need another, of a derived weight."""
        self.made = 0
        self.evicted = 0
        """Programs that were made, and of these, that had to go."""
        self._most = most
        self._lock = ForkSafeLock()
        self._programs: OrderedDict[Hashable, ProgramT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._programs)

    def get(self, key: Hashable, make: Callable[[], ProgramT]) -> ProgramT:
        """The program under ``key``, made now if there is none: one at a time, while others go on with what there is."""
        program = self._find(key)
        if program is not None:
            return program
        with self.making:
            program = self._find(key)
            if program is None:
                program = make()
                with self._lock:
                    self._programs[key] = program
                    self.made += 1
                    if len(self._programs) > self._most:
                        self._programs.popitem(last=False)
                        self.evicted += 1
            return program

    def close(self) -> None:
        """Closes and forgets all; may be called twice."""
        with self.making, self._lock, contextlib.ExitStack() as stack:  # which goes on when one of them fails
            while self._programs:
                stack.callback(self._programs.popitem()[1].close)

    def _find(self, key: Hashable) -> ProgramT | None:
        with self._lock:
            program = self._programs.get(key)
            if program is not None:
                self._programs.move_to_end(key)
            return program
