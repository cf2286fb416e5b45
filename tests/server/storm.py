"""Many clients at once, some poisoned, some that cut their connections, a plan that is replaced, a server that is told to end.

    python -m tests.server.storm [--requests 10000] [--clients 32] [--seed 0] [--http-processes 0]

Every request must be answered once, with what is its own, or refused as it should; memory must stay flat. Another server takes
the place of the one that drains, as in a rollout: clients ask it what the first one refuses.
"""

import argparse
import itertools
import json
import random
import re
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.server.asking import MODEL, body_of, write_model
from tests.server.server_process import WAIT_S, ServerProcess, serving

_OTHER = MODEL.replace("[0.0, 0.25, 0.5, 0.75]", "[1000000.0, 1000000.25, 1000000.5, 1000000.75]")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_FLAGS = ("--priorities", "3", "--max-batch", "16", "--max-queue", "4096")
_GROWTH_NBYTES = 24 << 20
_WIDE = 6000


class Refused(Exception):
    """Nobody took the request: the connection was refused, or ended before a byte of an answer came."""


class Connection:
    """A connection that is kept from request to request."""

    def __init__(self, address: tuple[str, int]) -> None:
        try:
            self.socket = socket.create_connection(address, WAIT_S)
        except OSError as error:
            raise Refused(f"connect: {error!r}") from None

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Refused(f"send: {error!r}") from None

    def answer(self) -> tuple[int, bool, bytes]:
        """Status, whether the connection goes on, and the body. Raises Refused, and AssertionError for half an answer or two."""
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0 or len(got) < end + 4 + self._length(got, end):
            try:
                part = self.socket.recv(1 << 16)
            except ConnectionResetError:
                part = b""
            if not part:
                assert not got, f"the connection ended within an answer: {got!r}"
                raise Refused("ended")
            got += part
        body = got[end + 4 :]
        assert len(body) == self._length(got, end), f"more than one answer came: {got!r}"
        return int(got[9:12]), b"connection: close" not in got[:end].lower(), body

    def close(self) -> None:
        self.socket.close()

    @staticmethod
    def _length(got: bytes, end: int) -> int:
        found = _LENGTH.search(got, 0, end)
        assert found is not None, got
        return int(found[1])


class Storm:
    """What all clients share: the numbers that are still to be sent, the address, whether a server may refuse just now, and
    whether the plan was replaced.
    """

    def __init__(self, requests: int) -> None:
        self.numbers = itertools.count()
        self.requests = requests
        self.address = ("", 0)
        self.may_refuse = threading.Event()
        self.replaced = threading.Event()
        self.ended: Counter[str] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def count(self, kind: str) -> None:
        with self._lock:
            self.ended[kind] += 1

    def done(self) -> int:
        """How many requests have ended."""
        with self._lock:
            return sum(n for kind, n in self.ended.items() if kind != "refused")


