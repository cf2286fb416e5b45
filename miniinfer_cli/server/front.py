"""A process that speaks HTTP for another one, which has the plans: ``python -m miniinfer_cli.server.front FD FD FD BYTES``.

The first descriptor is a stream of frames to that process (``messages``), over the second come connections that it accepted, and
the third is memory of so many bytes, where it looks at bodies.
"""

import asyncio
import contextlib
import gc
import itertools
import pickle
import signal
import socket
import sys
from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.server import messages
from miniinfer_cli.server.app import Answer, Application
from miniinfer_cli.server.bodies import Arena, ArenaBody
from miniinfer_cli.server.contract import Plans
from miniinfer_cli.server.datatypes import tensor_bytes
from miniinfer_cli.server.faults import Answered, Fault
from miniinfer_cli.server.figures import Figures
from miniinfer_cli.server.frames import Frames
from miniinfer_cli.server.http import Server, make_server
from miniinfer_cli.server.infer_request import InferRequest, Place, PlacedInput
from miniinfer_cli.server.infer_response import Written
from miniinfer_cli.server.lifecycle import loop_factory
from miniinfer_cli.server.messages import Counted, FrontSettings, PlanFacts
from miniinfer_cli.server.signature import Signature
from miniinfer_cli.server.tracing import tracer

_LEFT = 6  # the exit code where requests were left without an answer


class RemoteRequest:
    """A request that the plans' process computes; see ``contract.Submitted``."""

    def __init__(self, back: "Back", number: int, request: InferRequest, signature: Signature) -> None:
        self.arrived = 0.0
        self.begun = 0.0
        self.ended = 0.0
        self._back = back
        self.number = number
        self._request = request
        self._signature = signature
        self._outputs: asyncio.Future[dict[str, Any]] = back.loop.create_future()

    def cancel(self) -> bool:
        """Ends it as cancelled; False when it had ended."""
        if self._outputs.done():
            return self._outputs.cancelled()
        self._back.give_up(self.number)
        return self._outputs.cancel()

    def cancelled(self) -> bool:
        """True when it was cancelled."""
        return self._outputs.cancelled()

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        """The outputs by name. Raises Answered with what went wrong."""
        try:
            return (yield from self._outputs.__await__())
        finally:
            if not self._outputs.done() or self._outputs.cancelled():
                self._back.give_up(self.number)

    def end(self, answer: tuple[Any, ...]) -> None:
        """What the plans' process says of it."""
        if self._outputs.done():
            return
        if answer[1] is not None:
            self._outputs.set_exception(Answered(Fault(answer[1], answer[2], answer[3])))
            return
        _, _, self.arrived, self.begun, self.ended, outputs = answer
        made: dict[str, Array | Written] = {}
        for wanted, (shape, what) in zip(self._request.outputs, outputs, strict=True):
            if isinstance(what, int):
                made[wanted.name] = Written(shape, what)
            elif isinstance(what, list):
                made[wanted.name] = np.array(what, object).reshape(shape)
            else:
                made[wanted.name] = np.frombuffer(what, self._signature.outputs[wanted.name].dtype).reshape(shape)
        self._outputs.set_result(made)


class RemotePlan:
    """A plan in the other process; see ``contract.Plan`` and ``contract.Served``."""

    def __init__(self, back: "Back", number: int, facts: PlanFacts, figures: Figures) -> None:
        self._back = back
        self._number = number
        self.name = facts.name
        self.version = facts.version
        self.figures = figures
        self.signature = facts.signature
        self.most_rows = facts.most_rows
        self.batch_is_first = facts.batch_is_first

    @property
    def current(self) -> "RemotePlan":
        """Itself."""
        return self

    def submit(self, request: InferRequest, most_s: float | None) -> RemoteRequest:
        """Sends a request. What is wrong with it comes as its end."""
        inputs: list[tuple[Any, ...]] = []
        behind: list[Any] = []
        held: list[ArenaBody] = []
        for name, value in request.inputs.items():
            if isinstance(value, PlacedInput):
                inputs.append((name, value.shape, value.place.region, value.place.offset, value.place.nbytes))
                continue
            if value.dtype.kind in "OU":
                inputs.append((name, value.shape, [str(text) for text in value.reshape(-1)]))
                continue
            data = tensor_bytes(value)
            found = self._back.arena.find(np.frombuffer(data, np.uint8).ctypes.data) if value.size else None
            if found is None:
                inputs.append((name, value.shape, len(data)))
                behind.append(data)
            else:
                held.append(found[0])
                inputs.append((name, value.shape, found[1], len(data)))
        outputs = [
            (w.name, w.place.region, w.place.offset, w.place.nbytes) if isinstance(w.place, Place) else (w.name,)
            for w in request.outputs
        ]
        made = RemoteRequest(self._back, self._back.next_number(), request, self.signature)
        nbytes = sum(map(len, behind))
        message = (made.number, self._number, request.priority, request.deadline_s(most_s), inputs, outputs, nbytes)
        self._back.send_request(made, message, behind, held)
        return made


class _References:
    """Regions of shared memory, which only the plans' process looks at."""

    def part(self, region: str, offset: int, nbytes: int) -> Place:
        """See Regions."""
        return Place(region, offset, nbytes)


