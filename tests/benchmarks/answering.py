"""A server that answers at once, whatever it is asked: what the clients of serving.py could do at most.

    python -m tests.benchmarks.answering FD ANSWER-NBYTES

It takes connections at the socket behind FD, beside others of its kind, and answers each whole request by so many bytes.
"""

import re
import selectors
import socket
import sys
from typing import Any

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_MOST = 1 << 20


class Answerer:
    """One connection, whose requests are all as long as the first one."""

    def __init__(self, connected: socket.socket, answer: bytes) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._answer = answer
        self._room = bytearray(_MOST)
        self._got = 0
        self._needed = 0

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def receive(self) -> bool:
        """Takes what is there, and answers what is whole; False when the client has gone."""
        got = self._socket.recv_into(memoryview(self._room)[self._got :] if not self._needed else self._room)
        self._got += got
        if not self._needed and (end := self._room.find(b"\r\n\r\n", 0, self._got)) >= 0:
            length = _LENGTH.search(self._room, 0, end)
            self._needed = end + 4 + (int(length[1]) if length is not None else 0)
        if self._needed and self._got >= self._needed:
            self._got -= self._needed
            self._socket.sendall(self._answer)
        return got > 0


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    body = bytes(int(sys.argv[2]))
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                try:
                    connected, _ = listening.accept()
                except BlockingIOError:  # another one was faster
                    continue
                selector.register(Answerer(connected, answer), selectors.EVENT_READ)
                continue
            one: Any = key.fileobj
            try:
                goes_on = one.receive()
            except ConnectionError:
                goes_on = False
            if not goes_on:
                selector.unregister(one)


if __name__ == "__main__":
    main()
