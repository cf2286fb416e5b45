"""LinearAttention."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type
from miniinfer_cli.backends.cuda.launching.grids import power_of_two_from
from miniinfer_cli.ops.element_types import FLOATS

_PAST, _DECAY, _BETA = 3, 4, 5
_THREADS = 128
_LANES = 8, 32
_SMALL_STATE = 256  # rows up to which few threads hold a column
_STEP_FLOPS = 4  # for each element of a state and token: decay, update, and a product and sum of each query


@lowers("LinearAttention")
def lower_linear_attention(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """A few threads per column of a head's state, through all tokens."""
    dtype = site.dtype()
    state = site.dtype(_PAST) if site.has(_PAST) else dtype
    if dtype not in FLOATS or state not in FLOATS or not site.gives(1):  # the kernel writes the state
        return None
    heads = site.attr("kv_num_heads")
    batch, length, width = site.shape(1)
    size, columns = width // heads, site.shape(2)[2] // heads
    if batch * heads * columns == 0:
        return Lowered(())
    tokens = batch * length * heads * columns * size
    estimate = replace(default_estimate(site), flops=_STEP_FLOPS * tokens * (site.attr("q_num_heads") // heads + 1))
    few, many = (tactic_of(f"columns by {n} threads", partial(_launch, site, n), estimate) for n in _LANES)
    return (few, many) if size <= _SMALL_STATE else (many, few)


def _launch(site: Site, lanes: int) -> Lowered:
    """``lanes`` threads hold a column of a head's state."""
    dtype = site.dtype()
    state = site.dtype(_PAST) if site.has(_PAST) else dtype
    q_heads, heads = site.attr("q_num_heads"), site.attr("kv_num_heads")
    batch, length, width = site.shape(1)
    size, columns = width // heads, site.shape(2)[2] // heads
    states = batch * heads
    held = power_of_two_from(-(-size // lanes))
    tiles = -(-columns // (_THREADS // lanes))
    computed = computed_type(dtype)
    decays = site.shape(_DECAY)[2] // heads if site.has(_DECAY) else 0
    betas = site.shape(_BETA)[2] if site.has(_BETA) else 0
    defines = (
        ("MI_T", c_type(dtype)),
        ("MI_STATE", c_type(state)),
        ("MI_C", computed),
        ("MI_LANES", str(lanes)),
        ("MI_HELD", str(held)),
    )
    scale = site.attr("scale", 0.0) or (1 / math.sqrt(size) if size else 0.0)
    optional = (site.operand(n) for n in (_PAST, _DECAY, _BETA))
    arguments = (
        *(*inputs(0, 1, 2), *optional, *outputs(0, 1), np.int64(length), np.int64(heads)),
        *(np.int32(n) for n in (q_heads // heads, size, columns, tiles, decays, betas)),
        np.float64(scale) if computed == "f64" else np.float32(scale),
    )
    kernel = Kernel("linear_attention", "linear_attention.cu", defines)
    return Lowered((Launch(kernel, (states * tiles,), (_THREADS,), arguments),))
