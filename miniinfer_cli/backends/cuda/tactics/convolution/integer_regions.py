"""A region of a quantized product as one kernel of bytes: what it is made of, read from the region's body, and the launch.

The kernels (``integer_conv.cu``, ``integer_depthwise.cu``) take sums of products of bytes, scale them by feature, add a bias, and
round what the body rounds on the way; they add a residual of bytes, hold the result between two numbers and round it to bytes.
Other bodies are not taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.site import Site, static_shape
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Derived, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, convolution_of
from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import ONNX, insert
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.quantize import integer_range
from miniinfer_cli.ops.type_codes import code_of_dtype

WAY = "integers"
"""The word that keys begin with."""
_LEAST_ARCH = 80
_PACK = 16  # bytes that a copy takes, all of one tap
_PIXELS, _BYTES, _AHEAD = 128, 64, 4  # of a tile: see the kernel
_INTEGERS = (DType.I8, DType.U8)
_ACTIVATIONS = {
    "HardSwish": Activation.HARD_SWISH,
    "Sigmoid": Activation.SIGMOID,
    "Swish": Activation.SWISH,
    "Tanh": Activation.TANH,
}


@dataclass(frozen=True, slots=True)
class Numbers:
    """Scale and zero point of a tensor of bytes."""

    scale: float
    zero: int
    dtype: DType

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the greatest of its integers."""
        return integer_range(self.dtype)


@dataclass(slots=True)
class IntegerRegion:
    """A region that the kernel does. Constants: ``weights``, their ``scales``, and the ``bias``, None for none."""

    conv: Convolution
    x: Operand
    of_x: Numbers
    weights: Constant
    stored: Operand
    scales: Constant
    turned: bool
    bias: Constant | None = None
    between: Numbers | None = None
    residual: Operand | None = None
    of_residual: Numbers | None = None
    least: float = -math.inf
    greatest: float = math.inf
    activation: Activation = Activation.NONE
    result: Numbers | None = None
    seen: set[Node] = field(default_factory=set)


