"""The rules of programmatic launches that can be told from a program, with no device.

A kernel that is launched so may run while the one in front of it does. Every block of it waits (``griddepcontrol.wait``) on every
path before it first writes to global memory, and before it first reads there what a kernel of this replay made, however many
kernels ago. Then what ended is transitive: whoever waits for the kernel in front waits for all before it, and memory may be
planned as if kernels ran one after the other. Only a kernel of ours can let the next one begin, so nothing else may be in front.
That the wait stands on every path, nobody can tell from here: a GPU shows it (``tests/gpu``).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from miniinfer_cli.backends.cuda.launch_attributes import MOST_OVERLAPPING_SHARED
from miniinfer_cli.backends.cuda.program import DeviceStep
from miniinfer_cli.backends.cuda.sources import whole_text
from miniinfer_cli.backends.cuda.steps import Kernel, Launch, Once, Repeat

_WAITS = "griddepcontrol.wait"


def expect_sound_edges(steps: Sequence[DeviceStep]) -> None:
    """Raises ValueError, with the step's name, for a programmatic launch in a segment that breaks a rule."""
    for label, before, action in _pairs(steps):
        if isinstance(action, Launch) and action.attributes.programmatic:
            why = edge_fault(before, action)
            if why is not None:
                raise ValueError(f"{label}: kernel {action.kernel.name} is launched programmatically: {why}")


def edge_fault(before: Once[Any] | None, launch: Launch[Any]) -> str | None:
    """Why ``launch`` may not begin early behind ``before``, None for nothing on the device; None when it may."""
    if not isinstance(before, Launch):
        return f"what comes before is {'nothing' if before is None else type(before).__name__}, and must be a launch"
    for one in (before, launch):
        if one.shared_nbytes > MOST_OVERLAPPING_SHARED:
            least = f"two grids fit together with {MOST_OVERLAPPING_SHARED} each"
            return f"{one.kernel.name} takes {one.shared_nbytes} bytes of shared memory, and {least}"
    return None if _waits(launch.kernel) else f"it never waits for the kernel in front ({_WAITS})"


def _pairs(steps: Sequence[DeviceStep]) -> Iterator[tuple[str, Once[Any] | None, Once[Any]]]:
    """Each action with what comes before it, both ways for the first one of a Repeat; and the name of its step."""
    before: Once[Any] | None = None
    for step in steps:
        for action in step.actions:
            if isinstance(action, Repeat):
                if action.rounds > 1:
                    yield step.label, action.actions[-1], action.actions[0]
                inner = action.actions if action.rounds else ()
            else:
                inner = (action,)
            for one in inner:
                yield step.label, before, one
                before = one


@cache
def _waits(kernel: Kernel) -> bool:
    return _WAITS in whole_text(kernel)
