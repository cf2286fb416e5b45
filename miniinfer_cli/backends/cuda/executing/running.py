"""Device segments on a stream: enqueued at first, then captured into CUDA graphs, then replayed."""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from miniinfer_cli.backends.cuda.executing.binding import Segment
from miniinfer_cli.backends.cuda.executing.hosting import HostValues
from miniinfer_cli.backends.cuda.program import HostStep
from miniinfer_cli.errors import DeviceError, OutOfMemoryError

_LOG = logging.getLogger(__name__)


class Runner:
    """Runs segments on one stream. ``lock`` is that of the engine's captures, one of which goes on at a time."""

    def __init__(self, stream: Any, lock: threading.Lock, *, cuda_graph: bool) -> None:
        self._stream = stream
        self._lock = lock
        self.cuda_graph = cuda_graph
        """Capture and replay; off once a capture failed."""
        self.captures = 0
        """CUDA graphs captured so far."""
        self.faults: list[str] = []
        """Why a capture failed."""

    def run(self, segment: Segment) -> None:
        """Enqueues a segment: as it is at first, so that libraries load what they load at first use; as a graph later."""
        if segment.graph is None and segment.warm and self.cuda_graph and any(segment.calls):
            self._capture(segment)
        if segment.graph is not None:
            self._stream.launch_graph(segment.graph)
        else:
            segment.enqueue()
            segment.warm = True

    def _capture(self, segment: Segment) -> None:
        with self._lock:
            try:
                segment.graph = self._noted(segment)
                self.captures += 1
            except (DeviceError, OutOfMemoryError) as error:
                self.faults.append(error.message)
                self.cuda_graph = False
                _LOG.warning("CUDA graph capture failed (%s); running without graphs", error.message)

    def _noted(self, segment: Segment) -> Any:
        """The graph of what the segment enqueues; the stream works as before when that fails."""
        self._stream.begin_capture()
        try:
            segment.enqueue()
        except BaseException:
            with contextlib.suppress(DeviceError, OutOfMemoryError):  # the first error says more
                self._stream.end_capture().close()
            raise
        return self._stream.end_capture()


def run_timed(device: Any, stream: Any, segments: Sequence[Segment | HostStep], values: HostValues) -> list[int]:
    """Runs step by step, each timed by itself: slower than a whole inference. Nanoseconds for each step, in order."""
    marks: list[Any] = []
    with contextlib.ExitStack() as stack:
        for segment in segments:
            if isinstance(segment, HostStep):
                stream.synchronize()  # what came before is not its own
                started = time.perf_counter_ns()
                values.run(segment)
                stream.synchronize()
                marks.append(time.perf_counter_ns() - started)
                continue
            for calls in segment.calls:
                before, after = (stack.enter_context(device.create_event(timing=True)) for _ in range(2))
                marks.append((before, after))
                stream.record(before)
                for call in calls:
                    call()
                stream.record(after)
        values.fetch_outputs()
        stream.synchronize()
        return [m if isinstance(m, int) else int(m[1].elapsed_ms(m[0]) * 1e6) for m in marks]
