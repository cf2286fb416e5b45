"""CausalConvWithState: the outputs and the next state in one launch."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Argument, Kernel, Launch, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.types import c_type


@lowers("CausalConvWithState")
def lower_causal_conv(site: Site) -> Lowered | None:
    """A thread for each output and each element of the next state."""
    n, channels, length = site.shape(0)
    kernel_size = site.shape(1)[2]
    keeps = len(site.results) > 1 and site.results[1] is not None
    wide = length + (kernel_size - 1 if keeps else 0)
    count = n * channels * wide
    if count == 0:
        return Lowered(())
    largest = max(count, math.prod(site.shape(1)))
    index = index_dtype(largest).type
    swish = str(int(site.attr("activation", "none") != "none"))
    defines = (("MI_T", c_type(site.dtype())), ("MI_INDEX", index_name(largest)), ("MI_SWISH", swish))
    optional: list[Argument] = [Operand("input", i) if site.has(i) else np.uint64(0) for i in (2, 3)]
    sizes = (index(count), index(length), index(wide), np.int32(kernel_size), np.int32(channels))
    arguments = (*inputs(0, 1), *optional, *outputs(0), *(outputs(1) if keeps else (np.uint64(0),)), *sizes)
    grid = (blocks_for(count, site.target.multiprocessors),)
    launch = Launch(Kernel("causal_conv", "causal_conv.cu", defines), grid, (BLOCK,), arguments)
    return Lowered((launch,), tactic="causal conv")
