"""Fronts: processes that speak HTTP, while this one has the plans. It accepts connections, hands them out, and computes."""

import asyncio
import itertools
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from miniinfer_cli.devices.registering import Registrar
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.server.front_process import Front
from miniinfer_cli.server.intake import Intake
from miniinfer_cli.server.lifecycle import Ending
from miniinfer_cli.server.messages import Counted, FrontSettings
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.repository import Repository, ServedPlan
from miniinfer_cli.server.shared_memory import Regions

_AT_ONCE = 64  # connections that are accepted in one turn
_SLACK_S = 10.0  # beyond the time of its drain, after which a front is ended
_AGAIN_S = 1.0  # between the end of a front that nobody asked for and another one in its place


class Fronts:
    """So many fronts. ``statuses`` are answers by status of HTTP, of all of them."""

    def __init__(
        self,
        count: int,
        listening: socket.socket,
        repository: Repository,
        settings: FrontSettings,
        regions: Regions | None,
        *,
        triton_metric_names: bool,
        warned: Callable[[str], None],
        registrar: Registrar | None = None,
    ) -> None:
        self.settings = settings
        self.regions = regions
        self.plans: list[ServedPlan] = list(repository)
        self.statuses: Counter[int] = Counter()
        self.office = Office(repository, self.statuses, regions, triton_metric_names=triton_metric_names, gather=self.gather)
        self._registrar = registrar
        self._count = count
        self._listening = listening
        self._warned = warned
        self._fronts: list[Front] = []
        self._gone: list[Counted] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._intake: Intake | None = None

    async def serve(self, ending: Ending, started: Callable[[], None]) -> bool:
        """Serves until it is told to end; False where requests were left. ``started`` is called when connections are taken."""
        loop = asyncio.get_running_loop()
        self._intake = Intake(loop)
        fronts = [Front(self, loop) for _ in range(self._count)]
        self._fronts = list(fronts)
        try:
            await asyncio.gather(*(front.open() for front in fronts))
            turns = itertools.count()
            self._listening.setblocking(False)
            loop.add_reader(self._listening, lambda: self._accept(turns))
            started()
            await ending.begun.wait()
            self._ending = True
            self._drain(False)
            ending.on_told = self._drain
            last = [front.process for front in self._fronts]
            await asyncio.sleep(self.settings.connections.lame_s)
            loop.remove_reader(self._listening)
            self._listening.close()
            codes = [await loop.run_in_executor(None, self._wait, process) for process in last]
            while self._fronts:  # their last words
                await asyncio.sleep(0.01)
            self._sum_up()
            return not any(codes)
        finally:
            self._ending = True
            for front in [*self._fronts, *fronts]:
                front.kill()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=1)

    @property
    def intake(self) -> Intake:
        """Where the requests of all fronts come in, once it serves."""
        assert self._intake is not None
        return self._intake

    def register(self, memory: memoryview) -> memoryview:
        """The memory, which GPUs copy from where it lies from here on; of no bytes where they cannot."""
        registered = None if self._registrar is None else self._registrar.register(memory)
        return memoryview(b"") if registered is None else registered.data

    async def gather(self) -> None:
        """Has the figures of all fronts."""
        await asyncio.gather(*(front.count() for front in self._fronts))
        self._sum_up()

    def tell_broken(self) -> None:
        """A device has failed: no front is alive, for whoever starts servers again."""
        for front in self._fronts:
            front.tell_broken()

    def send_plans(self) -> None:
        """Tells all fronts what the plans are now."""
        for front in self._fronts:
            front.send_plans()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs it beside."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self, front: Front) -> None:
        """A front has ended. Another one takes its place, unless that was to be."""
        if front in self._fronts:
            self._fronts.remove(front)
            self._gone.append(front.counted)
            if not self._ending:
                self._warned(f"a process that speaks HTTP ended with code {front.process.wait()}; another takes its place")
                self.keep(self._replace())

    async def _replace(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            if self._ending:
                return
            front = Front(self, asyncio.get_running_loop())
            try:
                await front.open()
                if self._ending:
                    front.kill()
                else:
                    self._fronts.append(front)
                return
            except DeviceError as error:
                self._warned(error.message)
                front.kill()

    def _drain(self, at_once: bool) -> None:
        for front in self._fronts:
            front.drain(at_once)

    def _accept(self, turns: "itertools.count[int]") -> None:
        for _ in range(_AT_ONCE):
            try:
                connected, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._warned(f"a connection could not be accepted: {error.strerror}")
                return
            with connected:
                first = next(turns)
                any(self._fronts[(first + n) % len(self._fronts)].give(connected) for n in range(len(self._fronts)))

    def _wait(self, process: "subprocess.Popen[bytes]") -> int:
        try:
            return process.wait(self.settings.connections.lame_s + self.settings.connections.drain_s + _SLACK_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _sum_up(self) -> None:
        counted = [*self._gone, *(front.counted for front in self._fronts)]
        self.statuses.clear()
        for one in counted:
            self.statuses.update(one.statuses)
        for number, served in enumerate(self.plans):
            served.figures.take_over(c.figures[number] for c in counted if c.figures)
