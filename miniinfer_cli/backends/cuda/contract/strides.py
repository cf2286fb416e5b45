"""Strides: elements between neighbours along each axis of a value in its buffer, the last axis the fastest. Pure arithmetic."""

import math
from collections.abc import Sequence


def row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    """The strides of a dense tensor."""
    return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))


def broadcast_strides(operand: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Strides along the axes of ``shape`` of a dense tensor of shape ``operand`` that is broadcast to it; 0 where it is repeated.

    An operand with more axes has one element along those in front.
    """
    return spread_strides(operand, row_major(operand), shape)


def spread_strides(operand: Sequence[int], strides: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """The same for an operand of any ``strides``."""
    fitted = ((1,) * len(shape) + tuple(operand))[len(operand) :]
    walked = ((0,) * len(shape) + tuple(strides))[len(operand) :]
    return tuple(0 if n == 1 else s for n, s in zip(fitted, walked, strict=True))


def merge_axes(sizes: Sequence[int], *strides: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The sizes and each of the strides with axes of one element dropped, and neighbours joined where all strides allow."""
    kept: list[int] = []
    walks: list[list[int]] = [[] for _ in strides]
    for i, size in enumerate(sizes):
        if size == 1:
            continue
        if kept and all(w[-1] == s[i] * size for w, s in zip(walks, strides, strict=True)):
            kept[-1] *= size
        else:
            kept.append(size)
            for w in walks:
                w.append(0)
        for w, s in zip(walks, strides, strict=True):
            w[-1] = s[i]
    return tuple(kept), [tuple(w) for w in walks]


def is_dense(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """True when the elements lie one behind the other, in the order of the axes."""
    return 0 in sizes or all(n == 1 or s == d for n, s, d in zip(sizes, strides, row_major(sizes), strict=True))


def is_in_rows(sizes: Sequence[int], strides: Sequence[int], unit: int) -> bool:
    """True when the elements of the last axis lie side by side, and rows begin ``unit`` elements, or a multiple, apart."""
    if not sizes or (sizes[-1] != 1 and strides[-1] != 1):
        return False
    return all(n == 1 or s % unit == 0 for n, s in zip(sizes[:-1], strides[:-1], strict=True))


def reach(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first one to the last, both counted; no size is 0."""
    return 1 + sum(abs(s) * (n - 1) for n, s in zip(sizes, strides, strict=True))


def settled_strides(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The strides, with those of axes of one element, which mean nothing, as if all behind them lay in one piece."""
    found: list[int] = []
    behind = 1
    for n, stride in zip(reversed(sizes), reversed(strides), strict=True):
        found.append(behind if n == 1 else stride)
        behind = found[-1] * n
    return tuple(reversed(found))


def reshaped(sizes: Sequence[int], strides: Sequence[int], to: Sequence[int]) -> tuple[int, ...] | None:
    """The strides of the same elements as an array of sizes ``to``; None where no strides say that."""
    if 0 in to:
        return row_major(to)
    merged, (walk,) = merge_axes(sizes, strides)
    runs = list(zip(merged, walk, strict=True))
    found: list[int] = []
    left, step = 1, 1  # elements of a run that are yet to be shared out, and how far they lie apart
    for n in reversed(to):
        if n != 1 and left == 1:
            left, step = runs.pop()
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(reversed(found))
