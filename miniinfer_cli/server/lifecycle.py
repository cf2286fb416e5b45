"""A server process from its first signal to its last: SIGHUP looks at the plans again, SIGTERM and SIGINT end it."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

Act = Callable[[], Awaitable[None]]


class Ending:
    """That the server is to end. ``on_told`` is called when it is, and once more, with True, where it is to end at once.

    ``told`` hears in a line what the first signal has begun: what is under way may take as long as the drain has.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self.begun = asyncio.Event()
        self._told = told
        self.on_told: Callable[[bool], None] = lambda at_once: None

    def tell(self) -> None:
        """The first signal, or another one."""
        at_once = self.begun.is_set()
        self.begun.set()
        self.on_told(at_once)
        if not at_once:
            with contextlib.suppress(OSError):  # nobody reads what it tells: it ends all the same
                self._told("Ending when what is under way is answered; a second signal ends it at once")


def run(
    serve: Callable[[Ending], Awaitable[bool]],
    *,
    reload: Act,
    finish: Act,
    watch_s: float | None,
    told: Callable[[str], None],
) -> bool:
    """What ``serve`` returns, which is to end when it is told so.

    SIGHUP calls ``reload``, and so does each ``watch_s`` seconds; ``finish`` is awaited at the end. ``told``: as of ``Ending``.
    """

    async def whole() -> bool:
        loop = asyncio.get_running_loop()
        reloads, ending = _Reloads(reload), Ending(told)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.tell)
        loop.add_signal_handler(signal.SIGHUP, reloads.begin)
        watching = asyncio.ensure_future(_repeat(watch_s, reloads.begin)) if watch_s is not None else None
        try:
            return await serve(ending)
        finally:
            if watching is not None:
                watching.cancel()
            await reloads.end()
            await finish()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(whole())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop  # late: an option
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Reloads:
    """At most one at a time; one that is asked for meanwhile follows."""

    def __init__(self, reload: Act) -> None:
        self._reload = reload
        self._under_way: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._run())
        else:
            self._again = True

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                await self._reload()
                if not self._again:
                    return
        finally:
            self._under_way = None

    async def end(self) -> None:
        """Waits for one that is under way: its plan must not be left half open."""
        if self._under_way is not None:
            await self._under_way


async def _repeat(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        act()
