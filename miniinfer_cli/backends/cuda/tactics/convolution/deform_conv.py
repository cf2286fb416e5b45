"""DeformConv: what it reads as columns, then a matrix product with the weights."""

import math
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import nbytes as nbytes_of
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Lowered, Operand, inputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import is_gemv
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.windows import window

_FLOATS = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16})
_MOST_AXES = 4
_INTERPOLATION_FLOPS = 8  # for each element of the columns: four products, their weights and sum


@lowers("DeformConv")
def lower_deform_conv(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Columns stay in the type computed in, save where the library multiplies them: it wants the type of the weights."""
    dtype = site.dtype()
    n, features, *outs = site.out_shape()
    if dtype not in _FLOATS or not 1 <= len(outs) <= _MOST_AXES:
        return None
    if math.prod(site.out_shape()) == 0:
        return Lowered(())
    channels, places, group = site.shape(0)[1], math.prod(outs), site.attr("group", 1)
    taps = math.prod(site.shape(1)[2:])
    if 0 in site.shape(0) or taps == 0:
        return None
    k = channels // group * taps
    per_group = features // group
    axes = (
        Axis(n, 0, channels * taps * places, features * places),
        Axis(group, per_group * k, k * places, per_group * places, c=per_group),
    )
    product = Product(per_group, places, k, dtype, dtype, dtype, False, False, k, places, places, batch=axes)
    operands = Operands(Operand.input(1), Operand.scratch(0), Operand.output(0))
    wide, summed = replace(product, b=DType.F32 if dtype.is_half else dtype), operands
    if site.has(3):
        wide, summed = replace(wide, c=(1, 0)), replace(operands, c=Operand.input(3))
    columns = n * channels * taps * places

    def of_columns(tactic: Tactic, columns_dtype: DType, bias: bool) -> Tactic:
        """The tactic, whose product takes columns out of the first scratch buffer, behind what makes them."""
        nbytes = columns * element_nbytes(columns_dtype)

        def emit(work: Work) -> None:
            work.scratch(nbytes)
            work.add(_columns(site, columns_dtype, taps, places))
            tactic.emit(work)
            if bias:
                work.add(_add_bias(site, columns_dtype, features, places))

        made = Estimate(_INTERPOLATION_FLOPS * columns, nbytes + sum(map(nbytes_of, site.types)))
        estimate = tactic.estimate + made + (Estimate(0, 2 * nbytes_of(site.results[0])) if bias else Estimate(0, 0))
        return replace(tactic, key=f"columns, {tactic.key}", emit=emit, estimate=estimate, parts=(tactic.key,))

    library = [of_columns(t, dtype, site.has(3)) for t in library_tactics(product, operands, site.target)]
    ours = [of_columns(t, wide.b, False) for t in kernel_tactics(wide, summed, site.target)]
    return (*ours, *library) if is_gemv(product) else (*library, *ours)


def _columns(site: Site, dtype: DType, taps: int, places: int) -> Launch[Operand]:
    n, channels, *sizes = site.shape(0)
    kernel, outs, groups = site.shape(1)[2:], site.out_shape()[2:], site.attr("offset_group", 1)
    geometry = window(
        "DeformConv", kernel, strides=site.attr("strides"), dilations=site.attr("dilations"), pads=site.attr("pads")
    )
    largest = n * channels * max(taps * places, math.prod(sizes))
    largest = max(largest, math.prod(site.shape(2)))
    index = index_dtype(largest).type
    count = n * groups * taps * places
    numbers = np.array([*sizes, *outs, *kernel, *geometry.strides, *geometry.dilations, *geometry.begin], np.int32)
    per_group = channels // groups
    blocks = blocks_for(count, site.target.multiprocessors)
    slices = min(per_group, max(1, site.target.multiprocessors * 8 // blocks))
    arguments: tuple[Argument, ...] = (
        *inputs(0, 2), site.operand(4), Operand.scratch(0), numbers, index(count),
        np.int32(groups), np.int32(per_group), np.int32(taps), index(math.prod(sizes)), index(places),
    )  # fmt: skip
    return Launch(_kernel(site, "deform_columns", dtype, largest), (blocks, slices), (BLOCK,), arguments)


def _add_bias(site: Site, dtype: DType, features: int, places: int) -> Launch[Operand]:
    count = math.prod(site.out_shape())
    index = index_dtype(count).type
    arguments: tuple[Argument, ...] = (Operand.output(0), *inputs(3), index(count), np.int32(features), index(places))
    return launch_over(_kernel(site, "add_bias", dtype, count), count, arguments, site.target.multiprocessors)


def _kernel(site: Site, name: str, columns: DType, largest: int) -> Kernel:
    defines = (
        ("MI_T", c_type(site.dtype())), ("MI_S", c_type(columns)), ("MI_C", computed_type(site.dtype())),
        ("MI_AXES", str(len(site.shape(0)) - 2)), ("MI_INDEX", index_name(largest)),
    )  # fmt: skip
    return Kernel(name, "deform_conv.cu", defines)
