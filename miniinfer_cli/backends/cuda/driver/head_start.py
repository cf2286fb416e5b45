"""What opening a GPU waits for longest, the driver and its context, begun on a thread while Python imports and reads."""

import contextlib
import ctypes
import threading
from typing import Self

from miniinfer_cli.shortage import start_thread

_LIBRARY = "libcuda.so.1"


class HeadStart:
    """Starts the driver and makes the primary context of a GPU, which stay there until ``close()`` at least; use ``with``.

    It raises nothing: where there is no driver or no such GPU, that is met again and told where the GPU is opened. Who opens it
    meanwhile waits in the driver for what is under way.
    """

    def __init__(self, ordinal: int) -> None:
        self._device = ctypes.c_int()
        self._retained = False
        self._thread: threading.Thread | None = None
        with contextlib.suppress(OSError, MemoryError):
            # Its functions are called without holding the interpreter.
            self._driver = ctypes.CDLL(_LIBRARY)
            thread = threading.Thread(target=self._work, args=(ordinal,), name="miniinfer-head-start")
            start_thread(thread)
            self._thread = thread

    def _work(self, ordinal: int) -> None:
        driver, context = self._driver, ctypes.c_void_p()
        self._retained = not (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(self._device), ordinal)
            or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), self._device)
        )

    def close(self) -> None:
        """Lets go of the context, which goes unless somebody else holds it; waits for what is under way. May be called twice."""
        if self._thread is not None:
            self._thread.join()
        retained, self._retained = self._retained, False
        if retained:
            self._driver.cuDevicePrimaryCtxRelease_v2(self._device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
