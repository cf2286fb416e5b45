"""What measured times are taken to be: as the device tells them. A stand-in makes tuning testable where times mean nothing."""

from collections.abc import Callable
from typing import Protocol

from miniinfer_cli.backends.cuda.contract.program import CudaProgram

Progress = Callable[[str, float], None]
"""Is told what is being done, and how much of all is done, from 0 to 1."""


class Clock(Protocol):
    """Times in microseconds."""

    def trial_us(self, name: str, measured_us: float) -> float:
        """What a candidate of this name took."""

    def plan_us(self, made: CudaProgram, measured_us: float) -> float:
        """What a whole program took."""


class DeviceClock:
    """The device's own times."""

    def trial_us(self, name: str, measured_us: float) -> float:
        """As measured."""
        return measured_us

    def plan_us(self, made: CudaProgram, measured_us: float) -> float:
        """As measured."""
        return measured_us
