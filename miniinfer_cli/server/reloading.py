"""Plans taken again from their files while requests come: the new one is warmed up, then put in the place of the old one."""

import asyncio
import logging
from collections.abc import Callable

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.server.faults import fault_of
from miniinfer_cli.server.plans import OpenPlan
from miniinfer_cli.server.repository import Repository, ServedPlan

Told = Callable[[str], None]


class Reloader:
    """Looks at the files of all plans. ``told`` hears, in a line, of each that was taken again, or could not be."""

    def __init__(self, repository: Repository, told: Told) -> None:
        self._repository = repository
        self._told = told
        self._closing: set[asyncio.Task[None]] = set()
        self.on_taken: Callable[[], None] = lambda: None
        """Called when another plan is in its place."""

    async def reload(self) -> None:
        """Takes again the plans whose files are others by now, one by one. What does not open leaves the old one in its place."""
        for served in self._repository:
            if served.is_stale():
                await self._take_again(served)

    async def finish(self) -> None:
        """Waits until all that were replaced are closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def _take_again(self, served: ServedPlan) -> None:
        loop = asyncio.get_running_loop()
        name = f"{served.name}, version {served.version}"
        try:
            opened = await loop.run_in_executor(None, served.open_again)
        except Exception as error:
            served.figures.reloads["error"] += 1
            fault = fault_of(error)
            if not isinstance(error, MiniinferError):
                logging.getLogger("miniinfer").exception("%s could not be taken again", name)
            self._told(f"{name}: the new plan is not taken, the old one serves on: {fault.message}")
            return
        same = opened.signature.to_json() == served.current.signature.to_json()
        before = served.swap(opened)
        served.figures.reloads["result"] += 1
        self.on_taken()
        self._told(f"{name}: the new plan serves{'' if same else '; its inputs or outputs are others than before'}")
        closing = asyncio.ensure_future(self._close(served, before))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, served: ServedPlan, before: OpenPlan) -> None:
        """Ends the old plan once its requests have ended."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, before.close)
        finally:
            served.retire(before)
