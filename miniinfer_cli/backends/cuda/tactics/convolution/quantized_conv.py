"""ConvInteger and QLinearConv: exact sums in 32 bits, requantized on the way out."""

import math
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import OwnKernels, own_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Finish, convolution, estimate_of


@lowers("ConvInteger")
def lower_conv_integer(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Operands: x, w and their zero points."""
    zero_points = (site.operand(2), site.operand(3), _step(site, 3))
    defines = [("MI_X", c_type(site.dtype(0))), ("MI_W", c_type(site.dtype(1))), ("MI_Y", "i32")]
    return _lower(site, 1, defines, (*inputs(0, 1), *zero_points, *outputs(0)))


@lowers("QLinearConv")
def lower_qlinear_conv(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Operands: x, its scale and zero point; those of w; scale and zero point of y; the bias."""
    defines = [("MI_X", c_type(site.dtype(0))), ("MI_W", c_type(site.dtype(3))), ("MI_Y", c_type(site.out_dtype()))]
    defines += [(f"MI_{name}_SCALE", c_type(site.dtype(i))) for name, i in (("X", 1), ("W", 4), ("Y", 6))]
    zero_points = (*inputs(2, 5), _step(site, 5))
    scales = (*inputs(1, 4), _step(site, 4), *inputs(6, 7))
    return _lower(site, 3, defines, (*inputs(0, 3), *zero_points, *outputs(0), *scales, site.operand(8)))


def _lower(
    site: Site, weights: int, defines: list[tuple[str, str]], operands: tuple[Argument, ...]
) -> Lowered | tuple[Tactic, ...] | None:
    types = (site.input(0), site.input(weights), site.output())
    conv = convolution(site.node.op, site.node.attrs, *types, transposed=False, channels_last=False)
    if conv is None or math.prod(conv.y_shape) == 0:
        return None if conv is None else Lowered(())
    estimate = replace(default_estimate(site), flops=estimate_of(conv, Finish()).flops)
    return own_tactics(conv, OwnKernels("quantized_conv", tuple(defines), operands), estimate, site.target)


def _step(site: Site, number: int) -> Argument:
    """1 for a vector with an entry for each feature, 0 for a single number."""
    return np.int32(site.has(number) and math.prod(site.shape(number)) > 1)
