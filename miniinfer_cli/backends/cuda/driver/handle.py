"""What the driver made for us and wants back: one owner, closed once."""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, Self

from miniinfer_cli.backends.cuda.contract import protocols
from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchLimits
from miniinfer_cli.backends.cuda.driver.quick_calls import QuickCalls
from miniinfer_cli.errors import MiniinferError


class Owner(Protocol):
    """The device, as what lives on it sees it; see ``device.Device``."""

    ordinal: int
    driver: Any
    quick: QuickCalls
    orphans: deque[tuple[Callable[..., Any], Any]]

    @property
    def shared_nbytes(self) -> int:
        """See Device."""

    @property
    def launch_limits(self) -> LaunchLimits:
        """See Device."""

    def make_current(self) -> None:
        """See Device."""

    def available_memory(self) -> int:
        """See Device."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """See Device."""

    def fault(self, status: Any, call: str) -> MiniinferError:
        """See Device."""

    def forget_capture_fault(self) -> str | None:
        """See Device."""

    def is_ready(self, query: Callable[..., Any], raw: Any) -> bool:
        """See Device."""

    def create_event(self, *, timing: bool = False) -> protocols.Event:
        """See Device."""

    def adopt(self, handle: "Handle") -> None:
        """See Device."""

    def destroy(self, destroy: Callable[..., Any], raw: Any) -> None:
        """See Device."""


class Handle:
    """A resource of a device, given back by ``close()``, by ``with``, or when its device is closed; once.

    An owner that is dropped unclosed never calls the driver from the garbage collector, which may run in the middle of a
    capture, on any thread: its resource is noted in ``device.orphans``, and the device gives that back when something is next
    allocated, created or closed.
    """

    def __init__(self, device: Owner, destroy: Callable[..., Any], raw: Any) -> None:
        self._device = device
        self._last_resort = weakref.finalize(self, device.orphans.append, (destroy, raw))
        # At exit the driver frees everything by itself, and may be gone before we are.
        self._last_resort.atexit = False
        device.adopt(self)

    @property
    def closed(self) -> bool:
        """True once the resource was given back."""
        return not self._last_resort.alive

    def close(self) -> None:
        """Gives the resource back; does nothing the second time. Raises DeviceError when the driver refuses."""
        alive = self._last_resort.detach()
        if alive is not None:
            destroy, raw = alive[2][0]
            self._device.destroy(destroy, raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
