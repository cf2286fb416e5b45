"""The form that a pointwise operation has within a chain, and what forms of several files share."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.ir import Array


class Scratch(Protocol):
    """Hands out arrays that stay in one thread."""

    def take(self, key: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of this shape and type, the same memory at each call with this key."""


class _NoScratch:
    """For forms that want none."""

    def take(self, key: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of its own each time."""
        return np.empty(shape, dtype)


NO_SCRATCH: Scratch = _NoScratch()

Elementwise = Callable[[Sequence[Array], Array, Scratch], None]
"""Takes the operands (which broadcast onto ``out``), ``out``, and the thread's scratch.

``out`` may be the same memory as any operand, so nothing may be written to it before the last operand has been read.
"""


def hold_within(x: Array, low: Any, high: Any, out: Array) -> None:
    """``min(max(x, low), high)`` into ``out``; NaN stays. ``low`` and ``high`` are numbers, or arrays that broadcast.

    Numpy's maximum by one number takes three times as long (0.39 ns an element) as its clip by two, whose method takes 1 us less
    than its function.
    """
    x.clip(low, high, out=out)
