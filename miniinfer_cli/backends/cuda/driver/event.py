"""Events: points in a stream's work that others wait for, and between which time is taken."""

from miniinfer_cli.backends.cuda.contract import protocols
from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner


class Event(Handle):
    """A point in a stream, set by ``stream.record(event)``; one that was never recorded counts as reached.

    ``timing``: it takes the time, which makes recording dearer.
    Raises DeviceError; in ``synchronize`` and ``is_done`` also for faults of work that was enqueued before.
    """

    def __init__(self, device: Owner, *, timing: bool = False) -> None:
        """Use ``device.create_event``."""
        driver = self._driver = device.driver
        asked = 0 if timing else int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        self.raw = int(device.call(driver.cuEventCreate, asked))
        super().__init__(device, driver.cuEventDestroy, self.raw)
        self.timing = timing

    def synchronize(self) -> None:
        """Waits until the work before the event is done."""
        status = self._driver.cuEventSynchronize(self.raw)[0]
        if status:
            raise self._device.fault(status, "cuEventSynchronize")

    def is_done(self) -> bool:
        """True when the work before the event is done; does not wait."""
        return self._device.is_ready(self._driver.cuEventQuery, self.raw)

    def hold_foreign(self, handle: int) -> None:
        """Lets what is enqueued from now on in a stream of another library, on the same device, wait for the work before it.

        ``handle`` is its CUstream; 0 and 1 are the legacy default stream, 2 the calling thread's own.
        """
        status = self._driver.cuStreamWaitEvent(self._driver.CUstream(handle), self.raw, 0)[0]
        if status:
            raise self._device.fault(status, "cuStreamWaitEvent")

    def elapsed_ms(self, since: protocols.Event) -> float:
        """Milliseconds on the device from ``since`` to this event, to about 0.5 µs.

        Both must take times and be reached, else DeviceError. The driver counts in float32: measure from an event nearby.
        """
        return float(self._device.call(self._driver.cuEventElapsedTime, since.raw, self.raw))
