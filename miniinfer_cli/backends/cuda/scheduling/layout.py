"""The order of a program's steps, and the memory that follows from it.

Steps come one after the other, as they were made. Whatever knows a better order gives another partial order to the planner.
"""

from collections.abc import Collection, Sequence

from miniinfer_cli.backends.cuda.contract.program import DeviceStep, Origin, Slot, Step
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.planning.memory import MemoryLayout, Part, StepUse, plan_memory
from miniinfer_cli.planning.order import list_order


def lay_out_memory(
    slots: Sequence[Slot],
    steps: Sequence[Step],
    views: Sequence[tuple[int, int, int]],
    outputs: Sequence[int],
    elsewhere: Collection[int],
    uploads: Collection[int],
) -> MemoryLayout:
    """The arena for what steps compute and what host steps send, ``uploads``; roots in ``elsewhere`` lie in regions of their own.

    ``views``: the number of the step in front of which a view appears, the view, and the slot that it shows.
    """
    nbytes = {
        i: s.nbytes
        for i, s in enumerate(slots)
        if ((s.origin is Origin.DEVICE and s.root not in elsewhere) or i in uploads) and static_tensor(s.type) is not None
    }
    shown: dict[int, list[tuple[int, int]]] = {}
    for at, view, source in views:
        shown.setdefault(at, []).append((view, source))
    uses: list[StepUse] = []
    number_of: list[int] = []
    for number in range(len(steps) + 1):
        for view, source in shown.get(number, ()):
            uses.append(StepUse((source,), (view,), {view: Part(slots[view].root, slots[view].offset)}))
        if number < len(steps):
            number_of.append(len(uses))
            uses.append(_use_of(steps[number], slots))
    layout = plan_memory(uses, nbytes, outputs, list_order(len(uses)))
    scratch = {n: layout.scratch_offsets[at] for n, at in enumerate(number_of) if at in layout.scratch_offsets}
    return MemoryLayout(layout.offsets, scratch, layout.arena_nbytes, layout.sum_nbytes)


def _use_of(step: Step, slots: Sequence[Slot]) -> StepUse:
    if isinstance(step, DeviceStep):
        parts = {s: Part(slots[s].root, slots[s].offset) for s in step.writes if slots[s].root != s}
        return StepUse(step.reads, step.writes, parts, step.in_place, step.scratch_nbytes)
    read = [s for s in step.inputs if s is not None]
    counts = [c for s in read if (c := slots[s].count) is not None]  # the host reads them, too
    return StepUse((*read, *counts), step.outputs)
