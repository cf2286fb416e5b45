"""That the machine's memory ran out, in whatever words it is told; and room for the libraries that do not tell it at all."""

import errno
import mmap
import os
import sys

TYPE_CHECKING = False  # as type checkers know it: a command loads this module before all others
if TYPE_CHECKING:
    from threading import Thread

_START_NBYTES = 128 << 20
_THREAD_NBYTES = 41 << 20  # a buffer of the matrix library, and a stack
_MOST_THREADS = 64
_BEGIN_NBYTES = 16 << 20  # twice a stack
# What the loader of shared libraries says, and Python where it cannot start a thread.
_LOADER = (
    "failed to map segment",
    "cannot map",
    "cannot create shared object descriptor",
    "out of memory",
    "cannot allocate memory",
)
_THREAD = "can't start new thread"


def memory_ran_out(error: BaseException) -> bool:
    """Whether ``error``, or what it came from, says that there was no memory: also a library that could not be mapped."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and not any(cause is s for s in seen):  # an error can be its own cause
        seen.append(cause)
        text = str(cause).lower()
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        if isinstance(cause, (ImportError, OSError)) and any(words in text for words in _LOADER):
            return True
        if isinstance(cause, RuntimeError) and _THREAD in text:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def expect_room_to_start() -> None:
    """Raises MemoryError when numpy is still to be loaded and there is no room for it.

    Its matrix library takes memory as it is loaded, and where there is none it ends the process, with exit code 1.
    """
    if "numpy" in sys.modules:
        return
    nbytes = _START_NBYTES + (_library_threads() - 1) * _THREAD_NBYTES
    try:
        mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError(f"{nbytes >> 20} MiB needed to start") from None


def start_thread(thread: "Thread") -> None:
    """Starts ``thread``. Raises MemoryError when it cannot be started.

    One that starts and then has no memory to begin would be waited for without end: Thread.start returns when it has begun.
    """
    try:
        mmap.mmap(-1, _BEGIN_NBYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError(f"no memory to start a thread: {_BEGIN_NBYTES >> 20} MiB needed") from None
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(str(error)) from None


def _library_threads() -> int:
    """Threads that OpenBLAS starts as it is loaded."""
    asked = (os.environ.get(name, "") for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"))
    count = next((int(text) for text in asked if text.isdecimal() and int(text)), os.cpu_count() or 1)
    return min(count, os.cpu_count() or 1, _MOST_THREADS)
