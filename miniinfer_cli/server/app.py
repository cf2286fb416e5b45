"""The protocol as an ASGI application: paths, bodies, and one request to infer from its head to its answer."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from miniinfer_cli.server.contract import Plans, Served, Submitted, find_served
from miniinfer_cli.server.facts import model_config, model_metadata, server_metadata
from miniinfer_cli.server.faults import Refused, expect_method, fault_of
from miniinfer_cli.server.figures import CANCELLED, CLOSED, RESULT
from miniinfer_cli.server.infer_request import Regions, read_request
from miniinfer_cli.server.infer_response import error_body, json_body, write_response
from miniinfer_cli.server.settings import HttpLimits
from miniinfer_cli.server.tracing import Tracer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONNECTION = "miniinfer.connection"
"""The extension of ASGI that holds a request's Incoming, of servers that have one."""
JSON = b"application/json"
"""The type of most answers."""
_BINARY = b"application/octet-stream"
_HEADER_NBYTES = b"inference-header-content-length"


class Incoming(Protocol):
    """A request as its connection sees it. ``on_lost`` is called once, when who sends it has gone.

    ``is_whole``: its body has come; ``is_too_large``: it will not, since it is larger than bodies may be.
    """

    is_whole: bool
    is_too_large: bool

    @property
    def is_lost(self) -> bool:
        """True when who sends it has gone."""

    def watch(self, on_lost: Callable[[], object] | None) -> None:
        """Sets ``on_lost``, or takes it away."""

    async def whole(self) -> None:
        """Waits until the body has come, or will not."""

    def body(self) -> memoryview:
        """The body, once it has come."""


Answer = tuple[int, bytes, bytes]
"""An answer: status, body, and its type."""


class Office(Protocol):
    """What is told of all plans together; see ``office.Office``."""

    async def answer(self, method: str, path: list[str], body: bytes) -> Answer | None:
        """See Office."""


