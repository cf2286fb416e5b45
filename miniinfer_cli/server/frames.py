"""Messages between the process that has the plans and those that speak HTTP: frames over a stream between relatives."""

import asyncio
import marshal
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

_HEAD = struct.Struct("<II")  # bytes of the message, which is marshal's, and of what follows it as it is
_ALIGNED = 16  # so that tensors lie where numpy wants them

OnFrame = Callable[[Any, memoryview], None]


class Frames(asyncio.Protocol):
    """One end of the stream. ``on_frame`` is called with each message, and the bytes behind it.

    Both ends are this server's own processes: what comes is as they sent it. Messages of one turn of the loop leave together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_frame: OnFrame, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._on_frame = on_frame
        self._on_end = on_end
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[Any] = []
        self._partial = bytearray()
        self._got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._on_end()

    @property
    def is_open(self) -> bool:
        """True while the other end is there."""
        return self._transport is not None

    def send(self, message: Any, behind: Sequence[Any] = ()) -> None:
        """Sends a message of what ``marshal`` takes, and buffers behind it."""
        text = marshal.dumps(message)
        text += b"\0" * (-(len(text) + _HEAD.size) % _ALIGNED)  # marshal passes over them
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out += (_HEAD.pack(len(text), sum(map(len, behind))), text, *behind)

    def close(self) -> None:
        """Sends what is left, and ends the stream."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Sends what there is now, which would be sent at the end of this turn of the loop."""
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.writelines(out)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        at = self._fill_up(data) if self._partial else 0
        view, size = memoryview(data), _HEAD.size
        while at + size <= len(data):
            text, behind = _HEAD.unpack_from(data, at)
            middle = at + size + text
            end = middle + behind
            if end > len(data):
                break
            self._on_frame(marshal.loads(view[at + size : middle]), view[middle:end])
            at = end
        if at < len(data) and not self._partial:
            self._partial = bytearray(_HEAD.size)
            self._got = 0
            self._fill_up(view[at:])

    def _fill_up(self, data: bytes | memoryview) -> int:
        """Goes on with a frame that came in part; how many bytes it took."""
        at = 0
        while at < len(data):
            part = min(len(self._partial) - self._got, len(data) - at)
            self._partial[self._got : self._got + part] = data[at : at + part]
            self._got += part
            at += part
            if self._got < len(self._partial):
                break
            text, behind = _HEAD.unpack_from(self._partial)
            total = _HEAD.size + text + behind
            if total > self._got:
                self._partial.extend(bytes(total - self._got))
            else:
                whole, self._partial = memoryview(self._partial), bytearray()
                self._on_frame(marshal.loads(whole[_HEAD.size : _HEAD.size + text]), whole[_HEAD.size + text :])
                break
        return at
