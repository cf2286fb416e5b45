"""The kernels of integer regions: tiles of bytes on the tensor cores, and a convolution of each channel by itself.

Sources: ``integer_conv.cu``, ``integer_depthwise.cu``; what follows the sums: ``integer_ending.cuh``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Derived, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.integer_regions import INTEGERS, PACK, IntegerRegion, Numbers
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Ends
from miniinfer_cli.ir import Array, Constant, DType, Graph, TensorType, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype

_WAY = "integers"  # the word that keys begin with
_LEAST_ARCH = 80
_PIXELS, _BYTES, _AHEAD = 128, 64, 4  # of a tile: see the kernel


def integer_tactics(site: Site, region: IntegerRegion) -> tuple[Tactic, ...]:
    """Tiles of 128 features, or of 64 where there are few, first; another kernel where each feature has its own channel."""
    conv = region.conv
    if conv.is_depthwise:
        return (_by_channel(region, site.target),)
    pixels, features = math.prod(conv.y_shape[:-1]), conv.features
    blocks = -(-pixels // _PIXELS) * -(-features // 128)
    widths = (64, 128) if features <= 64 or blocks < site.target.multiprocessors else (128, 64)
    return tuple(_tactic(region, width) for width in widths)


def fills(target: Target, region: IntegerRegion) -> bool:
    """Whether the kernel has a block for each multiprocessor: ResNet-50 took 0.85 ms for an image by it, 0.57 apart (H200)."""
    pixels, features = math.prod(region.conv.y_shape[:-1]), region.conv.y_shape[-1]
    blocks = -(-pixels * features // (PACK * 256)) if region.conv.is_depthwise else -(-pixels // _PIXELS) * -(-features // 128)
    return blocks >= target.multiprocessors


def _tactic(region: IntegerRegion, width: int) -> Tactic:
    conv = region.conv
    pixels, features, length = math.prod(conv.y_shape[:-1]), conv.features, conv.taps * conv.channels
    shared = max(_AHEAD * (_PIXELS + width) * (_BYTES + 16), 4 * _PIXELS * (width + 4))

    def needs(target: Target) -> str:
        if target.arch < _LEAST_ARCH:
            return f"it needs sm_{_LEAST_ARCH}"
        return f"it needs {-(-shared >> 10)} KiB of shared memory" if shared > target.shared_nbytes else ""

    def emit(work: Work) -> None:
        stored: Argument = region.stored
        if region.turned:
            stored = work.derive(Derived((region.weights,), "columns as rows", _turned_graph(region.weights, [1, 0])))
        grid = (-(-pixels // _PIXELS), -(-features // width))
        kernel = Kernel(
            *("integer_conv", "integer_conv.cu", (*_defines(region), ("MI_FEATURES", str(width)))), arch=f"sm_{_LEAST_ARCH}"
        )
        work.add(Launch(kernel, grid, (256,), _arguments(work, region, stored, np.int32(pixels)), shared))

    return Tactic(f"{_WAY} {_PIXELS}x{width}", emit, estimate_of(region, 2 * pixels * features * length), needs)


def _by_channel(region: IntegerRegion, target: Target) -> Tactic:
    conv = region.conv
    count = math.prod(conv.y_shape) // PACK

    def emit(work: Work) -> None:
        stored = work.derive(Derived((region.weights,), "taps by channel", _turned_graph(region.weights, [1, 2, 3, 0])))
        grid = (min(-(-count // 256), 16 * target.multiprocessors),)
        kernel = Kernel("integer_depthwise", "integer_depthwise.cu", _defines(region))
        work.add(Launch(kernel, grid, (256,), _arguments(work, region, stored, np.int64(count))))

    return Tactic(f"{_WAY} by channel", emit, estimate_of(region, 2 * math.prod(conv.y_shape) * conv.taps))


def _defines(region: IntegerRegion) -> tuple[tuple[str, str], ...]:
    added = DType.I8 if region.of_residual is None else region.of_residual.dtype
    return (
        *(("MI_X", c_type(region.of_x.dtype)), ("MI_Y", c_type(result_type(region))), ("MI_R", c_type(added))),
        *(("MI_BETWEEN", str(_rounds(region.between))), ("MI_ROUNDS", str(_rounds(region.result)))),
        ("MI_ACTIVATION", region.activation or "none"),
    )


def is_folded(region: IntegerRegion) -> bool:
    """Whether all that follows a sum is multiplications and additions, until it is bounded and rounded; see ``ends_of``."""
    return region.between is None and not region.activation


def ends_of(region: IntegerRegion) -> Ends:
    """What follows a scaled sum, for kernels that multiply as others do. Where ``is_folded``, the scale of the result goes into
    ``scales_of`` and ``bias_of``."""
    defines = [d for d in _defines(region) if d[0] != "MI_X"]
    defines += [("MI_FOLDED", str(int(is_folded(region)))), ("MI_ADDED", str(int(region.residual is not None)))]
    numbers = list(_ending(region))
    if is_folded(region):
        numbers[5] *= _inverse(region)  # of the residual
    return Ends(tuple(defines), tuple(numbers))


def _inverse(region: IntegerRegion) -> float:
    return 1.0 if region.result is None else 1.0 / region.result.scale


def _rounds(numbers: Numbers | None) -> int:
    """As MI_ROUNDS of ``integer_ending.cuh``."""
    return 0 if numbers is None else 1 if numbers.dtype in INTEGERS else 2


def result_type(region: IntegerRegion) -> DType:
    """Of the region's result."""
    return region.floats if region.result is None else region.result.dtype


