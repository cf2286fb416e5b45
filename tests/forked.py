"""A function in a forked child."""

import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

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
