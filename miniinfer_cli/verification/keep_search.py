"""The search for what has to keep f32, as a function of a question alone: are the results right when these nodes keep it?"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

Holds = Callable[[frozenset[str]], bool]
"""Whether the results are within tolerance when these nodes keep f32."""


@dataclass(frozen=True, slots=True)
class Searched:
    """``kept``: the nodes that keep f32, in order; ``found``: whether the results are right so; ``trials``: questions asked."""

    kept: tuple[str, ...]
    found: bool
    trials: int


def search_kept(
    names: Sequence[str], holds: Holds, required: Collection[str], most: int, deadline: float, told: Callable[[int, int], None]
) -> Searched:
    """The nodes among ``names``, which are in order, that have to keep f32 besides ``required``; few, not proven fewest.

    With the first nodes in 16 bits and the others in f32 the results are right up to some node and wrong from there on: it is
    found by halving, and kept; and so on, until they are right. At last each that was found is tried in 16 bits once more, for
    some are needed no longer when others are kept. Ends without success when ``most`` were found, when the clock
    (``time.monotonic``) shows ``deadline``, or when f32 throughout is not right either. ``told``: questions asked, nodes kept.
    """
    order = {name: number for number, name in enumerate(names)}
    kept: set[str] = set(required)
    added: list[str] = []
    asked = 0

    def right(more: Collection[str] = ()) -> bool:
        nonlocal asked
        told(asked, len(kept))
        asked += 1
        return holds(frozenset(kept.union(more)))

    def result(found: bool) -> Searched:
        return Searched(tuple(sorted(kept, key=lambda name: order.get(name, -1))), found, asked)

    if right():
        return result(True)  # nothing was added to let go
    if not right(names):
        return result(False)
    while True:
        low, high = 0, len(names)  # right with names[:low] in 16 bits, wrong with names[:high]
        while high - low > 1:
            if time.monotonic() > deadline:
                return result(False)
            middle = (low + high) // 2
            low, high = (middle, high) if right(names[middle:]) else (low, middle)
        if names[high - 1] in kept or len(added) >= most:
            return result(False)  # what is kept already cannot be at fault: the question has no steady answer
        added.append(names[high - 1])
        kept.add(added[-1])
        if right():
            break
    for name in added[:-1]:  # without the last one it was wrong just now
        kept.remove(name)
        if time.monotonic() > deadline or not right():
            kept.add(name)
    return result(True)
