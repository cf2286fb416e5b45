"""A clock that says what a test wants: the emulated device's times mean nothing."""

from collections.abc import Callable, Mapping

from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import LibraryCall, flat

DEFAULT_US = 100.0


class FakeClock:
    """``times``: microseconds by the name of a candidate (its key, and behind it the library's way); others take 100.

    A plan takes the sum over its steps, by the same names; ``plan`` bends that. ``asked``: the names, in order.
    """

    def __init__(self, times: Mapping[str, float], plan: Callable[[CudaProgram, float], float] | None = None) -> None:
        self.times = times
        self._plan = plan
        self.asked: list[str] = []
        self.plans = 0

    def trial_us(self, name: str, measured_us: float) -> float:
        self.asked.append(name)
        return self.times.get(name, DEFAULT_US)

    def plan_us(self, made: CudaProgram, measured_us: float) -> float:
        self.plans += 1
        total = sum(self.times.get(name_of(s), DEFAULT_US) for s in made.steps if isinstance(s, DeviceStep))
        return total if self._plan is None else self._plan(made, total)


def name_of(step: DeviceStep) -> str:
    """As a candidate of the step's tactic and way is called."""
    variants = [a.variant for a in flat(step.actions) if isinstance(a, LibraryCall)]
    return " ".join([step.tactic, *(v.brief for v in variants if v is not None)])
