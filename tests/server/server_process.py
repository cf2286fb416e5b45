"""`miniinfer serve` in a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

WAIT_S = 60


class ServerProcess:
    """A server that listens by the time that this is made. ``lines``: what it has told so far."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "miniinfer_cli", "serve", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        found = re.search(r"http://(.*):(\d+)", self.expect("Serving at"))
        assert found is not None
        self.address = (found[1], int(found[2]))

    def expect(self, text: str, count: int = 1) -> str:
        """The ``count``-th line with this text, which is waited for."""

        def there() -> bool:
            return sum(text in line for line in self.lines) >= count or self.process.poll() is not None

        with self._told:
            assert self._told.wait_for(there, WAIT_S), self.lines
            found = [line for line in self.lines if text in line]
        assert len(found) >= count, f"the server ended, and told {self.lines}"
        return found[count - 1]

    def resident_nbytes(self) -> int:
        """What it holds of the machine's memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, when it has ended by this signal."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        code = self.process.wait(WAIT_S)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                with self._told:
                    self.lines.append(line.rstrip("\n"))
                    self._told.notify_all()
        with self._told:
            self.process.wait()
            self._told.notify_all()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[ServerProcess]:
    """A server on a free port, which is gone at the end."""
    server = ServerProcess("--port", "0", *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