class Client(threading.Thread):
    """Sends one request after the other until none are left."""

    def __init__(self, storm: Storm, seed: int) -> None:
        super().__init__()
        self._storm = storm
        self._chance = random.Random(seed)
        self._connection: Connection | None = None

    def run(self) -> None:
        try:
            while (number := next(self._storm.numbers)) < self._storm.requests:
                kind = self._chance.choices(("good", "poisoned", "half", "unread"), (97, 1, 1, 1))[0]
                until = time.monotonic() + WAIT_S
                while not self._sent(number, kind):
                    assert time.monotonic() < until, f"request {number} was refused for {WAIT_S} s"
                    time.sleep(0.01)
        except BaseException as error:
            self._storm.faults.append(repr(error))
            raise
        finally:
            self._leave()

    def _sent(self, number: int, kind: str) -> bool:
        """True when the request has ended; False where it was refused."""
        storm = self._storm
        may_refuse = storm.may_refuse.is_set()
        try:
            self._ask(number, kind)
        except Refused as refused:
            self._leave()
            if not may_refuse and not storm.may_refuse.is_set():
                raise AssertionError(f"request {number} was refused by a server that serves: {refused}") from None
            storm.count("refused")
            return False
        return True

    def _ask(self, number: int, kind: str) -> None:
        rows = self._chance.choice((1, 1, 1, 2, 3))
        parameters = {"priority": self._chance.randrange(4)}
        if kind in ("good", "half", "unread") and self._chance.random() < 0.1:
            self._ask_wide(number, kind, rows, parameters)
            return
        body = body_of(*[number] * rows, id=str(number), parameters=parameters)
        if kind == "poisoned":
            wrong = json.loads(body)
            wrong["inputs"][1]["data"] = [1_000_000 + number] * rows
            body = json.dumps(wrong).encode()
        answered = self._answer(kind, f"Content-Length: {len(body)}", body)
        if answered is None:
            return
        status, text, must_be_new = answered
        assert text.startswith(b"{"), f"request {number} is answered by {status}: {text!r}"
        answer = json.loads(text)
        if kind == "poisoned":
            assert status == 400 and str(1_000_000 + number) in answer["error"], (status, answer)
        else:
            assert status == 200, (status, answer)
            assert answer["id"] == str(number), (number, answer)
            y, k = (output["data"] for output in answer["outputs"])
            assert k == [number % 4] * rows, (number, answer)
            kind = self._compare(number, np.array(y), np.array([number, 1, 2] * rows), must_be_new)
        self._storm.count(kind)

    def _ask_wide(self, number: int, kind: str, rows: int, parameters: dict[str, Any]) -> None:
        """A request of bytes, too large to be sent from process to process."""
        x = np.full((rows, _WIDE), number, np.float32)
        k = np.full((rows, 1), number % 4)
        inputs = [
            {"name": name, "datatype": kind, "shape": list(a.shape), "parameters": {"binary_data_size": a.nbytes}}
            for name, kind, a in (("x", "FP32", x), ("k", "INT64", k))
        ]
        asked = {"inputs": inputs, "outputs": [{"name": "y"}], "parameters": {**parameters, "binary_data_output": True}}
        text = json.dumps(asked).encode()
        body = text + x.tobytes() + k.tobytes()
        answered = self._answer(kind, f"Content-Length: {len(body)}\r\nInference-Header-Content-Length: {len(text)}", body)
        if answered is not None:
            status, answer, must_be_new = answered
            assert status == 200, (status, answer)
            found = np.frombuffer(answer[-x.nbytes :], np.float32)
            self._storm.count(self._compare(number, found, x.reshape(-1), must_be_new))

    def _answer(self, kind: str, headers: str, body: bytes) -> tuple[int, bytes, bool] | None:
        """Status and body of the answer, and whether the new plan has to have made it; None where nobody waits for one."""
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\n{headers}\r\n\r\n".encode()
        must_be_new = self._storm.replaced.is_set()
        if self._connection is None:
            self._connection = Connection(self._storm.address)
        if kind in ("half", "unread"):
            self._connection.send(head + (body if kind == "unread" else body[:-1]))
            self._leave()
            self._storm.count(kind)
            return None
        self._connection.send(head + body)
        status, goes_on, answer = self._connection.answer()
        if not goes_on:
            self._leave()
        return status, answer, must_be_new

    @staticmethod
    def _compare(number: int, y: Any, x: Any, must_be_new: bool) -> str:
        """Which plan has made these: good, the first one; replaced, the second."""
        own = x + np.float32(0.25 * (number % 4))
        if np.array_equal(y, own):
            assert not must_be_new, f"request {number} is answered by a plan that was replaced before"
            return "good"
        assert np.array_equal(y, own + np.float32(1_000_000)), (number, own, y)
        return "replaced"

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def storm(requests: int, clients: int, seed: int = 0, flags: Sequence[str] = ()) -> dict[str, Any]:
    """What became of so many requests; ``flags``: more of the servers'. Raises AssertionError where something went wrong."""
    started = time.perf_counter()
    shared = Storm(requests)
    threads = [Client(shared, seed * clients + n) for n in range(clients)]
    with tempfile.TemporaryDirectory() as folder:
        plan = write_model(Path(folder, "m.plan"))
        with serving(str(plan), *_FLAGS, *flags) as first:
            shared.address = first.address
            for thread in threads:
                thread.start()
            _until(shared, threads, requests // 4)
            before = first.resident_nbytes()
            write_model(plan, _OTHER)
            first.process.send_signal(signal.SIGHUP)
            first.expect("the new plan serves")
            shared.replaced.set()
            with serving(str(plan), *_FLAGS, *flags) as second:
                _until(shared, threads, requests * 3 // 5)
                grown = first.resident_nbytes() - before
                shared.address = second.address
                shared.may_refuse.set()
                assert first.end() == 0, first.lines
                for thread in threads:
                    thread.join()
                assert second.end() == 0, second.lines
    assert not shared.faults, (
        f"{len(shared.faults)} faults: {shared.faults[:5]}; the servers told {first.lines[:40]}, {second.lines[:9]}"
    )
    assert sum(shared.ended.values()) - shared.ended["refused"] == requests
    counted = _counted(first) + _counted(second)
    _compare(shared.ended, counted)
    assert grown < _GROWTH_NBYTES, f"the server grew by {grown >> 20} MiB"
    return {
        "seconds": time.perf_counter() - started,
        "ended": dict(shared.ended),
        "counted": dict(counted),
        "grown_kib": grown >> 10,
    }


def _until(shared: Storm, threads: list[Client], count: int) -> None:
    while shared.done() < count:
        assert any(t.is_alive() for t in threads) and not shared.faults, shared.faults
        time.sleep(0.002)


def _counted(server: ServerProcess) -> Counter[str]:
    """What the server says of the requests, in its last line."""
    line = server.lines[-1]
    assert line.startswith("All requests are answered"), server.lines
    return Counter({kind: int(n) for n, kind in re.findall(r"(\d+) (\w+)", line)})


def _compare(seen: Counter[str], counted: Counter[str]) -> None:
    """Servers and clients agree; what becomes of requests whose client does not wait is the server's word."""
    answered = seen["good"] + seen["replaced"]
    assert counted["invalid"] == seen["poisoned"], (seen, counted)
    assert answered <= counted["result"] <= answered + seen["unread"], (seen, counted)
    assert counted["result"] + counted["cancelled"] <= answered + seen["unread"] + seen["half"], (seen, counted)
    assert set(counted) <= {"result", "invalid", "cancelled"}, counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--http-processes", default="0")
    given = parser.parse_args()
    print(json.dumps(storm(given.requests, given.clients, given.seed, ("--http-processes", given.http_processes))))


if __name__ == "__main__":
    main()
