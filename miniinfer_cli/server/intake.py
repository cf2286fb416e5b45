"""Requests of all fronts on their way to the plans, and their ends on the way back: those of one turn of the loop together.

So a request costs the process that computes neither a lock nor a call of the loop of its own.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from miniinfer_cli.server.repository import ServedPlan
from miniinfer_cli.serving.batcher import Asked
from miniinfer_cli.serving.request import BatchedFuture


class Teller(Protocol):
    """Who tells those that wait for requests."""

    def tell(self) -> None:
        """Sends what ended, now."""


class Tagged(Protocol):
    """What the ``tag`` of each request is. ``front``: where it came from."""

    front: Teller

    def entered(self, future: BatchedFuture) -> None:
        """It waits, or is computed, or has ended by now: then it is told so next."""

    def refused(self, error: Exception) -> None:
        """It was not taken in."""

    def ended(self, future: BatchedFuture) -> None:
        """It has ended."""


class Intake:
    """Used from the thread of ``loop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: dict[ServedPlan, list[Asked]] = {}

    def add(self, served: ServedPlan, asked: Asked) -> None:
        """One more, which is submitted in this turn of the loop."""
        if not self._asked:
            self._loop.call_soon(self.submit)
        self._asked.setdefault(served, []).append(asked)

    def submit(self) -> None:
        """Submits what has been added."""
        waiting, self._asked = self._asked, {}
        for served, several in waiting.items():
            made: Sequence[BatchedFuture | Exception]
            try:
                made = served.current.submit_all(several, self._told)
            except Exception as error:
                made = [error] * len(several)
            for asked, future in zip(several, made, strict=True):
                tagged: Tagged = asked.tag
                if isinstance(future, BatchedFuture):
                    tagged.entered(future)
                else:
                    tagged.refused(future)

    def _told(self, ended: list[BatchedFuture]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, ended)

    def _tell(self, ended: list[BatchedFuture]) -> None:
        """Front by front: the first one answers its clients while others are told."""
        fronts: dict[Teller, list[BatchedFuture]] = {}
        for future in ended:
            fronts.setdefault(future.tag.front, []).append(future)
        for front, own in fronts.items():
            for future in own:
                future.tag.ended(future)
            front.tell()
