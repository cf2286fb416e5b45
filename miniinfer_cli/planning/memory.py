"""Where each intermediate of a program lives: lifetimes, sharing in place and by view, and offsets in one arena.

Works on numbers only (values are slot numbers, sizes are bytes), so every backend uses the same planner. Its promise,
which the tests check on random programs: two buffers share bytes only where every use of one comes before every use of the
other, unless one was declared a view of the other.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from miniinfer_cli.planning.order import PartialOrder, Positions, list_order

ALIGNMENT = 256  # bytes; what device allocations and vector loads want, and two cache lines beyond false sharing
_AT_ONCE = 8192  # buffers among which gaps are looked for; no network known has as many


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of slot ``of`` from ``offset`` bytes behind its start on, as many as are wanted."""

    of: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class StepUse:
    """What one step does to memory.

    ``views`` maps an output to the part of another slot that it is: of one that is there, as a reshape is; or of one that steps
    write part by part, where the parts must not meet. ``in_place`` maps an output to the inputs, best first, whose buffer the
    step may overwrite with it, provided that nobody reads the input afterwards. ``scratch_nbytes`` is wanted during the step
    alone.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    views: Mapping[int, Part] = field(default_factory=dict)
    in_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    scratch_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Offsets in bytes into an arena of ``arena_nbytes``; ``sum_nbytes`` is what all would take with no sharing at all."""

    offsets: Mapping[int, int]
    scratch_offsets: Mapping[int, int]  # by step number
    arena_nbytes: int
    sum_nbytes: int


def plan_memory(
    steps: Sequence[StepUse], nbytes: Mapping[int, int], outputs: Sequence[int], order: PartialOrder | None = None
) -> MemoryLayout:
    """Lays out the slots in ``nbytes`` (others, such as inputs and constants, live elsewhere).

    ``outputs`` stay alive past the last step. A view of a slot that lives elsewhere lives elsewhere too and has no offset.
    ``order`` says which steps come before which, the list when left out. Raises ValueError where a step reads what another one
    writes, and does not come after it.
    """
    order = list_order(len(steps)) if order is None else order
    uses = _uses(steps, outputs)
    _expect_written(steps, order)
    parts = _share_buffers(steps, nbytes, uses, order)
    sizes: dict[int, int] = {}
    used: dict[int, set[int]] = {}
    for slot, part in parts.items():
        if part.of in nbytes:
            sizes[part.of] = max(sizes.get(part.of, 0), part.offset + nbytes.get(slot, 0))
            used.setdefault(part.of, set()).update(uses.get(slot, ()))
    owners = [s for s in sizes if used[s]]
    scratch_steps = [i for i, step in enumerate(steps) if step.scratch_nbytes]
    lives: list[Collection[int]] = [*(used[s] for s in owners), *([i] for i in scratch_steps)]
    wanted = [sizes[s] for s in owners] + [steps[i].scratch_nbytes for i in scratch_steps]
    placed, total = pack_arena(lives, wanted, order)
    at = dict(zip(owners, placed[: len(owners)], strict=True))
    return MemoryLayout(
        offsets={slot: at[part.of] + part.offset for slot, part in parts.items() if part.of in at and slot in nbytes},
        scratch_offsets=dict(zip(scratch_steps, placed[len(owners) :], strict=True)),
        arena_nbytes=total,
        sum_nbytes=sum(_aligned(n) for n in (*nbytes.values(), *(steps[i].scratch_nbytes for i in scratch_steps))),
    )


