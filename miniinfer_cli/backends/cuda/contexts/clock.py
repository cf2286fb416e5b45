"""A stream's clock beside the host's: an event, and when the host saw it happen."""

import time

from miniinfer_cli.backends.cuda.contract.protocols import Device, Event, Stream
from miniinfer_cli.backends.interface import Clock

_TRIES = 8  # of which the one that the host knows best is kept


class StreamClock:
    """The point that times count from. Used by one thread at a time."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device = device
        self._stream = stream
        self.event: Event | None = None
        """The point, on the device; None before it is set."""

    def set(self) -> Clock:
        """Sets the point. Nothing may be under way: the event must happen as soon as it is recorded.

        It happened between the call that recorded it and the return from waiting for it, which are a few microseconds apart.
        """
        self.close()
        least = 0
        clock = Clock(0, 0)
        for _ in range(_TRIES):
            event = self._device.create_event(timing=True)
            try:
                began = time.perf_counter_ns()
                self._stream.record(event)
                event.synchronize()
                took = time.perf_counter_ns() - began
            except BaseException:
                event.close()
                raise
            if self.event is not None and took >= least:
                event.close()
                continue
            self.close()
            self.event, least, clock = event, took, Clock(began + took // 2, took // 2)
        return clock

    def close(self) -> None:
        """Gives the event back; may be called twice."""
        if self.event is not None:
            self.event.close()
            self.event = None
