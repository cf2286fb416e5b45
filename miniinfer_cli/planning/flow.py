"""Which step of a program reads what which other wrote: the program as a graph, for who wants to see it."""

from collections.abc import Callable, Iterable


def sources_of(
    steps: Iterable[tuple[Iterable[int], Iterable[int]]], root: Callable[[int], int] = lambda slot: slot
) -> tuple[tuple[int, ...], ...]:
    """For each step, the numbers of the earlier ones whose results it reads, in order.

    Steps are given as the slots that they read and those that they write. ``root``: the slot whose bytes a slot shares; a slot
    that no step wrote was written by those who wrote parts of its root's bytes.
    """
    writers: dict[int, list[int]] = {}
    of_root: dict[int, list[int]] = {}
    found = []
    for number, (reads, writes) in enumerate(steps):
        earlier = {n for slot in reads for n in writers.get(slot, of_root.get(root(slot), []))}
        found.append(tuple(sorted(earlier)))
        for slot in writes:
            writers.setdefault(slot, []).append(number)
            of_root.setdefault(root(slot), []).append(number)
    return tuple(found)
