"""What belongs to CUDA belongs to the process that made it: a forked child has only copies of the numbers."""

from engine_format.forking import fork_count
from miniinfer_cli.backends.cuda.driver.presence import FORK_HINT
from miniinfer_cli.errors import DeviceError


class ForkGuard:
    """Tells the process that opened ``device`` (as flags spell it) from its children."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._forks = fork_count()

    @property
    def is_child(self) -> bool:
        """True in a child. What is closed there is the parent's, and stays as it is."""
        return self._forks != fork_count()

    def check(self) -> None:
        """Raises DeviceError in a child."""
        if self._forks != fork_count():
            raise DeviceError(
                "opened before this process was forked, and CUDA does not survive a fork", hint=FORK_HINT, where=(self._device,)
            )
