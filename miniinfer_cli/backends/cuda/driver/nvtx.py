"""Named ranges for NVIDIA's profilers, through the package nvtx; they cost next to nothing while no profiler looks."""

from collections.abc import Callable
from typing import Any

from miniinfer_cli.errors import DeviceError

_DOMAIN = "miniinfer"


class Ranges:
    """Ranges nest: every ``push`` has its ``pop``, on the same thread."""

    def __init__(self, nvtx: Any) -> None:
        """Use ``open_ranges``. ``nvtx`` is the package."""
        self._push: Callable[..., Any] = nvtx.push_range
        self._pop: Callable[..., Any] = nvtx.pop_range

    def push(self, text: str) -> None:
        """Begins a range of this name."""
        self._push(text, domain=_DOMAIN)

    def pop(self) -> None:
        """Ends the range that was begun last."""
        self._pop(domain=_DOMAIN)


def open_ranges() -> Ranges:
    """Raises DeviceError where the package is not installed."""
    try:
        import nvtx
    except ImportError as error:
        raise DeviceError(f"NVTX ranges were asked for, and {error}", hint="pip install nvtx") from error
    return Ranges(nvtx)