def pack_arena(uses: Sequence[Collection[int]], nbytes: Sequence[int], order: PartialOrder) -> tuple[list[int], int]:
    """Offsets for buffers that these steps use (``len(order.lanes)`` is the end of all), and the arena's size in bytes.

    Largest first, each into the lowest gap that fits among those placed already with which it may not share bytes. What has
    been placed when there are ``_AT_ONCE`` of them shares with nothing that comes later, so that time grows with their number.
    """
    count = len(uses)
    if not count:
        return [], 0
    sizes = np.array([_aligned(n) for n in nbytes], np.int64)
    lengths = np.array([max(u) - min(u) for u in uses], np.int64)
    reached = np.array([order.reached(u) for u in uses])
    begun = np.array([order.begun(u) for u in uses])
    lanes = list(zip(reached.T, begun.T, strict=True))
    offsets = np.zeros(count, np.int64)
    placed = np.empty(0, np.int64)  # kept sorted by offset
    base = total = 0
    sequence = np.lexsort((np.arange(count), -lengths, -sizes))
    for run in _equal_runs(sequence, np.column_stack((sizes, reached, begun))[sequence]):
        if len(placed) >= _AT_ONCE:
            placed, base = placed[:0], total
        apart = [(reached[placed] < begun[run[0]], reached[run[0]] < begun[placed]) for reached, begun in lanes]
        ended, waiting = (functools.reduce(np.logical_and, each) for each in zip(*apart, strict=True))
        meets = placed[~(ended | waiting)]
        offsets[run] = _lowest_gaps(offsets[meets], sizes[meets], base, int(sizes[run[0]]), len(run))
        placed = np.insert(placed, np.searchsorted(offsets[placed], offsets[run]), run)
        total = max(total, int(offsets[run[-1]] + sizes[run[-1]]))
    return [int(o) for o in offsets], total


def _equal_runs(sequence: Positions, rows: Positions) -> list[Positions]:
    """``sequence`` cut where the row of a buffer is not that of the one before it."""
    return np.split(sequence, np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1)


def _lowest_gaps(starts: Positions, sizes: Positions, base: int, wanted: int, count: int) -> Positions:
    """``[count]``: the lowest offsets from ``base`` on for so many buffers of ``wanted`` bytes between neighbours, by start."""
    reach = np.maximum.accumulate(np.concatenate(([base], starts + sizes)))
    rooms = np.append(np.maximum(starts - reach[:-1], 0) // wanted, count)  # behind the last there is room for all
    taken = np.minimum(np.cumsum(rooms), count)
    fitted = np.diff(taken, prepend=0)
    nth = np.arange(count) - np.repeat(taken - fitted, fitted)
    return np.asarray(np.repeat(reach, fitted) + nth * wanted, np.int64)


def _uses(steps: Sequence[StepUse], outputs: Sequence[int]) -> dict[int, list[int]]:
    """The steps that use each slot, by what they read, write, and write a part of; the end is a step, too."""
    uses: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        for slot in (*step.reads, *step.writes):
            uses.setdefault(slot, []).append(number)
    for slot in outputs:
        uses.setdefault(slot, []).append(len(steps))
    return uses


def _expect_written(steps: Sequence[StepUse], order: PartialOrder) -> None:
    written: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in step.reads:
            if slot in written and not order.precedes(written[slot], number):
                raise ValueError(f"step {number} reads slot {slot} and does not come after step {written[slot]}, which writes it")
        for slot in step.writes:
            written[slot] = number


def _share_buffers(
    steps: Sequence[StepUse], nbytes: Mapping[int, int], uses: Mapping[int, Sequence[int]], order: PartialOrder
) -> dict[int, Part]:
    """Whose buffer each slot is in: its own, that of the slot it is a part of, or that of the one it overwrites."""
    parts: dict[int, Part] = {}
    reached: dict[int, Positions] = {}  # how far the uses of all slots in a buffer reach, by owner

    def enter(slot: int, part: Part) -> None:
        parts[slot] = part
        found = order.reached(uses.get(slot, ()))
        reached[part.of] = np.maximum(reached[part.of], found) if part.of in reached else found

    for number, step in enumerate(steps):
        for slot in (*step.reads, *(part.of for part in step.views.values())):
            if slot not in parts:
                enter(slot, Part(slot))
        taken: set[int] = set()
        until = order.begun([number])
        until[order.lanes[number]] += 1  # with the step itself
        for slot in step.writes:
            if slot in step.views:
                holder = parts[step.views[slot].of]
                part = Part(holder.of, holder.offset + step.views[slot].offset)
            else:
                part = Part(slot)
                for candidate in step.in_place.get(slot, ()):
                    owner = parts[candidate].of
                    # What else the step reads of that buffer must be the very same bytes.
                    read = {(parts[s], nbytes.get(s)) for s in step.reads if parts[s].of == owner}
                    fits = owner in nbytes and nbytes.get(slot) == nbytes[owner] and read == {(Part(owner), nbytes[owner])}
                    if fits and owner not in taken and bool((reached[owner] < until).all()):
                        part = Part(owner)
                        break
            taken.add(part.of)
            enter(slot, part)
    return parts


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
