"""CausalConvWithState: the outputs and the next state in one launch."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over


@lowers("CausalConvWithState")
def lower_causal_conv(site: Site) -> Lowered | None:
    """A thread for each output and each element of the next state."""
    n, channels, length = site.shape(0)
    kernel_size = site.shape(1)[2]
    wide = length + (kernel_size - 1 if site.gives(1) else 0)
    count = n * channels * wide
    if count == 0:
        return Lowered(())
    largest = max(count, math.prod(site.shape(1)))
    index = index_dtype(largest).type
    swish = str(int(site.attr("activation", "none") != "none"))
    defines = (("MI_T", c_type(site.dtype())), ("MI_INDEX", index_name(largest)), ("MI_SWISH", swish))
    sizes = (index(count), index(length), index(wide), np.int32(kernel_size), np.int32(channels))
    arguments = (*inputs(0, 1), site.operand(2), site.operand(3), *outputs(0), site.result(1), *sizes)
    launch = launch_over(Kernel("causal_conv", "causal_conv.cu", defines), count, arguments, site.target.multiprocessors)
    return Lowered((launch,), tactic="causal conv")
