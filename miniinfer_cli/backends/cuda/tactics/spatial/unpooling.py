"""MaxUnpool, Col2Im."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Fill, Kernel, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, bits_type, c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.ops.unpooling import block_counts, unpooled_shape


@lowers("MaxUnpool")
def lower_max_unpool(site: Site) -> Lowered | None:
    """Who comes to each place, the last where several do; then each place takes what comes."""
    shape, out = site.shape(0), site.out_shape()
    implied = unpooled_shape(shape, site.attr("kernel_shape"), site.attr("pads"), site.attr("strides"))
    places = math.prod(int(d) for d in implied)
    count, total = math.prod(shape), math.prod(out)
    target = Operand.output(0)
    if total == 0:
        return Lowered(())
    if count == 0 or places == 0:
        return Lowered((Fill(target, 0, total * element_nbytes(site.dtype())),))
    largest = max(places, total, count)
    index = index_dtype(largest)
    source = "u32" if count < 1 << 31 else "u64"
    nbytes = places * (4 if source == "u32" else 8)
    defines = (
        ("MI_T", bits_type(site.dtype())), ("MI_SOURCE", source), ("MI_AXES", str(len(shape))), ("MI_INDEX", index_name(largest)),
    )  # fmt: skip
    sources = Operand.scratch(0)
    mps = site.target.multiprocessors
    scatter = (*inputs(1), sources, index.type(count), np.int64(places))
    gather: tuple[Argument, ...] = (
        *inputs(0), sources, target, np.array(out, index), np.array(implied, index), np.int32(tuple(out) == tuple(implied)),
        index.type(total),
    )  # fmt: skip
    actions = (
        Fill(sources, 0, nbytes),
        launch_over(Kernel("unpool_sources", "unpooling.cu", defines), count, scatter, mps),
        launch_over(Kernel("unpool", "unpooling.cu", defines), total, gather, mps),
    )
    return Lowered(actions, (nbytes,), tactic="unpool")


@lowers("Col2Im")
def lower_col2im(site: Site) -> Lowered | None:
    """A thread for each element of the image, which adds up what reaches it."""
    dtype, block = site.dtype(), site.known(2)
    out = site.out_shape()
    axes = len(out) - 2
    if block is None or dtype in HOST_ONLY or axes < 1:
        return None
    count = math.prod(out)
    if count == 0:
        return Lowered(())
    image, kernel = out[2:], [int(k) for k in block.reshape(-1)]
    dilations, pads, strides = site.attr("dilations"), site.attr("pads"), site.attr("strides")
    counts = [int(c) for c in block_counts(image, kernel, dilations, pads, strides)]
    numbers = [*image, *counts, *kernel, *(strides or [1] * axes), *(dilations or [1] * axes), *(pads or [0] * axes)[:axes]]
    largest = max(count, math.prod(site.shape(0)))
    index = index_dtype(largest).type
    # Sums of integers are the same bits with and without a sign.
    element = bits_type(dtype) if dtype.is_integer and dtype.bits >= 8 else c_type(dtype)
    defines = (("MI_T", element), ("MI_AXES", str(axes)), ("MI_INDEX", index_name(largest)))
    arguments: tuple[Argument, ...] = (
        *inputs(0), *outputs(0), np.array(numbers, np.int32), index(count), index(math.prod(image)),
        np.int32(math.prod(kernel)), index(math.prod(counts)),
    )  # fmt: skip
    launch = launch_over(Kernel("col2im", "col2im.cu", defines), count, arguments, site.target.multiprocessors)
    return Lowered((launch,), tactic="col2im")