def integer_region(site: Site, product: Node, sources: Sequence[Node]) -> IntegerRegion | None:
    """The region of ``product``, whose operands ``sources`` dequantize; None for one that the kernel does not do."""
    body = site.node.body
    assert body is not None
    region = _beginning(site, product, sources)
    if region is None:
        return None
    region.seen |= {product, *sources}
    value = product.output
    while value not in body.outputs:
        if len(value.users) != 1:
            return None
        following = _take(site, region, value, value.users[0])
        if following is None:
            return None
        value = following
    return region if region.seen == set(body) else None


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
    blocks = -(-pixels * features // (_PACK * 256)) if region.conv.is_depthwise else -(-pixels // _PIXELS) * -(-features // 128)
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

    return Tactic(f"{WAY} {_PIXELS}x{width}", emit, _estimate(region, 2 * pixels * features * length), needs)


def _by_channel(region: IntegerRegion, target: Target) -> Tactic:
    conv = region.conv
    count = math.prod(conv.y_shape) // _PACK

    def emit(work: Work) -> None:
        stored = work.derive(Derived((region.weights,), "taps by channel", _turned_graph(region.weights, [1, 2, 3, 0])))
        grid = (min(-(-count // 256), 16 * target.multiprocessors),)
        kernel = Kernel("integer_depthwise", "integer_depthwise.cu", _defines(region))
        work.add(Launch(kernel, grid, (256,), _arguments(work, region, stored, np.int64(count))))

    return Tactic(f"{WAY} by channel", emit, _estimate(region, 2 * math.prod(conv.y_shape) * conv.taps))


def _defines(region: IntegerRegion) -> tuple[tuple[str, str], ...]:
    added = DType.I8 if region.of_residual is None else region.of_residual.dtype
    return (
        *(("MI_X", c_type(region.of_x.dtype)), ("MI_Y", c_type(_result_type(region))), ("MI_R", c_type(added))),
        *(("MI_BETWEEN", str(int(region.between is not None))), ("MI_ROUNDS", str(int(region.result is not None)))),
        ("MI_ACTIVATION", region.activation or "none"),
    )


def _result_type(region: IntegerRegion) -> DType:
    return DType.F32 if region.result is None else region.result.dtype


def _arguments(work: Work, region: IntegerRegion, stored: Argument, count: "np.generic[Any]") -> tuple[Argument, ...]:
    """What the kernels take, in their order; ``count``: of what they make."""
    features = region.conv.y_shape[-1]
    scales = work.derive(Derived((region.scales,), f"{features} scales, times {region.of_x.scale!r}", _scales_graph(region)))
    held = (region.weights, region.scales, *(() if region.bias is None else (region.bias,)))
    key = f"bias of sums at {region.of_x.scale!r}, less {region.of_x.zero}{', columns' if region.turned else ''}"
    biases = work.derive(Derived(held, key, _bias_graph(region)))
    places = (region.x, stored, scales, biases, region.residual or NULL, Operand.output(0))
    return (*places, count, _window(region), _ending(region))


def _estimate(region: IntegerRegion, flops: int) -> Estimate:
    conv, made = region.conv, math.prod(region.conv.y_shape)
    moved = math.prod(conv.x_shape) + region.weights.size + made * element_nbytes(_result_type(region))
    return Estimate(flops, moved + (made if region.residual is not None else 0))


def _beginning(site: Site, product: Node, sources: Sequence[Node]) -> IntegerRegion | None:
    """The product itself: bytes by constant signed ones whose zero points are 0, in packs of 16 along the channels."""
    x, w = sources
    of_x, place = _numbers(site, x), _place(site, x.inputs[0])
    weights, scales = _handle(site, w.inputs[0]), _handle(site, w.inputs[1])
    stored = _place(site, w.inputs[0])
    if of_x is None or place is None or weights is None or scales is None or stored is None or weights.dtype is not DType.I8:
        return None
    zeros = _handle(site, w.inputs[2]) if len(w.inputs) > 2 and w.inputs[2] is not None else None
    if (len(w.inputs) > 2 and w.inputs[2] is not None and zeros is None) or (zeros is not None and zeros.array().any()):
        return None
    if scales.dtype is not DType.F32 or w.attrs.get("block_size", 0):
        return None
    conv = _convolution(site, product)
    if conv is None or not math.prod(conv.y_shape) or not conv.channels_last:
        return None
    if not (conv.is_depthwise and conv.group % _PACK == 0) and (conv.group != 1 or conv.channels % _PACK):
        return None
    if len(conv.x_shape) != 4 or math.prod(conv.y_shape[:-1]) >= 1 << 28 or scales.size not in (1, conv.y_shape[-1]):
        return None
    turned = product.is_op("MatMul")
    region = IntegerRegion(conv, place, of_x, weights, stored, scales, turned)
    if not turned and len(product.inputs) > 2 and product.inputs[2] is not None:
        region.bias = _handle(site, product.inputs[2])
        if region.bias is None or region.bias.dtype is not DType.F32 or region.bias.size != conv.y_shape[-1]:
            return None
    return region


def _convolution(site: Site, product: Node) -> Convolution | None:
    """The product as a convolution; that of matrices as one over images of a pixel."""
    body = site.node.body
    assert body is not None
    kinds = [_type(site, v) for v in (product.inputs[0], product.inputs[1], product.output)]
    if any(k is None or not k.is_static for k in kinds):
        return None
    x, w, y = (k for k in kinds if k is not None)
    if not product.is_op("MatMul"):
        return convolution_of(product, x, w, y)
    rows, channels = math.prod(static_shape(x)[:-1]), static_shape(x)[-1]
    features = static_shape(w)[-1]
    ones = (1, 1)
    shapes = ((rows, *ones, channels), (features, *ones, channels), (rows, *ones, features))
    return Convolution(
        dtype=x.dtype, x_shape=shapes[0], w_shape=shapes[1], y_shape=shapes[2], strides=ones, dilations=ones, begin=(0, 0),
        end=(0, 0), group=1, transposed=False, channels_last=True,
    )  # fmt: skip


def _type(site: Site, value: Value | None) -> TensorType | None:
    """The type of a value of the body for the sizes at hand: its producer is typed by the operands that the region is given."""
    body = site.node.body
    assert body is not None
    kind = None if value is None else infer_graph(body, list(site.types)).get(value)
    return kind if isinstance(kind, TensorType) else None


def _take(site: Site, region: IntegerRegion, value: Value, node: Node) -> Value | None:
    """What ``node``, which alone reads ``value``, makes of it, where the kernel does that there; None where it does not."""
    region.seen.add(node)
    is_early = region.between is None and region.residual is None and not region.activation and not _is_held(region)
    if node.is_op("Add"):
        other = next((v for v in node.inputs if v is not value), None)
        handle, source = _handle(site, other), None if other is None else other.producer
        if handle is not None and is_early and region.bias is None and _is_row(handle, region.conv.y_shape[-1]):
            region.bias = handle
            return node.output
        if source is None or not source.is_op("DequantizeLinear") or region.residual is not None or _is_held(region):
            return None
        numbers, place = _numbers(site, source), _place(site, source.inputs[0])
        same = _type(site, node.output) == _type(site, value) == _type(site, other)
        if numbers is None or place is None or not same or len(source.output.users) != 1:
            return None
        region.seen.add(source)
        region.residual, region.of_residual = place, numbers
        return node.output
    if node.is_op("Relu", "Clip"):
        ends = [_number(site, v, end) for v, end in zip((*node.inputs[1:], None, None), (-math.inf, math.inf), strict=False)]
        low, high = (0.0, math.inf) if node.is_op("Relu") else (ends[0], ends[1])
        if low is None or high is None or low > high or _is_held(region):
            return None
        region.least, region.greatest = low, high
        return node.output
    if activation_of(node) and is_early:
        region.activation = activation_of(node)
        return node.output
    if node.is_op("QuantizeLinear"):
        numbers = _numbers(site, node)
        if numbers is None or any(node.attrs.get(name) for name in ("precision", "block_size")):
            return None
        body = site.node.body
        assert body is not None
        if node.output in body.outputs:
            region.result = numbers
            return node.output
        wide = node.output.users[0] if len(node.output.users) == 1 else None
        if wide is None or not wide.is_op("DequantizeLinear") or not is_early or _numbers(site, wide) != numbers:
            return None
        region.seen.add(wide)
        region.between = numbers
        return wide.output
    return None


def activation_of(node: Node) -> Activation:
    """The activation that a node is, but Relu, which is a bound; NONE for others."""
    if node.is_op("Gelu"):
        return Activation.GELU_TANH if node.attrs.get("approximate", "none") == "tanh" else Activation.GELU
    plain = node.attrs.get("alpha", 1.0) == 1.0
    return _ACTIVATIONS.get(node.op, Activation.NONE) if node.domain == ONNX and plain else Activation.NONE


def _is_held(region: IntegerRegion) -> bool:
    return region.least != -math.inf or region.greatest != math.inf


def _is_row(handle: Constant, features: int) -> bool:
    return handle.dtype is DType.F32 and handle.size == features == (handle.shape[-1] if handle.shape else 0)


def _number(site: Site, value: Value | None, absent: float) -> float | None:
    """A number of the body that is known; ``absent`` for none."""
    if value is None:
        return absent
    handle = _handle(site, value)
    return None if handle is None or handle.size != 1 else float(handle.array().reshape(-1)[0])


def _numbers(site: Site, node: Node) -> Numbers | None:
    """By which numbers a node quantizes or dequantizes, where they are one for the whole tensor."""
    narrow = node.output if node.is_op("QuantizeLinear") else node.inputs[0]
    scale = _handle(site, node.inputs[1])
    zero = _number(site, node.inputs[2] if len(node.inputs) > 2 else None, 0.0)
    kind = narrow.type if narrow is not None else None
    if scale is None or scale.size != 1 or scale.dtype is not DType.F32 or zero is None:
        return None
    if not isinstance(kind, TensorType) or kind.dtype not in _INTEGERS:
        return None
    return Numbers(float(scale.array().reshape(-1)[0]), int(zero), kind.dtype)


def _handle(site: Site, value: Value | None) -> Constant | None:
    """The constant that a value of the body is: one of its own, or one that it is given."""
    body = site.node.body
    assert body is not None
    if value is None or value.constant is not None:
        return None if value is None else value.constant
    return site.handles[body.inputs.index(value)] if value in body.inputs else None


def _place(site: Site, value: Value | None) -> Operand | None:
    body = site.node.body
    assert body is not None
    return Operand.input(body.inputs.index(value)) if value is not None and value in body.inputs else None


def _window(region: IntegerRegion) -> Array:
    c = region.conv
    return np.array(
        [
            *(*c.x_shape[1:3], c.channels, *c.y_shape[1:], *c.w_shape[1:3]),
            *(*c.strides, *c.dilations, *c.begin, region.of_x.zero),
        ],
        np.int32,
    )


def _ending(region: IntegerRegion) -> Array:
    def four(numbers: Numbers | None) -> tuple[float, ...]:
        return (1.0, 0.0, 0.0, 0.0) if numbers is None else (1.0 / numbers.scale, numbers.zero, *numbers.ends)

    between = 1.0 if region.between is None else region.between.scale
    added = (1.0, 0.0) if region.of_residual is None else (region.of_residual.scale, region.of_residual.zero)
    bounds = (region.least, region.greatest)
    return np.array([between, *four(region.between), *added, *bounds, *four(region.result)], np.float32)


def _turned_graph(weights: Constant, perm: Sequence[int]) -> Graph:
    graph = Graph("weights")
    x = graph.add_input("weights", TensorType(weights.dtype, weights.shape))
    graph.set_outputs([insert(graph, "Transpose", x, perm=list(perm))])
    return graph


def _scales_graph(region: IntegerRegion) -> Graph:
    """One scale for each feature: of the weights, times that of x."""
    graph = Graph("scales")
    graph.set_outputs([_scales(graph, region)])
    return graph


def _scales(graph: Graph, region: IntegerRegion) -> Value:
    scales = graph.add_input("scales", TensorType(region.scales.dtype, region.scales.shape))
    wide = insert(graph, "Mul", scales, graph.add_constant(np.float32(region.of_x.scale)))
    flat = insert(graph, "Reshape", wide, graph.add_constant(np.array([-1])))
    return insert(graph, "Expand", flat, graph.add_constant(np.array([region.conv.y_shape[-1]])))


def _bias_graph(region: IntegerRegion) -> Graph:
    """The bias less what the zero point of x adds to each sum."""
    graph = Graph("bias")
    weights = graph.add_input("weights", TensorType(region.weights.dtype, region.weights.shape))
    scales = _scales(graph, region)
    axes = [0] if region.turned else list(range(1, len(region.weights.shape)))
    wide = insert(graph, "Cast", weights, to=code_of_dtype(DType.I32))
    sums = insert(graph, "ReduceSum", wide, graph.add_constant(np.array(axes)), keepdims=0)
    factor = graph.add_constant(np.float32(-region.of_x.zero))
    total = insert(graph, "Mul", insert(graph, "Mul", insert(graph, "Cast", sums, to=code_of_dtype(DType.F32)), factor), scales)
    if region.bias is not None:
        bias = graph.add_input("bias", TensorType(region.bias.dtype, region.bias.shape))
        total = insert(graph, "Add", total, insert(graph, "Reshape", bias, graph.add_constant(np.array([-1]))))
    graph.set_outputs([total])
    return graph
