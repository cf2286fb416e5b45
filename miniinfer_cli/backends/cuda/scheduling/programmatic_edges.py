"""The rules of programmatic launches that can be told from a program, with no device.

A kernel that is launched so may run while the one in front of it does. Every block of it waits (``griddepcontrol.wait``) on every
path before it first writes to global memory, and before it first reads there what a kernel of this replay made, however many
kernels ago. Then what ended is transitive: whoever waits for the kernel in front waits for all before it, and memory may be
planned as if kernels ran one after the other. Only a kernel of ours can let the next one begin, so nothing else may be in front.
A kernel whose first statement is ``mi_take_turn()`` keeps all of this. Of one that waits in another way, nobody can tell from
here that the wait stands on every path: the emulated device and a GPU show it (``tests``).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from miniinfer_cli.backends.cuda.codegen.sources import kernel_text
from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_OVERLAPPING_SHARED
from miniinfer_cli.backends.cuda.contract.program import DeviceStep, Place, PlacedAction
from miniinfer_cli.backends.cuda.contract.steps import AnyAction, Kernel, Launch, Once, Repeat

BEGIN_EARLY = frozenset(
    {
        "pointwise",
        *("normalize_rows", "normalize_computed", "normalize_by", "batch_normalize", "store_statistics"),
        *("reduce_rows", "reduce_columns", "softmax_rows"),
        *("gemv_along_k", "gemv_along_n", "add_parts"),
        "row_product",
        *("conv_depthwise", "depthwise_tiles"),
        "excitation",
        *("product_sm90", "large_product", "narrow_product", "byte_product"),
        "squeeze_excitation",
        "attention_sm90",
        *("cached_attention", "combine_cached", "cached_in_cluster"),
    }
)
"""The kernels that begin before the one in front has ended, wherever the rules allow it: those of the families that measured
faster so (docs/gpu-results.md). Softmax along columns waits for its turn as well, and was slower with one image."""
FILLS = frozenset({"product_sm90", "large_product", "narrow_product", "byte_product", "squeeze_excitation"})
"""Those that were measured faster so though no second grid fits beside them: its blocks begin where one of theirs has ended; and
one of few blocks, beside which multiprocessors are free."""
_WAITS = re.compile(r"\b(mi_take|await)_turn\(\)|griddepcontrol\.wait")


def begin_early(steps: Sequence[DeviceStep]) -> list[DeviceStep]:
    """The steps of a segment, in which every launch of ``BEGIN_EARLY`` that may be is programmatic."""
    fronts: dict[tuple[int, ...], list[Once[Any] | None]] = {}
    for at, before, _ in _pairs(steps):
        fronts.setdefault(at, []).append(before)

    def changed(action: AnyAction[Place], at: tuple[int, ...]) -> AnyAction[Place]:
        if isinstance(action, Repeat):
            return replace(action, actions=tuple(changed(a, (*at, n)) for n, a in enumerate(action.actions)))  # type: ignore[misc]
        if not isinstance(action, Launch) or action.kernel.name not in BEGIN_EARLY:
            return action
        if any(edge_fault(before, action) is not None for before in fronts.get(at, [None])):
            return action
        return replace(action, attributes=replace(action.attributes, programmatic=True))

    def actions(number: int, step: DeviceStep) -> tuple[PlacedAction, ...]:
        return tuple(changed(a, (number, n)) for n, a in enumerate(step.actions))

    return [replace(step, actions=actions(number, step)) for number, step in enumerate(steps)]


def expect_sound_edges(steps: Sequence[DeviceStep]) -> None:
    """Raises ValueError, with the step's name, for a programmatic launch in a segment that breaks a rule."""
    for at, before, action in _pairs(steps):
        if isinstance(action, Launch) and action.attributes.programmatic:
            why = edge_fault(before, action)
            if why is not None:
                raise ValueError(f"{steps[at[0]].label}: kernel {action.kernel.name} is launched programmatically: {why}")


def edge_fault(before: Once[Any] | None, launch: Launch[Any]) -> str | None:
    """Why ``launch`` may not begin early behind ``before``, None for nothing on the device; None when it may."""
    if not isinstance(before, Launch):
        return f"what comes before is {'nothing' if before is None else type(before).__name__}, and must be a launch"
    for one in (before, launch):
        if one.shared_nbytes > MOST_OVERLAPPING_SHARED and one.kernel.name not in FILLS:
            least = f"two grids fit together with {MOST_OVERLAPPING_SHARED} each"
            return f"{one.kernel.name} takes {one.shared_nbytes} bytes of shared memory, and {least}"
    return None if _waits(launch.kernel) else "it never waits for the kernel in front"


def _pairs(steps: Sequence[DeviceStep]) -> Iterator[tuple[tuple[int, ...], Once[Any] | None, Once[Any]]]:
    """Each action with what comes before it, both ways for the first one of a Repeat; and where it is.

    That is the number of its step, its own within that, and its own within a Repeat.
    """
    before: Once[Any] | None = None
    for number, step in enumerate(steps):
        for place, action in enumerate(step.actions):
            if not isinstance(action, Repeat):
                yield (number, place), before, action
                before = action
                continue
            if action.rounds > 1:
                yield (number, place, 0), action.actions[-1], action.actions[0]
            for inner, one in enumerate(action.actions if action.rounds else ()):
                yield (number, place, inner), before, one
                before = one


@cache
def _waits(kernel: Kernel) -> bool:
    return _WAITS.search(body_of(kernel)) is not None


def body_of(kernel: Kernel) -> str:
    """The text of the kernel's function between its braces; empty where its text has no such function.

    Comments and strings with braces are no matter for texts of ours, which have them in pairs.
    """
    text = kernel_text(kernel)
    head = re.search(rf'extern "C" __global__ void [^;{{}}]*?\b{re.escape(kernel.name)}\(', text)
    if head is None:
        return ""
    start = text.index("{", head.end())
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[start + 1 : at]
    return ""
