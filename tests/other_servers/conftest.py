"""A plan, and servers as processes that are asked over HTTP."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import miniinfer_cli
from tests import served_net

ROOT = Path(__file__).parents[2]
plan = served_net.plan
START_S = 90  # for libraries that import for seconds


@pytest.fixture(scope="session")
def expected(plan):
    """What an engine gives here."""
    with miniinfer_cli.load(plan, "cpu") as engine:
        yield lambda inputs: {
            n: a.tolist() for n, a in engine.run({n: np.asarray(a, engine_type(engine, n)) for n, a in inputs.items()}).items()
        }


def engine_type(engine, name):
    return next(b.dtype for b in engine.inputs if b.name == name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url: str, document: object = None) -> tuple[int, object]:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        body = error.read()
        try:
            return error.code, json.loads(body or b"null")
        except ValueError:
            return error.code, body.decode()


@contextlib.contextmanager
def running(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A server, once something answers at ``url``; it is ended by SIGTERM, and must end."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = folder / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + START_S
        while True:
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            time.sleep(0.1)
        yield server
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