class Application:
    """Answers requests for the plans of ``repository``. ``office``: what is not of one plan alone.

    ``statuses`` counts its answers. ``regions``: shared memory that clients may register; None: no one may. ``draining`` is set
    when the server is about to end: it is not ready any more, and answers end their connections. ``broken`` is set when a device
    has failed: it is not even alive, for whoever starts servers again. ``in_flags``: as of ``fault_of``.
    """

    def __init__(
        self,
        repository: Plans[Any],
        office: Office,
        *,
        limits: HttpLimits,
        statuses: Counter[int],
        regions: Regions | None = None,
        tracer: Tracer | None = None,
        in_flags: bool = True,
    ) -> None:
        self.draining = False
        self.broken = False
        self.statuses = statuses
        self._repository = repository
        self._limits = limits
        self._regions = regions
        self._office = office
        self._tracer = tracer
        self._in_flags = in_flags
        self._log = logging.getLogger("miniinfer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        path = scope["path"].rstrip("/").split("/")
        try:
            if path[-1] == "infer" and path[:3] == ["", "v2", "models"]:
                served = find_served(self._repository, path[3:-1])
                expect_method(scope["method"], "POST", scope["path"])
                await self._infer(served, begun, scope, receive, send)
                return
            status, body, kind = await self._other(path, scope, receive)
        except Refused as refused:
            await self._send(send, refused.status, error_body(str(refused)), JSON, closes=refused.closes)
        else:
            await self._send(send, status, body, kind)

    async def _infer(self, served: Served, begun: float, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to infer, as a span where somebody collects them."""
        headers = dict(scope["headers"])
        incoming: Incoming | None = scope.get("extensions", {}).get(CONNECTION)
        if self._tracer is None:
            await self._answer(served, begun, headers, incoming, receive, send)
            return
        with self._tracer.request(headers, served.name, served.version) as ended:
            ended(*await self._answer(served, begun, headers, incoming, receive, send))

    async def _answer(
        self,
        served: Served,
        begun: float,
        headers: Mapping[bytes, bytes],
        incoming: Incoming | None,
        receive: Receive,
        send: Send,
    ) -> tuple[str, int]:
        """Answers a request to infer; the outcome that it is counted by, and its status, 0 where nobody is there any more."""
        figures = served.figures
        future: Submitted | None = None
        try:
            body = await self._body(headers, receive, incoming)
            if body is None:
                figures.outcomes[CANCELLED] += 1
                return CANCELLED, 0
            plan = served.current  # nothing is awaited from here to submit: it may be closed once another is in its place
            request = read_request(body, _json_nbytes(headers), plan.signature, self._regions)
            future = plan.submit(request, self._limits.answer_s)
            outputs = await _outputs(future, incoming, receive)
            answer, json_nbytes = write_response(served.name, served.version, request, outputs, plan.signature)
        except asyncio.CancelledError:
            if incoming.is_lost if incoming is not None else future is not None and future.cancelled():
                figures.outcomes[CANCELLED] += 1
                return CANCELLED, 0
            figures.outcomes[CLOSED] += 1  # the time to drain is over
            await self._send(send, 503, error_body("the server ends, and was not done with it"), JSON, closes=True)
            return CLOSED, 503
        except Exception as error:
            fault = fault_of(error, in_flags=self._in_flags)
            if fault.is_bug:
                self._log.exception("a request to %s failed", served.name)
            self.broken = self.broken or fault.of_device
            figures.outcomes[fault.outcome] += 1
            closes = isinstance(error, Refused) and error.closes
            await self._send(send, fault.status, error_body(fault.message), JSON, closes=closes)
            return fault.outcome, fault.status
        figures.outcomes[RESULT] += 1
        now = time.perf_counter()
        figures.request_s.add(now - begun)
        figures.queue_s.add(future.begun - future.arrived)
        figures.execution_s.add(now - future.begun)
        figures.answer_s.add(now - future.ended)
        extra = () if json_nbytes is None else ((_HEADER_NBYTES, str(json_nbytes).encode()),)
        await self._send(send, 200, answer, JSON if json_nbytes is None else _BINARY, extra)
        return RESULT, 200

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive, incoming: Incoming | None) -> memoryview | None:
        """The body of a request; None where its sender went before it was whole. Raises Refused."""
        most = self._limits.body_nbytes
        length = headers.get(b"content-length", b"")
        if length and (not length.isdigit() or int(length) > most):
            raise _too_large(most)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(415, "Content-Encoding: bodies are taken as they are, not compressed", closes=True)
        if incoming is not None and incoming.is_whole:
            return incoming.body()
        parts: list[bytes] = []
        nbytes = 0
        try:
            async with asyncio.timeout(self._limits.read_s):
                if incoming is not None:
                    await incoming.whole()
                    if incoming.is_lost:
                        return None
                    if incoming.is_too_large:
                        raise _too_large(most)
                    return incoming.body()
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    nbytes += len(part)
                    if nbytes > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        break
                    parts.append(part)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self._limits.read_s:g} s", closes=True) from None
        return memoryview(b"".join((*parts, part)) if parts else part)

    async def _other(self, path: list[str], scope: Scope, receive: Receive) -> Answer:
        """What is no request to infer: status, body and its type. Raises Refused."""
        match path[1:]:
            case ["v2"]:
                expect_method(scope["method"], "GET", scope["path"])
                return 200, json_body(server_metadata(self._regions is not None)), JSON
            case ["v2", "health", "live"]:
                return 503 if self.broken else 200, b"", JSON
            case ["v2", "health", "ready"]:
                return self._readiness()
            case ["v2", "models", *rest] if rest[-1:] != ["stats"]:
                return self._of_model(rest, scope)
        incoming = scope.get("extensions", {}).get(CONNECTION)
        body = await self._body(dict(scope["headers"]), receive, incoming) if scope["method"] == "POST" else memoryview(b"")
        if body is None:
            raise Refused(400, "the body is not whole", closes=True)
        told = await self._office.answer(scope["method"], path[1:], bytes(body))
        if told is not None:
            return told
        raise Refused(404, f"there is nothing at {scope['path']!r}")

    def _of_model(self, rest: list[str], scope: Scope) -> Answer:
        what = rest.pop() if rest and rest[-1] in ("ready", "config") and len(rest) in (2, 4) else ""
        served = find_served(self._repository, rest)
        expect_method(scope["method"], "GET", scope["path"])
        if what == "ready":
            return self._readiness()
        if what == "config":
            return 200, json_body(model_config(served)), JSON
        return 200, json_body(model_metadata(served, self._repository.versions(served.name))), JSON

    def _readiness(self) -> Answer:
        return 503 if self.draining or self.broken else 200, b"", JSON

    async def _send(
        self,
        send: Send,
        status: int,
        body: bytes,
        kind: bytes,
        extra: tuple[tuple[bytes, bytes], ...] = (),
        *,
        closes: bool = False,
    ) -> None:
        """An answer: its head and its body with nothing awaited between them, so that they leave in one write."""
        self.statuses[status] += 1
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *extra]
        if closes or self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _outputs(future: Submitted, incoming: Incoming | None, receive: Receive) -> dict[str, Any]:
    """The outputs of a request, which is cancelled when its sender goes."""
    if incoming is not None:
        if incoming.is_lost:
            future.cancel()
        incoming.watch(future.cancel)
        try:
            return await future
        finally:
            incoming.watch(None)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        future.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await future
    finally:
        watching.cancel()


async def _live(receive: Receive, send: Send) -> None:
    """Plans are opened before, and closed after, whoever serves the application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _json_nbytes(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(_HEADER_NBYTES)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise Refused(400, f"Inference-Header-Content-Length: expected a number of bytes, got {text.decode('latin-1')!r}")
    return int(text)


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than {most} bytes (start the server with a larger --max-body)", closes=True)
