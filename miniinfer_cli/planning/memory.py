"""Where each intermediate of a program lives: lifetimes, sharing in place and by view, and offsets in one arena.

Works on numbers only (values are slot numbers, sizes are bytes), so every backend uses the same planner. Its promise,
which the tests check on random programs: two buffers that are alive at the same step never overlap, unless one was
declared a view of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 256  # bytes; what device allocations and vector loads want, and two cache lines beyond false sharing


@dataclass(frozen=True, slots=True)
class StepUse:
    """What one step does to memory.

    ``views`` maps an output to the input whose bytes it is (a reshape). ``in_place`` maps an output to the inputs, best
    first, whose buffer the step may overwrite with it, provided that nobody reads the input afterwards.
    ``scratch_nbytes`` is wanted during the step alone.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    views: Mapping[int, int] = field(default_factory=dict)
    in_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    scratch_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Offsets in bytes into an arena of ``arena_nbytes``; ``sum_nbytes`` is what all would take with no sharing at all."""

    offsets: Mapping[int, int]
    scratch_offsets: Mapping[int, int]  # by step number
    arena_nbytes: int
    sum_nbytes: int


def plan_memory(steps: Sequence[StepUse], nbytes: Mapping[int, int], outputs: Sequence[int]) -> MemoryLayout:
    """Lays out the slots in ``nbytes`` (others, such as inputs and constants, live elsewhere).

    ``outputs`` stay alive past the last step. A view of a slot that lives elsewhere lives elsewhere too and has no offset.
    """
    root = _share_buffers(steps, nbytes, outputs)
    first, last = _lifetimes(steps, root, outputs)
    sizes: dict[int, int] = {}
    for slot, owner in root.items():
        if owner in nbytes:
            sizes[owner] = max(sizes.get(owner, 0), nbytes.get(slot, 0))
    owners = [s for s in sizes if s in first]
    scratch_steps = [i for i, step in enumerate(steps) if step.scratch_nbytes]
    spans = [(first[s], last[s]) for s in owners] + [(i, i) for i in scratch_steps]
    wanted = [sizes[s] for s in owners] + [steps[i].scratch_nbytes for i in scratch_steps]
    placed, total = pack_arena(spans, wanted)
    at = dict(zip(owners, placed[: len(owners)], strict=True))
    return MemoryLayout(
        offsets={slot: at[owner] for slot, owner in root.items() if owner in at and slot in nbytes},
        scratch_offsets=dict(zip(scratch_steps, placed[len(owners) :], strict=True)),
        arena_nbytes=total,
        sum_nbytes=sum(_aligned(n) for n in (*nbytes.values(), *(steps[i].scratch_nbytes for i in scratch_steps))),
    )


def pack_arena(spans: Sequence[tuple[int, int]], nbytes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets for buffers alive over ``spans`` (first and last step, both included), and the arena's size in bytes.

    Largest first, each into the lowest gap that fits among those placed already whose spans meet its own.
    """
    count = len(spans)
    sizes = np.array([_aligned(n) for n in nbytes], np.int64)
    first = np.array([s[0] for s in spans], np.int64)
    last = np.array([s[1] for s in spans], np.int64)
    offsets = np.zeros(count, np.int64)
    order = np.lexsort((np.arange(count), first - last, -sizes))
    placed = np.empty(0, np.int64)  # kept sorted by offset
    total = 0
    for i in order:
        meets = placed[(first[placed] <= last[i]) & (last[placed] >= first[i])]
        starts, ends = offsets[meets], offsets[meets] + sizes[meets]
        # The lowest gap: after each neighbour, where does the next one begin?
        reach = np.concatenate(([0], np.maximum.accumulate(ends))) if len(meets) else np.zeros(1, np.int64)
        gaps = np.append(starts - reach[:-1], sizes[i]) >= sizes[i]
        offset = reach[int(np.argmax(gaps))]
        offsets[i] = offset
        placed = np.insert(placed, int(np.searchsorted(offsets[placed], offset)), i)
        total = max(total, int(offset + sizes[i]))
    return [int(o) for o in offsets], total


def _share_buffers(steps: Sequence[StepUse], nbytes: Mapping[int, int], outputs: Sequence[int]) -> dict[int, int]:
    """The owner of each slot's buffer: itself, or the slot it is a view of or overwrites."""
    root: dict[int, int] = {}
    views_of: dict[int, list[int]] = {}  # slots whose contents live in a buffer, by owner
    last_read: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in step.reads:
            last_read[slot] = number
    kept = set(outputs)
    for number, step in enumerate(steps):
        for slot in step.reads:
            root.setdefault(slot, slot)
        taken: set[int] = set()
        for slot in step.writes:
            if slot in step.views:
                owner = root.setdefault(step.views[slot], step.views[slot])
            else:
                owner = slot
                for candidate in step.in_place.get(slot, ()):
                    holder = root.get(candidate, candidate)
                    sharers = views_of.get(holder, [holder])
                    if (
                        holder in nbytes
                        and holder not in taken
                        and nbytes.get(candidate) == nbytes.get(slot)
                        and not any(s in kept or last_read.get(s, -1) > number for s in sharers)
                    ):
                        owner = holder
                        break
            taken.add(owner)
            root[slot] = owner
            views_of.setdefault(owner, [owner] if owner != slot else []).append(slot)
    return root


def _lifetimes(
    steps: Sequence[StepUse], root: Mapping[int, int], outputs: Sequence[int]
) -> tuple[dict[int, int], dict[int, int]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in (*step.reads, *step.writes):
            owner = root[slot]
            first.setdefault(owner, number)
            last[owner] = number
    for slot in outputs:
        if root.get(slot, slot) in first:
            last[root[slot]] = len(steps)
    return first, last


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
