"""A function, a command, or a module in a forked child, which takes no time to import what this process has imported."""

import importlib
import os
import pickle
import pty
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import IO, Any, NoReturn

from miniinfer_cli.cli.main import main

_LIMIT_S = 20  # a child that hangs is killed


def in_forked_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a forked child of this process. Raises AssertionError when it fails there, or hangs."""
    read, write = os.pipe()
    child = _fork()
    if child == 0:
        signal.alarm(_LIMIT_S)
        try:
            result = (True, function())
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(write, "wb") as pipe:
            pipe.write(pickle.dumps(result))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child was killed by signal {status & 127}"
    succeeded, value = pickle.loads(answer)
    assert succeeded, value
    return value


def command_in_forked_child(words: Sequence[str], before: Callable[[], Any] = lambda: None, limit_s: int = 60) -> tuple[int, str]:
    """The exit code of a command in a forked child of this process, and what it printed to standard error.

    ``before`` is called in the child first; one that hangs is killed after ``limit_s``, and its code is that signal's.
    """
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        _command(words, {2: writing}, before, limit_s)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def on_terminal(*words: object, before: Callable[[], Any] = lambda: None) -> tuple[int, str]:
    """The exit code of a command in a forked child, and everything that it printed on a terminal of 100 columns.

    ``before`` is called in the child first.
    """
    ours, theirs = pty.openpty()
    child = _fork()
    if child == 0:
        os.environ.update({"TERM": "xterm", "COLUMNS": "100"})
        _command([str(w) for w in words], dict.fromkeys((0, 1, 2), theirs), before, 60)
    os.close(theirs)
    printed = b""
    try:
        while data := os.read(ours, 1 << 16):
            printed += data
    except OSError:
        pass  # Linux tells the end of a terminal by an error
    os.close(ours)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed.decode()


class ForkedModule:
    """``python -m`` a module, forked: what its ``main`` does. In the place of subprocess.Popen, as far as workers use it."""

    def __init__(self, command: Sequence[str], *, stderr: IO[bytes], **_: object) -> None:
        module = importlib.import_module(command[-1])
        reading, asked = os.pipe()
        answered, writing = os.pipe()
        self.pid = _fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(asked)
                _standard({0: reading, 1: writing, 2: stderr.fileno()})
                os.closerange(3, 1024)  # else the other side of another worker's pipes stays open in this one
                module.main()
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        os.close(reading)
        os.close(writing)
        self.stdin, self.stdout = os.fdopen(asked, "wb"), os.fdopen(answered, "rb")
        self._code: int | None = None

    def kill(self) -> None:
        """Ends it."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended; with a minus, the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: the process has other threads
        return os.fork()


def _standard(descriptors: dict[int, int]) -> None:
    """Standard input, output and error of a child are these."""
    for number, descriptor in descriptors.items():
        os.dup2(descriptor, number)
        name, mode = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))[number]
        setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _command(words: Sequence[str], descriptors: dict[int, int], before: Callable[[], Any], limit_s: int) -> NoReturn:
    """The command, in a child, and the child's end."""
    code = 99
    try:
        _standard(descriptors)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        before()
        main(list(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
