"""One front, as the process that has the plans sees it: its process, the frames to it, and its requests under way."""

import asyncio
import contextlib
import logging
import mmap
import os
import pickle
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.server import messages
from miniinfer_cli.server.app import JSON
from miniinfer_cli.server.faults import Refused, fault_of
from miniinfer_cli.server.frames import Frames
from miniinfer_cli.server.infer_request import from_bytes
from miniinfer_cli.server.infer_response import error_body, put
from miniinfer_cli.server.messages import Counted, PlanFacts
from miniinfer_cli.serving.batcher import Asked
from miniinfer_cli.serving.request import BatchedFuture

if TYPE_CHECKING:
    from miniinfer_cli.server.fronts import Fronts

_START_S = 60.0


class _UnderWay:
    """A request of a front that is computed; see ``intake.Tagged``."""

    __slots__ = ("_number", "_outputs", "front", "future", "placed")

    def __init__(self, front: "Front", number: int, outputs: list[tuple[Any, ...]]) -> None:
        self.future: BatchedFuture | None = None
        self.placed: list[Array] = []
        """Its inputs in the front's arena."""
        self.front = front
        self._number = number
        self._outputs = outputs

    def entered(self, future: BatchedFuture) -> None:
        """See Tagged."""
        self.future = future

    def refused(self, error: Exception) -> None:
        """See Tagged."""
        if self.front.forget(self._number):
            self.front.refuse_at_once(self._number, error)

    def ended(self, future: BatchedFuture) -> None:
        """Its front is told."""
        if self.front.forget(self._number):  # else its client has gone
            try:
                outputs = future.result()
                told = [self._told(outputs[name], name, *place) for name, *place in self._outputs]
            except Exception as error:
                if self.front.refuse(self._number, error) in messages.KEPT_ENDS:
                    self.front.free_later(self._number, self)
            else:
                self.front.end((self._number, None, future.arrived, future.begun, future.ended, told))

    def _told(self, array: Array, name: str, *place: Any) -> tuple[Any, ...]:
        if place:
            regions = self.front.regions
            assert regions is not None
            return (array.shape, put(name, array, regions.part(*place)).nbytes)
        if array.dtype.hasobject:
            return (array.shape, [t if isinstance(t, str) else bytes(t).decode() for t in array.reshape(-1)])
        return (array.shape, array.tobytes())


