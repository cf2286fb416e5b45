"""A function, or a command, in a forked child."""

import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from miniinfer_cli.cli.main import main

_LIMIT_S = 20  # a child that hangs is killed


def in_forked_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a forked child of this process. Raises AssertionError when it fails there, or hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: the process has other threads
        child = os.fork()
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: the process has other threads
        child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit_s)
            before()
            main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
