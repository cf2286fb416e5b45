"""Which cuts of attention on sm_90 there are, and what they take, about."""

import itertools
import math
from collections.abc import Iterator

from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import ROWS, Cut, tiling_of

_LEAST_KEYS = 64
_MOST_STEPS_AHEAD = 4
_CLOCKS_PER_US = 1900.0
_FLOPS_PER_CLOCK = 4096.0  # of a multiprocessor's matrix units
_SOFTMAX_PER_CLOCK = 9.3  # scores of a multiprocessor: an exponential is one of 16 a clock, the rest one of 22
_LAUNCH_US = 1.4
_BLOCK_US = 1.8  # from a block's beginning to its first keys, and from its last sums to its end
_TEAM_PER_CLOCK = 3.0  # scores of a warpgroup by itself
_PUT_TOGETHER_US = 0.15
_NBYTES_PER_US = 32e3  # that a multiprocessor gets, when all of them ask


def cuts_of(form: Form, multiprocessors: int) -> list[Cut]:
    """Cuts that the kernel has, the fastest first by ``_cost_us``."""
    fitting = (cut for cut in dict.fromkeys(_all(form)) if not cut.fault(form))
    return sorted(fitting, key=lambda cut: _cost_us(form, cut, multiprocessors))


def _all(form: Form) -> Iterator[Cut]:
    tiles = tiling_of(form).tiles
    for groups, parts in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3)):
        if groups > tiles:
            continue
        for steps in itertools.count(1):
            keys = -(-form.keys // (steps * 16)) * 16
            if keys < _LEAST_KEYS and steps > 1:
                break
            if keys <= 256 and steps >= parts:
                ahead = min(steps, _MOST_STEPS_AHEAD) // parts * parts
                yield Cut(groups, keys, ahead, parts)
                if ahead > 2 * parts:
                    yield Cut(groups, keys, 2 * parts, parts)


def _cost_us(form: Form, cut: Cut, multiprocessors: int) -> float:
    """Microseconds, about, with plain edges: what a block takes by itself, or what those beside each other share."""
    tiling, steps = tiling_of(form), -(-form.keys // cut.keys)
    blocks = form.batch * form.kv_heads * -(-tiling.tiles // cut.groups)
    seen = 0.5 + 0.5 / tiling.tiles if form.causal and form.queries > 1 else 1.0  # of the steps
    pairs = seen * steps * cut.keys * ROWS * cut.groups
    products = 2 * pairs * (form.size + form.v_size) / _FLOPS_PER_CLOCK
    alone = pairs / cut.groups / cut.parts / _TEAM_PER_CLOCK
    together = max(products, pairs / _SOFTMAX_PER_CLOCK)
    nbytes = (ROWS * cut.groups + seen * steps * cut.keys) * (form.size + form.v_size) * element_nbytes(form.dtype)
    beside = min(cut.residents(form), math.ceil(blocks / multiprocessors))
    own = _BLOCK_US + alone / _CLOCKS_PER_US + _PUT_TOGETHER_US * (cut.parts - 1)
    shared = beside * max(together / _CLOCKS_PER_US, nbytes / _NBYTES_PER_US)
    return _LAUNCH_US + max(1.0, blocks / (multiprocessors * beside)) * max(own, shared)