class Back:
    """The process that has the plans, as a front sees it: its plans, its office, and requests that it computes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: socket.socket, arena: Arena) -> None:
        self.loop = loop
        self.arena = arena
        self.plans: Plans[RemotePlan] = Plans()
        self.ended = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.server: Server | None = None
        self.app: Application | None = None
        self._link = link
        self._frames = Frames(loop, self._take, self.ended.set)
        self._settings: asyncio.Future[FrontSettings] = loop.create_future()
        self._numbers = itertools.count()
        self._requests: dict[int, RemoteRequest] = {}
        self._held: dict[int, list[ArenaBody]] = {}
        self._questions: dict[int, asyncio.Future[Answer]] = {}
        self._asked: list[tuple[Any, ...]] = []
        self._behind: list[Any] = []

    async def open(self) -> FrontSettings:
        """Begins to hear it; what this front is to do."""
        await self.loop.create_unix_connection(lambda: self._frames, sock=self._link)
        return await self._settings

    def ready(self) -> None:
        """Tells it that connections may come."""
        self._frames.send((messages.READY,))

    def close(self) -> None:
        """The last that it hears: what was counted."""
        self._ask_all()
        self._count()
        self._frames.close()

    async def answer(self, method: str, path: list[str], body: bytes) -> Answer | None:
        """See ``office.Office``."""
        number = self.next_number()
        self._questions[number] = told = self.loop.create_future()
        self._frames.send((messages.ASK, number, method, path, body))
        return (await told) or None

    # Requests.

    def next_number(self) -> int:
        """What tells one request from another."""
        return next(self._numbers)

    def send_request(self, request: RemoteRequest, message: tuple[Any, ...], behind: list[Any], held: list[ArenaBody]) -> None:
        """Has it computed; ``held``: what it needs of the arena until it is looked at no more."""
        self._requests[request.number] = request
        if held:
            for body in held:
                body.hold()
            self._held[request.number] = held
        if not self._asked:
            self.loop.call_soon(self._ask_all)
        self._asked.append(message)
        self._behind += behind

    def give_up(self, number: int) -> None:
        """Nobody waits for a request any more."""
        if self._requests.pop(number, None) is not None:
            self._ask_all()  # it must be there before it is given up
            self._frames.send((messages.CANCEL, number))

    def _ask_all(self) -> None:
        """Sends what has come in this turn of the loop, in one message."""
        asked, behind, self._asked, self._behind = self._asked, self._behind, [], []
        if asked:
            self._frames.send((messages.INFER, asked), behind)
            self._frames.flush()

    def _take(self, message: tuple[Any, ...], behind: memoryview) -> None:
        match message[0]:
            case messages.ENDED:
                for answer in message[1]:
                    request = self._requests.pop(answer[0], None)
                    if answer[1] is None or answer[3] not in messages.KEPT_ENDS:
                        self._free(answer[0])
                    if request is not None:
                        request.end(answer)
            case messages.TOLD:
                told = self._questions.pop(message[1])
                if not told.done():
                    told.set_result(message[2:])
            case messages.COUNT:
                self._count()
            case messages.PLANS:
                self._set_plans(pickle.loads(message[1]))
            case messages.OPEN:
                self._settings.set_result(pickle.loads(message[1]))
            case messages.FREED:
                self._free(message[1])
            case messages.BROKEN:
                assert self.app is not None
                self.app.broken = True
            case messages.DRAIN:
                assert self.server is not None
                self.server.end(message[1])

    def _free(self, number: int) -> None:
        for body in self._held.pop(number, ()):
            body.release()

    def _set_plans(self, facts: list[PlanFacts]) -> None:
        figures = [p.figures for p in self.plans] or [Figures() for _ in facts]
        for number, (of_plan, counted) in enumerate(zip(facts, figures, strict=True)):
            self.plans.add(RemotePlan(self, number, of_plan, counted))

    def _count(self) -> None:
        counted = Counted(dict(self.statuses), [p.figures for p in self.plans])
        self._frames.send((messages.COUNTED, pickle.dumps(counted)))


async def speak(link: socket.socket, connections: socket.socket, arena: Arena) -> int:
    """Serves the connections that come over ``connections``, until it is told to drain. The exit code."""
    loop = asyncio.get_running_loop()
    back = Back(loop, link, arena)
    settings = await back.open()
    regions = _References() if settings.shared_memory else None
    back.app = app = Application(
        back.plans, back, limits=settings.limits, statuses=back.statuses, regions=regions, tracer=tracer()
    )
    back.server = server = make_server(app, settings.limits, settings.connections, arena)
    taking: set[asyncio.Future[object]] = set()

    def take() -> None:
        with contextlib.suppress(BlockingIOError):
            message, descriptors, _, _ = socket.recv_fds(connections, 1, 1)
            if not message:
                loop.remove_reader(connections)
            for descriptor in descriptors:
                one = asyncio.ensure_future(server.take(socket.socket(fileno=descriptor)))
                taking.add(one)
                one.add_done_callback(taking.discard)

    connections.setblocking(False)
    loop.add_reader(connections, take)
    gc.collect()
    gc.freeze()  # what was imported is looked through no more
    back.ready()
    serving = asyncio.ensure_future(server.serve([]))
    await asyncio.wait([serving, asyncio.ensure_future(back.ended.wait())], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():  # nobody is left to compute anything
        return _LEFT
    back.close()
    return 0 if server.drained else _LEFT


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the other process hears them, and says what is to be done
        signal.signal(number, signal.SIG_IGN)
    link, connections = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    arena = Arena(int(sys.argv[3]), int(sys.argv[4]))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(speak(link, connections, arena))
    sys.exit(code)


if __name__ == "__main__":
    main()
