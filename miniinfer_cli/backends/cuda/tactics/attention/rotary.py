"""RotaryEmbedding."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, is_in_rows, reach
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT, reads_strided
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import widest_unit
from miniinfer_cli.ops.element_types import FLOATS

_IDS = 3


@reads_strided("RotaryEmbedding")
def reads_heads_that_lie_apart(site: Site, number: int) -> bool:
    """What is turned, where each head's elements lie side by side: a part of one projection for queries, keys and values."""
    return number == 0 and is_in_rows(site.shape(0), site.strides(0), max(1, ALIGNMENT // element_nbytes(site.dtype())))


@lowers("RotaryEmbedding")
def lower_rotary_embedding(site: Site) -> Lowered | None:
    """A thread turns a few pairs that lie side by side, or moves elements behind those that are turned."""
    shape, dtype, cache = site.shape(0), site.dtype(), site.dtype(1)
    if dtype not in FLOATS or cache not in FLOATS:
        return None
    count = math.prod(shape)
    if count == 0:
        return Lowered(())
    if len(shape) == 4:
        _, heads, length, size = shape
        order = (heads, length)  # of the axes between batch and a head's elements
    else:
        _, length, row = shape
        heads = site.attr("num_heads")
        size = row // heads
        order = (length, heads)
    dim = site.attr("rotary_embedding_dim", 0) or size
    half, interleaved = dim // 2, bool(site.attr("interleaved", 0))
    lies = site.strides(0)
    lines_lie = lies[:3] if len(shape) == 4 else (*lies[:2], size)  # batch, and the axes of ``order``
    width = widest_unit(element_nbytes(dtype), size, dim if interleaved else half, *lines_lie)
    pack = max(width, 2) if interleaved else width
    turned = (dim if interleaved else half) // pack
    kept = (size - dim) // width
    lines = count // size
    units = lines * (turned + kept)
    table, ids = site.shape(1), site.shape(_IDS) if site.has(_IDS) else None
    rows = table[0] if ids is not None else 0
    places = ids if ids is not None else table[:2]
    walk = broadcast_strides(places, places)
    largest = max(count, units, math.prod(table), reach(shape, lies))
    index = index_dtype(largest)
    defines = (
        ("MI_T", c_type(dtype)),
        ("MI_CACHE", c_type(cache)),
        ("MI_N", str(pack)),
        ("MI_WIDTH", str(width)),
        ("MI_INTERLEAVED", str(int(interleaved))),
        ("MI_INDEX", index_name(largest)),
    )
    inner = (turned + kept, order[1], order[0])
    arguments = (
        *(*inputs(0, 1, 2), site.operand(_IDS), *outputs(0)),
        *(index.type(n) for n in (units, *inner)),
        dividers(inner),
        *(index.type(n) for n in (size, half, turned)),
        *(np.int64(n) for n in (rows, *walk)),
        np.int32(len(shape) == 4),
        np.array(lines_lie, index),
    )
    return Lowered(
        (launch_over(Kernel("rotary", "rotary.cu", defines), units, arguments, site.target.multiprocessors),),
        in_place={0: (0,)},
        tactic="rotary",
    )
