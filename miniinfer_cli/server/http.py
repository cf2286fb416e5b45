"""HTTP by uvicorn: heads and bodies in one write, connections that tell when they are lost, and a drain at the end."""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from miniinfer_cli.errors import UsageError
from miniinfer_cli.server.app import CONNECTION, Application
from miniinfer_cli.server.bodies import Bodies, Body, Heap
from miniinfer_cli.server.infer_response import error_body
from miniinfer_cli.server.settings import Connections, HttpLimits

_BACKLOG = 2048
_HEAD_NBYTES = 1 << 16  # of the head of a request: those of clients have some hundreds
_LINGER_S = 1.0  # that idle connections have for one more request, when the server drains


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any that is free. Raises UsageError."""
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address: {error}", hint="--host 127.0.0.1, or 0.0.0.0 for all") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot listen at {place}: {told}", hint="give another --port, or --host; --port 0 takes a free one"
        ) from None
    return listening


class _OneWrite:
    """A transport that keeps the head of an answer until its body comes, so that both leave in one write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._held:
            head, self._held = self._held, b""
            self._transport.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._held = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Writes a head that has no body."""
        head, self._held = self._held, b""
        if head:
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Request:
    """A request of a connection; see ``app.Incoming``."""

    def __init__(self, connection: "_Connection") -> None:
        self.is_whole = False
        self.is_too_large = False
        self._connection = connection
        self._cycle: RequestResponseCycle | None = None
        self._body: Body | None = None
        self._filled = 0
        self._chunks = bytearray()
        self._event: asyncio.Event | None = None

    @property
    def is_lost(self) -> bool:
        """See Incoming."""
        return self._connection.is_lost

    def watch(self, on_lost: Callable[[], object] | None) -> None:
        """See Incoming."""
        self._connection.on_lost = on_lost

    async def whole(self) -> None:
        """See Incoming."""
        if self._cycle is not None and self._cycle.waiting_for_100_continue and not self.is_lost:
            self._cycle.waiting_for_100_continue = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._event = asyncio.Event()
        while not (self.is_whole or self.is_lost or self.is_too_large):
            self._event.clear()
            await self._event.wait()

    def body(self) -> memoryview:
        """See Incoming."""
        return memoryview(self._chunks) if self._body is None else self._body.memory

    def begin(self, cycle: RequestResponseCycle, headers: list[tuple[bytes, bytes]], most: int, bodies: Bodies) -> None:
        """Its head has come, so that memory for its body can be taken where it tells the length."""
        self._cycle = cycle
        length, ahead = b"", b""
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif name == b"inference-header-content-length":
                ahead = value
        if length.isdigit() and 0 < int(length) <= most:
            self._body = bodies.take(int(length), int(ahead) if ahead.isdigit() and len(ahead) < 18 else 0)

    def add(self, part: bytes, most: int) -> None:
        """More of its body."""
        if self._body is not None:
            self._body.memory[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
        elif self._filled + len(part) > most:
            self.is_too_large = True
            self._chunks.clear()
            self.wake()
        else:
            self._filled += len(part)
            self._chunks += part

    def end(self) -> None:
        """All of it has come."""
        self.is_whole = not self.is_too_large
        self.wake()

    def wake(self) -> None:
        """Something has happened to it."""
        if self._event is not None:
            self._event.set()

    def release(self) -> None:
        """It is answered, or will not be."""
        body, self._body = self._body, None
        if body is not None:
            body.release()


class _Connection(HttpToolsProtocol):
    """A connection, whose bodies go to the memory that ``bodies`` gives as they come. A class of its own has other limits."""

    head_s = Connections().head_s
    body_nbytes = HttpLimits().body_nbytes
    bodies: Bodies = Heap()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None
        self._in_head = True
        self._head_nbytes = 0
        """Of the lines of the head that are whole."""
        self._coming_nbytes = 0
        """Of a head that is not whole, but what came in one piece with the request in front of it."""
        self._begun = 0
        """Requests whose heads have begun to come."""
        self._is_between = True
        """All of those have come to their ends."""
        self._requests: deque[_Request] = deque()
        """Those that are not answered, the last the one that comes in."""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_OneWrite(transport))  # type: ignore[arg-type]
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._unwatch_head()
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
        while self._requests:
            request = self._requests.popleft()
            request.wake()
            request.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        begun = self._begun + self._is_between  # once what comes first here is a head
        super().data_received(data)
        if self._in_head and self._late is None:
            self._watch_head()
        if self._in_head and begun == self._begun and not self.transport.is_closing():  # else a body may be in front of it
            self._coming_nbytes += len(data)
            if self._coming_nbytes > _HEAD_NBYTES:  # one line that has no end
                self._head_nbytes = self._coming_nbytes
                self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has too large a head, is told so in the protocol's form."""
        status, told = "400 Bad Request", "the request is no HTTP that is understood here"
        if self._head_nbytes > _HEAD_NBYTES:
            status = "431 Request Header Fields Too Large"
            told = f"the head of the request is larger than {_HEAD_NBYTES} bytes (send tensors in the body)"
        body = error_body(told)
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode())
        self.transport.write(body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_nbytes, self._coming_nbytes = True, 0, 0
        self._begun += 1
        self._is_between = False
        self._requests.append(_Request(self))
        self.scope["extensions"] = cast(Any, {CONNECTION: self._requests[-1]})

    def on_url(self, url: bytes) -> None:
        self._add_to_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add_to_head(len(name) + len(value) + 4)  # a colon, a space, the end of the line
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unwatch_head()
        super().on_headers_complete()
        self._requests[-1].begin(self.cycle, self.headers, self.body_nbytes, self.bodies)

    def on_body(self, body: bytes) -> None:
        if self._requests and not self.cycle.response_complete:
            self._requests[-1].add(body, self.body_nbytes)

    def on_message_complete(self) -> None:
        self._is_between = True
        super().on_message_complete()
        if self._requests and not self.cycle.response_complete:
            self._requests[-1].end()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]
        if self._requests:
            self._requests.popleft().release()
        super().on_response_complete()

    def _add_to_head(self, nbytes: int) -> None:
        self._head_nbytes += nbytes
        if self._head_nbytes > _HEAD_NBYTES:
            raise ValueError("the head of the request is too large")  # ends the parser, and so calls send_400_response

    def _watch_head(self) -> None:
        self._late = self.loop.call_later(self.head_s, self._end_late)

    def _unwatch_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_late(self) -> None:
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals alone, and ends gently."""

    def __init__(self, config: uvicorn.Config, app: Application, connections: Connections) -> None:
        super().__init__(config)
        self._app = app
        self._connections = connections
        self._left = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: whoever runs it has its own."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not ready at once, then no new connections, then no idle ones; what is under way is answered."""
        self._app.draining = True
        await self._wait(self._connections.lame_s, lambda: True)
        for server in self.servers:
            server.close()
        await self._wait(_LINGER_S, lambda: bool(self.server_state.connections))
        await super().shutdown(sockets)
        self._left = bool(self.server_state.tasks)
        if self._left:
            await asyncio.wait(self.server_state.tasks, timeout=_LINGER_S)  # they tell their clients

    def end(self, at_once: bool) -> None:
        """Begins to drain, or ends what drains."""
        self.should_exit = True
        self.force_exit = at_once

    @property
    def drained(self) -> bool:
        """True where nothing was left when it ended."""
        return not self.force_exit and not self._left

    def take(self, connected: socket.socket) -> Awaitable[object]:
        """Serves a connection that somebody else accepted."""
        connected.setblocking(False)
        return asyncio.get_running_loop().connect_accepted_socket(
            lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state={}
            ),
            connected,
        )

    async def _wait(self, seconds: float, goes_on: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not self.force_exit and goes_on():
            await asyncio.sleep(min(0.02, max(until - loop.time(), 0)))


def make_server(app: Application, limits: HttpLimits, connections: Connections, bodies: Bodies) -> Server:
    """A server of the application; ``serve`` of it takes the sockets that it listens at. ``bodies``: memory for bodies."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each request that is no HTTP
    # A class of its own, since uvicorn makes the connections.
    own = {"head_s": connections.head_s, "body_nbytes": limits.body_nbytes, "bodies": bodies}
    connection = type("_OwnConnection", (_Connection,), own)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=connections.idle_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=connections.drain_s,  # type: ignore[arg-type]
        backlog=_BACKLOG,
    )
    return Server(config, app, connections)
