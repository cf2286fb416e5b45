"""MaxPool, AveragePool, LpPool, and the channels-last MaxPoolNHWC and AveragePoolNHWC of ours."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, load_width
from miniinfer_cli.ir import DType
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.windows import Window, window

Ints = Sequence[int]
_KINDS = {
    "MaxPool": "Maximum",
    "MaxPoolNHWC": "Maximum",
    "AveragePool": "Mean",
    "AveragePoolNHWC": "Mean",
    "LpPool": "Norm",
}
_AXES = 3  # spatial axes that kernels have
_HELD_NBYTES, _HELD_TAPS = 16, 9  # of a pixel, that a thread holds at one time


@lowers("MaxPool", "AveragePool", "LpPool")
@lowers("MaxPoolNHWC", "AveragePoolNHWC", domain=OURS)
def lower_pool(site: Site) -> Lowered | None:
    """One thread for each window and pack of channels. Planes of a channels-first tensor are images of one channel."""
    last = site.node.op.endswith("NHWC")
    shape, out = site.shape(0), site.out_shape()
    sizes, out_sizes = (s[1:-1] if last else s[2:] for s in (shape, out))
    if len(sizes) > _AXES:
        return None
    geometry = _geometry(site)
    channels = shape[-1] if last else 1
    vector = load_width(channels, element_nbytes(site.dtype()), 16)
    count = math.prod(out) // vector
    if count == 0:
        return Lowered(())
    estimate = replace(default_estimate(site), flops=math.prod(out) * math.prod(site.attr("kernel_shape")))
    largest = max(math.prod(shape), math.prod(out))
    index = index_dtype(largest).type
    begin, end = geometry.padding(sizes)
    window_sizes = _sizes(channels // vector, sizes, out_sizes, geometry, begin, end)
    divisors = dividers([*(1,) * (_AXES - len(sizes)), *out_sizes, channels // vector])
    defines = [("MI_T", c_type(site.dtype())), ("MI_INDEX", index_name(largest))]
    grid = (blocks_for(count, site.target.multiprocessors),)
    if site.gives(1):
        kernel = Kernel("max_pool_indices", "pooling.cu", (*defines, ("MI_KIND", "Maximum"), ("MI_VEC", "1")))
        column_major = np.int32(site.attr("storage_order", 0))
        arguments = (*inputs(0), *outputs(0, 1), window_sizes, divisors, index(count), column_major)
        return Lowered((Launch(kernel, grid, (BLOCK,), arguments),), tactic="max pool with indices", estimate=estimate)
    if last and site.node.op == "MaxPoolNHWC" and _is_held(site.dtype(), vector, sizes, out_sizes, geometry, begin):
        held = np.array([channels // vector, *sizes, *out_sizes, *geometry.strides, *begin], np.int32)
        taps = (("MI_DOWN", str(geometry.kernel[0])), ("MI_ACROSS", str(geometry.kernel[1])))
        kernel = Kernel("max_pool", "max_pooling.cu", (*defines, *taps))
        arguments = (*inputs(0), *outputs(0), held, dividers([*out_sizes, channels // vector]), index(count))
        return Lowered((Launch(kernel, grid, (BLOCK,), arguments),), tactic="max pool", estimate=estimate)
    kernel = Kernel("pool", "pooling.cu", (*defines, ("MI_KIND", _KINDS[site.node.op]), ("MI_VEC", str(vector))))
    padded, norm = np.int32(site.attr("count_include_pad", 0)), np.int32(site.attr("p", 2))
    launch = Launch(kernel, grid, (BLOCK,), (*inputs(0), *outputs(0), window_sizes, divisors, index(count), padded, norm))
    return Lowered((launch,), tactic="pool", estimate=estimate)


def _is_held(dtype: DType, vector: int, sizes: Ints, out: Ints, geometry: Window, begin: Ints) -> bool:
    """Whether a thread can hold a window: it is small, its taps are neighbours, and everywhere it holds something."""
    fits = (dtype.is_half or dtype is DType.F32) and vector * element_nbytes(dtype) == _HELD_NBYTES
    if not fits or len(sizes) != 2 or math.prod(geometry.kernel) > _HELD_TAPS:
        return False
    lines = zip(sizes, out, geometry.kernel, geometry.strides, geometry.dilations, begin, strict=True)
    return all(d == 1 and b < k and (y - 1) * s - b < x for x, y, k, s, d, b in lines)


def _geometry(site: Site) -> Window:
    attrs = site.node.attrs
    names = ("strides", "dilations", "pads", "auto_pad", "ceil_mode")
    return window(site.node.op, attrs["kernel_shape"], **{k: attrs[k] for k in names if k in attrs})


def _sizes(packs: int, sizes: Ints, out: Ints, geometry: Window, begin: Ints, end: Ints) -> Any:
    """The argument ``PoolSizes``; the axes in front of the window's are of size 1."""
    axes = [(sizes, 1), (out, 1), (geometry.kernel, 1), (geometry.strides, 1), (geometry.dilations, 1), (begin, 0), (end, 0)]
    padded = [(*(filler,) * (_AXES - len(values)), *values) for values, filler in axes]
    return np.array([packs, *(n for values in padded for n in values)], np.int32)
