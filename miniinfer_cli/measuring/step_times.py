"""The time of each step of a program, as medians over several inferences."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.backends.interface import LaunchedKernel
from miniinfer_cli.measuring.benchmark import Progress, unwatched
from miniinfer_cli.runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step: the node's name, its operation, how it runs, and the median, least and most milliseconds it took.

    ``choice``: who chose that, over what; ``estimate``: what it does at least. None where nobody chose, or knows.
    ``kernels``: those that it launches on a GPU.
    """

    label: str
    kind: str
    tactic: str
    choice: Choice | None
    estimate: Estimate | None
    median_ms: float
    min_ms: float
    max_ms: float
    kernels: Sequence[LaunchedKernel] = ()

    @property
    def chooser(self) -> str:
        """Who chose how it runs, in a word; empty where nobody did."""
        return "" if self.choice is None else str(self.choice.chosen_by)

    @property
    def choosers(self) -> str:
        """The same behind who chose the join, where that is another."""
        join = None if self.choice is None else self.choice.join
        return ", ".join(dict.fromkeys([str(join.chosen_by), self.chooser] if join is not None else [self.chooser]))

    @property
    def how(self) -> str:
        """How it runs; behind the key of a join, where it does the work of several nodes."""
        return self.tactic if self.choice is None else self.choice.how

    @property
    def tuned_us(self) -> float | None:
        """What the tactic took when it was tuned, in microseconds; None where nobody timed it."""
        return None if self.choice is None else self.choice.time_us

    @property
    def rates(self) -> tuple[str, str]:
        """GB and 1e9 operations a second that the estimate comes to in the median time; empty where nobody knows."""
        if self.estimate is None or not self.median_ms:
            return "", ""
        return f"{self.estimate.nbytes / self.median_ms / 1e6:.0f}", f"{self.estimate.flops / self.median_ms / 1e6:.0f}"

    def to_json(self) -> dict[str, Any]:
        """The step with stable keys."""
        return {
            "node": self.label,
            "operation": self.kind,
            "tactic": self.tactic,
            "chosen_by": self.chooser or None,
            "tuned_us": self.tuned_us,
            "join": self._join(),
            "refused": [asdict(r) for r in self.choice.refused] if self.choice is not None else [],
            "flops": None if self.estimate is None else self.estimate.flops,
            "bytes": None if self.estimate is None else self.estimate.nbytes,
            "median_ms": self.median_ms,
            "min_ms": self.min_ms,
            "max_ms": self.max_ms,
            "kernels": [
                {"kernel": k.kernel, "registers": k.registers, "local_bytes": k.local_nbytes, "shared_bytes": k.shared_nbytes}
                for k in self.kernels
            ],
        }

    def _join(self) -> dict[str, Any] | None:
        join = None if self.choice is None else self.choice.join
        if join is None:
            return None
        return {"key": join.key, "chosen_by": str(join.chosen_by), "nodes": list(join.nodes), "tuned_us": join.time_us}


def time_steps(engine: Engine, arrays: Sequence[Any], iterations: int, progress: Progress = unwatched) -> list[StepTime]:
    """Times every step of the program for ``arrays`` over ``iterations`` inferences, after one to warm up; program order.

    ``progress`` is called with ``nodes`` and the number of inferences done.
    """
    program = engine.program(list(arrays))
    runs: list[list[int]] = []
    with engine.create_context() as context:
        context.run_arrays(list(arrays))
        for done in range(iterations):
            progress("nodes", done)
            times_ns: list[int] = []
            context.run_arrays(list(arrays), times_ns)
            runs.append(times_ns)
    columns = [[t / 1e6 for t in times] for times in zip(*runs, strict=True)]
    return [
        StepTime(
            *(step.label, step.kind, step.tactic, step.choice, step.estimate),
            *(statistics.median(times), min(times), max(times)),
            kernels,
        )
        for step, kernels, times in zip(program.steps, program.launched_kernels(), columns, strict=True)
    ]
