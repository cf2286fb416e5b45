"""Weights on their way into the L2 cache before the kernel that reads them begins: a product brings those of the next one.

Between two products the memory is idle while other kernels run, which read little that is not in the cache; and a product that
begins early may find no room to. Only constants are read ahead, so nothing waits, and lifetimes stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.program import DeviceStep, Place, PlacedAction
from miniinfer_cli.backends.cuda.contract.steps import Launch
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import bringing, weights_of

MOST_AHEAD = 16 << 20
"""Bytes that are brought into the cache at once, at most: it holds the activations, too."""


def fetch_ahead(steps: Sequence[DeviceStep]) -> list[DeviceStep]:
    """The steps of a segment, in which each product of few tokens brings along the weights of the next one behind it."""
    following: tuple[Place, int] | None = None
    changed = []
    for step in reversed(steps):
        actions: list[PlacedAction] = []
        for action in reversed(step.actions):
            found = weights_of(action) if isinstance(action, Launch) else None
            if isinstance(action, Launch) and found is not None:
                if following is not None and following != found and following[1] <= MOST_AHEAD:
                    action = bringing(action, *following)
                following = found
            actions.append(action)
        changed.append(replace(step, actions=tuple(reversed(actions))))
    return changed[::-1]
