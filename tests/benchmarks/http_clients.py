"""Clients of one process that send one request over and over, each over a connection of its own; see serving.py.

What to send comes as JSON on standard input; how long each request took goes to standard output.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Client:
    """One connection. ``request``: the bytes that it sends."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._request = memoryview(request)
        self._left = self._request[:0]
        self._got = bytearray()
        self._needed = 0
        self.began = 0.0
        self.statuses: dict[str, int] = {}
        self.seconds: list[float] = []

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self) -> bool:
        """Begins a request, or goes on with it; True when all of it is out."""
        if not self._left:
            self.began = time.perf_counter()
            self._left = self._request
        try:
            self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            return False
        return not self._left

    def receive(self) -> bool:
        """Takes what is there; True when the answer is whole."""
        part = self._socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._got += part
        if not self._needed:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self._got, 0, end)
            assert length is not None
            self._needed = end + 4 + int(length[1])
        if len(self._got) < self._needed:
            return False
        self.seconds.append(time.perf_counter() - self.began)
        status = self._got[9:12].decode()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._got.clear()
        self._needed = 0
        return True


def run(address: tuple[str, int], requests: Sequence[bytes], start: float, seconds: float) -> list[Client]:
    """Each client sends its request again when it is answered, from ``start`` (time.time) on for so long."""
    clients = [Client(address, request) for request in requests]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client, selectors.EVENT_READ)
    time.sleep(max(start - time.time(), 0))
    until = time.perf_counter() + seconds
    for client in clients:
        if not client.send():
            selector.modify(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
    open_clients = len(clients)
    while open_clients:
        for key, events in selector.select(10):
            ready: Any = key.fileobj
            if events & selectors.EVENT_WRITE and ready.send():
                selector.modify(ready, selectors.EVENT_READ)
            if events & selectors.EVENT_READ and ready.receive():
                if time.perf_counter() >= until:
                    selector.unregister(ready)
                    open_clients -= 1
                elif not ready.send():
                    selector.modify(ready, selectors.EVENT_READ | selectors.EVENT_WRITE)
    return clients


def main() -> None:
    asked = json.load(sys.stdin)
    requests = [Path(path).read_bytes() for path in asked["requests"]]
    begun = time.process_time()
    clients = run(tuple(asked["address"]), requests, asked["start"], asked["seconds"])
    used = time.process_time() - begun
    statuses: dict[str, int] = {}
    for client in clients:
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    answer = {"statuses": statuses, "seconds": [s for c in clients for s in c.seconds], "processor_s": used}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
