"""Attention over a cache of which each slot of the batch holds some rows: what lies behind them is not looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time, lowers, shape_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.attention import attention

_MASK, _PAST_KEY, _PAST_VALUE, _SEEN = 3, 4, 5, 6


@lowers("Attention")
def lower_attention(site: Site) -> Routine | None:
    """The reference, slot by slot over the keys that there are; so a slot's results are the same whatever the others hold."""
    kinds = [*site.inputs, *(None,) * (_SEEN + 1 - len(site.inputs))]
    if kinds[_SEEN] is None or kinds[_PAST_KEY] is not None or kinds[_PAST_VALUE] is not None or len(site.outputs) != 1:
        return None
    q, k = shape_of(kinds[0]), shape_of(kinds[1])
    axis = len(k) - 2
    mask = None if kinds[_MASK] is None else shape_of(kinds[_MASK])
    if mask is not None and (len(mask) < 2 or mask[-1] != k[axis]):
        return None
    by_slot = mask is not None and len(mask) == 4 and mask[0] == q[0] != 1
    attrs = dict(site.node.attrs)

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        seen = np.asarray(inputs[_SEEN]).reshape(-1)
        for slot in range(q[0]):
            part = slice(slot, slot + 1)
            count = min(max(int(seen[slot]), 0), k[axis])
            rows = (part, *(slice(None),) * (axis - 1), slice(count))
            shown = None
            if mask is not None:
                shown = (inputs[_MASK][part] if by_slot else inputs[_MASK])[..., :count]
            (y,) = attention(
                inputs[0][part], inputs[1][rows], inputs[2][rows], shown, None, None, seen[part], for_each=site.threads, **attrs
            )
            outputs[0][part] = y

    return Routine(each_time(run), tactic="by length")
