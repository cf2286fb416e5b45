"""GridSample, AffineGrid."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Fill, Kernel, Launch, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.saturation import saturates, saturation_limits
from miniinfer_cli.ir import DType

_MODES = {"nearest": 0, "linear": 1, "cubic": 2}
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


@lowers("GridSample")
def lower_grid_sample(site: Site) -> Lowered | None:
    """A thread for each place, which works its taps out once and sums them in each of its channels."""
    dtype, grid_dtype = site.dtype(0), site.dtype(1)
    if dtype in HOST_ONLY or not grid_dtype.is_float:
        return None
    n, channels, *sizes = site.shape(0)
    places = math.prod(site.shape(1)[1:-1])
    pixels = math.prod(sizes)
    total = n * channels * places
    if total == 0:
        return Lowered(())
    if pixels == 0:
        return Lowered((Fill(Operand.output(0), 0, total * element_nbytes(dtype)),))
    wide = dtype.bits > 16 and dtype is not DType.F32
    largest = max(total, n * channels * pixels, n * places * len(sizes))
    index = index_dtype(largest).type
    defines = (
        ("MI_T", c_type(dtype)), ("MI_G", c_type(grid_dtype)), ("MI_C", "f64" if wide else "f32"),
        ("MI_MODE", str(_MODES[site.attr("mode", "linear")])), ("MI_PADDING", str(_PADDINGS[site.attr("padding_mode", "zeros")])),
        ("MI_AXES", str(len(sizes))), ("MI_WHOLE", str(int(saturates(dtype)))), ("MI_INDEX", index_name(largest)),
    )  # fmt: skip
    blocks = blocks_for(n * places, site.target.multiprocessors)
    # Channels are spread over blocks as far as that fills the device.
    slices = min(channels, max(1, site.target.multiprocessors * 8 // blocks), 65535)
    least, past = saturation_limits(dtype)
    real = np.float64 if wide else np.float32
    arguments: tuple[Argument, ...] = (
        *inputs(0, 1), *outputs(0), np.array(sizes, np.int32), index(pixels), index(places), np.int32(channels),
        index(n * places), np.int32(site.attr("align_corners", 0)), real(least), real(past),
    )  # fmt: skip
    launch = Launch(Kernel("grid_sample", "grid_sample.cu", defines), (blocks, slices), (BLOCK,), arguments)
    return Lowered((launch,), tactic="grid_sample")


@lowers("AffineGrid")
def lower_affine_grid(site: Site) -> Lowered | None:
    """A thread for each place."""
    dtype = site.dtype()
    n, *sizes, axes = site.out_shape()
    count = n * math.prod(sizes)
    if count == 0:
        return Lowered(())
    index = index_dtype(count * axes).type
    defines = (
        ("MI_T", c_type(dtype)), ("MI_C", computed_type(dtype)), ("MI_AXES", str(axes)), ("MI_INDEX", index_name(count * axes)),
    )  # fmt: skip
    arguments: tuple[Argument, ...] = (
        *inputs(0), *outputs(0), np.array(sizes, np.int32), index(math.prod(sizes)), index(count),
        np.int32(site.attr("align_corners", 0)),
    )  # fmt: skip
    launch = launch_over(Kernel("affine_grid", "affine_grid.cu", defines), count, arguments, site.target.multiprocessors)
    return Lowered((launch,), tactic="affine_grid")
