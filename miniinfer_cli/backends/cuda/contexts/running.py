"""Device segments on a stream: enqueued at first, then captured into CUDA graphs, then replayed."""

import contextlib
import logging
import threading
from collections.abc import Sequence

from miniinfer_cli.backends.cuda.arrays.counts import CaptureCounts
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Event, Stream
from miniinfer_cli.backends.cuda.scheduling.bound_program import Call, Segment
from miniinfer_cli.errors import DeviceError, OutOfMemoryError

# Two events that take times, before and after something.
Pair = tuple[Event, Event]
_LOG = logging.getLogger(__name__)


class Runner:
    """Runs segments on one stream. ``lock`` is that of the engine's captures, one of which goes on at a time."""

    def __init__(self, stream: Stream, lock: threading.Lock, *, cuda_graph: bool, counts: CaptureCounts | None = None) -> None:
        self.stream = stream
        self._lock = lock
        self.cuda_graph = cuda_graph
        """Capture and replay; off once a capture failed."""
        self.captures = 0
        """CUDA graphs captured so far."""
        self.faults: list[str] = []
        """Why a capture failed."""
        self._counts = counts if counts is not None else CaptureCounts()

    def run(self, segment: Segment, end: Event | None = None, around: Pair | None = None) -> None:
        """Enqueues a segment: as it is at first, so that libraries load what they load at first use; as a graph later.

        ``end``: an event to be set behind it. ``around``: two events that take times, to be set before and after it. They become
        part of the graph, so that one launch is all: always the same ones for one segment.
        """
        graph = segment.graph if around is None else segment.timed_graph
        if graph is None and segment.warm and self.cuda_graph and any(segment.calls):
            graph = self._capture(segment, end, around)
        if graph is not None:
            self.stream.launch_graph(graph)
            return
        if around is not None:
            self.stream.record(around[0])
        segment.enqueue()
        segment.warm = True
        if around is not None:
            self.stream.record(around[1])
        if end is not None:
            self.stream.record(end)

    def capture(self, calls: Sequence[Call], around: Pair | None = None, *, anyway: bool = False) -> Captured | None:
        """A graph of these calls, for the caller to close; None where there is nothing to capture, or a capture fails or failed.

        ``around``: as in ``run``. ``anyway``: also where inferences run without graphs; otherwise None there.
        """
        if not calls or self.faults or not (self.cuda_graph or anyway):
            return None
        return self._captured(calls, *((), ()) if around is None else (around[:1], around[1:]))

    def _capture(self, segment: Segment, end: Event | None, around: Pair | None) -> Captured | None:
        """The graph, kept with the segment; None when the capture fails."""
        before: tuple[Event, ...] = around[:1] if around is not None else ()
        behind: tuple[Event, ...] = around[1:] if around is not None else ()
        calls = [call for calls in segment.calls for call in calls]
        graph = self._captured(calls, before, (*behind, end) if end is not None else behind)
        if graph is None:
            return None
        self.captures += 1
        with self._lock:
            self._counts.captures += 1
        if around is None:
            segment.graph = graph
        else:
            segment.timed_graph = graph
        return graph

    def _captured(self, calls: Sequence[Call], before: Sequence[Event], behind: Sequence[Event]) -> Captured | None:
        """The graph; None when the capture fails, after which there are no more."""
        with self._lock:
            try:
                return self._noted(calls, before, behind)
            except (DeviceError, OutOfMemoryError) as error:
                self.faults.append(error.message)
                self._counts.failures += 1
                self.cuda_graph = False
                _LOG.warning("CUDA graph capture failed (%s); running without graphs", error.message)
                return None

    def _noted(self, calls: Sequence[Call], before: Sequence[Event], behind: Sequence[Event]) -> Captured:
        """The graph of events, what the calls enqueue, and events; the stream works as before when that fails."""
        self.stream.begin_capture()
        try:
            for event in before:
                self.stream.note(event)
            for call in calls:
                call()
            for event in behind:
                self.stream.note(event)
        except BaseException:
            with contextlib.suppress(DeviceError, OutOfMemoryError):  # the first error says more
                self.stream.end_capture().close()
            raise
        return self.stream.end_capture()
