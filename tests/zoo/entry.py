"""One network of the zoo: how to make it, and what of its outputs can be compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Make = Callable[[], tuple[Any, dict[str, Any]]]
"""Gives a module in evaluation mode and random inputs by name; torch is imported when it is called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """``make`` gives the module and its inputs.

    ``ranked``: the first output are scores, and everything else stands in their order, which untrained weights leave to
    chance: only the scores are compared, in falling order.
    """

    make: Make
    ranked: bool = False


def flat(output: Any) -> list[Any]:
    """The tensors of a module's output, whatever they are wrapped in."""
    if hasattr(output, "detach"):
        return [output]
    items = output.values() if hasattr(output, "values") else output
    return [t for item in items if item is not None for t in flat(item)]
