"""Several contexts at once, on one engine or on several, each in a thread of its own; an error in one ends all."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from miniinfer_cli.runtime.at_once import at_once
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lane:
    """One stream's place among the others: its ``number`` from 0 on, and its own ``context``.

    ``ready`` waits until all streams are; ``stop`` is set when they are to end before their time.
    """

    number: int
    context: Context
    ready: Callable[[], Any] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)


def on_streams(engine: Engine, streams: int, work: Callable[[Lane], Result], others: Sequence[Engine] = ()) -> list[Result]:
    """What ``work`` gives on each of ``streams`` contexts of ``engine``, and of each of the others, as they ended.

    The contexts of ``engine`` have the first numbers, those of the first other one come next. One alone runs in this thread. An
    error in any of them ends all, and is raised.
    """

    engines = (engine, *others)

    def run(number: int, ready: Callable[[], Any], stop: threading.Event) -> Result:
        with engines[number // streams].create_context() as context:
            return work(Lane(number, context, ready, stop))

    return at_once(streams * len(engines), run)
