"""RoiAlign, MaxRoiPool."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.ir import DType


@lowers("RoiAlign")
def lower_roi_align(site: Site) -> Lowered | None:
    """A thread for each bin of each channel."""
    half = site.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    more = (
        np.int32(site.attr("sampling_ratio", 0)), np.int32(half), np.int32(site.attr("mode", "avg") == "max"),
    )  # fmt: skip
    return _pooling(site, "roi_align", (0, 1, 2), more)


@lowers("MaxRoiPool")
def lower_max_roi_pool(site: Site) -> Lowered | None:
    """A thread for each bin of each channel."""
    return _pooling(site, "max_roi_pool", (0, 1), ())


def _pooling(site: Site, name: str, operands: tuple[int, ...], more: tuple[Argument, ...]) -> Lowered | None:
    dtype = site.dtype()
    if not dtype.is_float or site.dtype(1) is not dtype:
        return None
    shape, out = site.shape(0), site.out_shape()
    count = math.prod(out)
    if count == 0:
        return Lowered(())
    largest = max(count, math.prod(shape))
    scale = (np.float64 if dtype is DType.F64 else np.float32)(site.attr("spatial_scale", 1.0))
    arguments: tuple[Argument, ...] = (
        *inputs(*operands), *outputs(0), index_dtype(largest).type(count), *map(np.int32, (*shape, *out[2:])), scale, *more,
    )  # fmt: skip
    kernel = Kernel(name, "roi_pooling.cu", (("MI_T", c_type(dtype)), ("MI_INDEX", index_name(largest))))
    return Lowered((launch_over(kernel, count, arguments, site.target.multiprocessors),), tactic=name)