def scales_of(work: Work, region: IntegerRegion, *, folded: bool = False) -> Operand:
    """f32[features]: what a sum is multiplied by; ``folded``: with the scale of the result in it."""
    features, factor = region.conv.y_shape[-1], region.of_x.scale * (_inverse(region) if folded else 1.0)
    return work.derive(Derived((region.scales,), f"{features} scales, times {factor!r}", _scales_graph(region, factor)))


def bias_of(work: Work, region: IntegerRegion, *, folded: bool = False) -> Operand:
    """f32[features]: what is added to a scaled sum; ``folded``: in steps of the result, less the residual's zero point."""
    held = (region.weights, region.scales, *(() if region.bias is None else (region.bias,)))
    key = f"bias of sums at {region.of_x.scale!r}, less {region.of_x.zero}{', columns' if region.turned else ''}"
    if not folded:
        return work.derive(Derived(held, key, _bias_graph(region)))
    inverse, added = _inverse(region), region.of_residual
    less = 0.0 if added is None else added.zero * added.scale * inverse
    return work.derive(Derived(held, f"{key}, times {inverse!r}, less {less!r}", _bias_graph(region, inverse, less)))


def _arguments(work: Work, region: IntegerRegion, stored: Argument, count: "np.generic[Any]") -> tuple[Argument, ...]:
    """What the kernels take, in their order; ``count``: of what they make."""
    places = (region.x, stored, scales_of(work, region), bias_of(work, region), region.residual or NULL, Operand.output(0))
    return (*places, count, _window(region), np.array(_ending(region), np.float32))


def estimate_of(region: IntegerRegion, flops: int) -> Estimate:
    """With each byte read and written once."""
    conv, made = region.conv, math.prod(region.conv.y_shape)
    moved = math.prod(conv.x_shape) + region.weights.size + made * element_nbytes(result_type(region))
    return Estimate(flops, moved + (0 if region.of_residual is None else made * element_nbytes(region.of_residual.dtype)))


def _window(region: IntegerRegion) -> Array:
    c = region.conv
    return np.array(
        [
            *(*c.x_shape[1:3], c.channels, *c.y_shape[1:], *c.w_shape[1:3]),
            *(*c.strides, *c.dilations, *c.begin, region.of_x.zero),
        ],
        np.int32,
    )


def _ending(region: IntegerRegion) -> tuple[float, ...]:
    def four(numbers: Numbers | None) -> tuple[float, ...]:
        return (1.0, 0.0, 0.0, 0.0) if numbers is None else (1.0 / numbers.scale, numbers.zero, *numbers.ends)

    between = 1.0 if region.between is None else region.between.scale
    added = (1.0, 0.0) if region.of_residual is None else (region.of_residual.scale, region.of_residual.zero)
    bounds = (region.least, region.greatest)
    if region.result is None:
        return (between, *four(region.between), *added, *bounds, *four(None))
    inverse, zero, (low, high) = 1.0 / region.result.scale, region.result.zero, region.result.ends
    ends = (max(low - zero, region.least * inverse), min(high - zero, region.greatest * inverse))
    return (between, *four(region.between), *added, *bounds, inverse, zero, *ends)


def _turned_graph(weights: Constant, perm: Sequence[int]) -> Graph:
    graph = Graph("weights")
    x = graph.add_input("weights", TensorType(weights.dtype, weights.shape))
    graph.set_outputs([insert(graph, "Transpose", x, perm=list(perm))])
    return graph


def _scales_graph(region: IntegerRegion, factor: float) -> Graph:
    """One scale for each feature: of the weights, times ``factor``."""
    graph = Graph("scales")
    graph.set_outputs([_scales(graph, region, factor)])
    return graph


def _scales(graph: Graph, region: IntegerRegion, factor: float) -> Value:
    scales = graph.add_input("scales", TensorType(region.scales.dtype, region.scales.shape))
    wide = insert(graph, "Mul", scales, graph.add_constant(np.float32(factor)))
    flat = insert(graph, "Reshape", wide, graph.add_constant(np.array([-1])))
    return insert(graph, "Expand", flat, graph.add_constant(np.array([region.conv.y_shape[-1]])))


def _bias_graph(region: IntegerRegion, factor: float = 1.0, less: float = 0.0) -> Graph:
    """The bias less what the zero point of x adds to each sum, of floats always 0; all of it times ``factor``, less ``less``."""
    graph = Graph("bias")
    weights = graph.add_input("weights", TensorType(region.weights.dtype, region.weights.shape))
    scales = _scales(graph, region, region.of_x.scale)
    axes = [0] if region.turned else list(range(1, len(region.weights.shape)))
    wide = insert(graph, "Cast", weights, to=code_of_dtype(DType.I32 if region.weights.dtype in INTEGERS else DType.F32))
    sums = insert(graph, "ReduceSum", wide, graph.add_constant(np.array(axes)), keepdims=0)
    point = graph.add_constant(np.float32(-region.of_x.zero))
    total = insert(graph, "Mul", insert(graph, "Mul", insert(graph, "Cast", sums, to=code_of_dtype(DType.F32)), point), scales)
    if region.bias is not None:
        bias = graph.add_input("bias", TensorType(region.bias.dtype, region.bias.shape))
        row = insert(graph, "Reshape", bias, graph.add_constant(np.array([-1])))
        row = row if region.bias.dtype is DType.F32 else insert(graph, "Cast", row, to=code_of_dtype(DType.F32))
        total = insert(graph, "Add", total, row)
    if factor != 1 or less:
        total = insert(graph, "Mul", total, graph.add_constant(np.float32(factor)))
        total = insert(graph, "Sub", total, graph.add_constant(np.float32(less)))
    graph.set_outputs([total])
    return graph