class Front:
    """One front: its process, the stream of frames to it, and its requests that are computed."""

    def __init__(self, fronts: "Fronts", loop: asyncio.AbstractEventLoop) -> None:
        self.regions = fronts.regions
        self.is_ready: asyncio.Future[None] = loop.create_future()
        self.counted = Counted({}, [])
        self._fronts = fronts
        self._intake = fronts.intake
        self._loop = loop
        self._under_way: dict[int, _UnderWay] = {}
        self._ended: list[tuple[Any, ...]] = []
        self._counting: asyncio.Future[None] | None = None
        self._frames = Frames(loop, self._take, self._lost)
        self._link, link = socket.socketpair()
        self._connections, connections = socket.socketpair()
        self._connections.setblocking(False)
        nbytes = fronts.settings.arena_nbytes
        arena = os.memfd_create("miniinfer-bodies")
        os.truncate(arena, nbytes)
        with link, connections, os.fdopen(arena, "r+b"):
            self._arena = memoryview(mmap.mmap(arena, nbytes))
            self._registered = fronts.register(self._arena[: fronts.settings.registered_nbytes])
            numbers = (link.fileno(), connections.fileno(), arena)
            command = [sys.executable, "-m", "miniinfer_cli.server.front", *map(str, numbers), str(nbytes)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=numbers, env=_environment())

    async def open(self) -> None:
        """Tells it what to do, and waits until it can. Raises DeviceError where it does not come up."""
        await self._loop.create_unix_connection(lambda: self._frames, sock=self._link)
        self._frames.send((messages.OPEN, pickle.dumps(self._fronts.settings)))
        self.send_plans()
        try:
            async with asyncio.timeout(_START_S):
                await self.is_ready
        except (TimeoutError, ConnectionError):
            raise DeviceError(
                "a process that speaks HTTP did not start", hint="its own lines are above; give a smaller --http-processes"
            ) from None

    def send_plans(self) -> None:
        """What the plans are now."""
        facts = [
            PlanFacts(s.name, s.version, s.current.signature, s.current.most_rows, s.current.batch_is_first)
            for s in self._fronts.plans
        ]
        self._frames.send((messages.PLANS, pickle.dumps(facts)))

    def give(self, connected: socket.socket) -> bool:
        """Hands a connection over; False where it takes none just now."""
        try:
            socket.send_fds(self._connections, [b"c"], [connected.fileno()])
        except OSError:
            return False
        return True

    async def count(self) -> None:
        """Asks what it has counted."""
        if self.process.poll() is None and self._frames.is_open:
            if self._counting is None:
                self._counting = self._loop.create_future()
                self._frames.send((messages.COUNT,))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._counting), 5)

    def tell_broken(self) -> None:
        """Tells it that a device has failed."""
        self._frames.send((messages.BROKEN,))

    def drain(self, at_once: bool) -> None:
        """Tells it to end."""
        self._frames.send((messages.DRAIN, at_once))

    def kill(self) -> None:
        """Ends it, and waits until it has ended."""
        self.process.kill()  # nothing where it has ended already
        self.process.wait()

    def forget(self, number: int) -> bool:
        """True where somebody waits for that request still."""
        return self._under_way.pop(number, None) is not None

    def end(self, answer: tuple[Any, ...]) -> None:
        """The end of a request; those of one turn of the loop are told together."""
        if not self._ended:
            self._loop.call_soon(self.tell)
        self._ended.append(answer)

    def free_later(self, number: int, under_way: _UnderWay) -> None:
        """Tells the front when nobody looks at the inputs any more of a request that has ended as KEPT_ENDS say."""
        placed, under_way.placed, under_way.future = under_way.placed, [], None
        left = len(placed)

        def freed() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._frames.send((messages.FREED, number))

        def gone() -> None:  # in whatever thread, perhaps from the garbage collector
            with contextlib.suppress(RuntimeError):  # the loop is closed: the front has ended, too
                self._loop.call_soon_threadsafe(freed)

        for array in placed:
            weakref.finalize(array, gone).atexit = False

    def refuse(self, number: int, error: Exception) -> str:
        """The end of a request by an error; as what it counts."""
        fault = fault_of(error)
        if fault.is_bug:
            logging.getLogger("miniinfer").error("a request failed", exc_info=error)
        if fault.of_device:
            self._fronts.tell_broken()
        self.end((number, fault.status, fault.message, fault.outcome))
        return fault.outcome

    def refuse_at_once(self, number: int, error: Exception) -> None:
        """Like ``refuse``, of a request whose inputs nobody looks at."""
        if self.refuse(number, error) in messages.KEPT_ENDS:
            self._frames.send((messages.FREED, number))

    def tell(self) -> None:
        """See Teller."""
        ended, self._ended = self._ended, []
        if ended:
            self._frames.send((messages.ENDED, ended))
            self._frames.flush()

    def _take(self, message: tuple[Any, ...], behind: memoryview) -> None:
        match message[0]:
            case messages.INFER:
                at = 0
                for request in message[1]:
                    at = self._infer(request, behind, at)
            case messages.CANCEL:
                self._intake.submit()  # it may have come in this turn of the loop
                under_way = self._under_way.pop(message[1], None)
                if under_way is not None and under_way.future is not None:
                    under_way.future.cancel()
                    self.free_later(message[1], under_way)
            case messages.ASK:
                self._fronts.keep(self._ask(*message[1:]))
            case messages.COUNTED:
                self.counted = pickle.loads(message[1])
                counting, self._counting = self._counting, None
                if counting is not None and not counting.done():
                    counting.set_result(None)
            case messages.READY:
                self.is_ready.set_result(None)

    def _infer(self, request: tuple[Any, ...], behind: memoryview, at: int) -> int:
        """Begins a request; what it has behind the message begins ``at``. Gives where the next one's begins."""
        number, plan_number, priority, timeout_s, inputs, outputs, nbytes = request
        served = self._fronts.plans[plan_number]
        plan = served.current
        under_way = _UnderWay(self, number, outputs)
        end: int = at + nbytes
        try:
            arrays: dict[str, Array] = {}
            for name, shape, where, *rest in inputs:
                tensor = plan.signature.inputs.get(name)
                if tensor is None:  # another plan has come meanwhile
                    raise UsageError(f"there is no input {name!r}")
                if len(rest) == 1:
                    memory = self._registered if where + rest[0] <= len(self._registered) else self._arena
                    array = from_bytes(name, tensor, shape, memory, where, rest[0])
                    under_way.placed.append(array)
                    arrays[name] = array
                elif rest:
                    if self.regions is None:
                        raise UsageError("shared memory is not taken here")
                    arrays[name] = self.regions.tensor(name, tensor, shape, (where, *rest))
                elif isinstance(where, list):
                    arrays[name] = np.array(where, object).reshape(shape)
                else:
                    arrays[name] = from_bytes(name, tensor, shape, behind, at, where)
                    at += where
            asked = Asked(arrays, plan.level(priority), timeout_s, under_way)
        except Exception as error:
            self.refuse_at_once(number, error)
            return end
        self._under_way[number] = under_way
        self._intake.add(served, asked)
        return end

    async def _ask(self, number: int, method: str, path: list[str], body: bytes) -> None:
        try:
            told = await self._fronts.office.answer(method, path, body)
        except Refused as refused:
            told = (refused.status, error_body(str(refused)), JSON)
        self._frames.send((messages.TOLD, number, *(told or ())))

    def _lost(self) -> None:
        """It has ended: nobody waits for its requests."""
        self._intake.submit()
        under_way, self._under_way = self._under_way, {}
        for one in under_way.values():
            if one.future is not None:
                one.future.cancel()
        if not self.is_ready.done():
            self.is_ready.set_exception(ConnectionResetError("it ended"))
        if self._counting is not None and not self._counting.done():
            self._counting.set_result(None)
        self._connections.close()
        self._fronts.lost(self)


def _environment() -> dict[str, str]:
    """Where this package is, whatever it was found by: a front is to be of the same."""
    root = str(Path(__file__).parents[2])
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, others] if others else [root])}
