"""A region of a quantized product that is one kernel of bytes: what it is made of, read from the region's body.

That is: sums of products of bytes, scaled by feature; a bias, and what the body rounds on the way; a residual of bytes or of
floats; two numbers between which the result is held; and bytes again. Bytes are whole numbers, or floats of 8 bits. Other bodies
are not taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.site import Site, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, activation_of, convolution_of
from miniinfer_cli.backends.cuda.tactics.convolution.folding import folding_of
from miniinfer_cli.ir import Constant, DType, Node, TensorType, Value
from miniinfer_cli.ir.parts import constant_within
from miniinfer_cli.ir.quantization import FP8_LARGEST
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.quantize import integer_range

PACK = 16
"""Bytes that a copy takes, all of one tap."""
INTEGERS = (DType.I8, DType.U8)
_BYTES = (*INTEGERS, DType.F8E4M3FN)
_FLOATS = (DType.F32, DType.F16, DType.BF16)
_ACTIVATIONS = (
    Activation.GELU,
    Activation.GELU_TANH,
    Activation.HARD_SWISH,
    Activation.SIGMOID,
    Activation.SWISH,
    Activation.TANH,
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Scale and zero point of a tensor of bytes; of one of floats, as it is, 1 and 0."""

    scale: float
    zero: int
    dtype: DType

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the greatest of its numbers."""
        most = int(FP8_LARGEST.get(self.dtype, 0))
        return (-most, most) if most else integer_range(self.dtype)


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
    floats: DType = DType.F32
    """What leaves where that is no bytes."""
    x_strides: tuple[int, ...] | None = None
    """Of x, where it is not dense."""
    seen: set[Node] = field(default_factory=set)


def integer_region(site: Site, product: Node, sources: Sequence[Node]) -> IntegerRegion | None:
    """The region of ``product``, whose operands ``sources`` dequantize; None for one that the kernel does not do."""
    body = site.node.body
    assert body is not None
    types = infer_graph(body, list(site.types))  # for the sizes at hand
    region = _beginning(site, types, product, sources)
    if region is None:
        return None
    region.seen |= {product, *sources}
    value = product.output
    while value not in body.outputs:
        if len(value.users) != 1:
            return None
        following = _take(site, types, region, value, value.users[0])
        if following is None:
            return None
        value = following
    kind = _type(types, value)
    if region.result is None:
        if kind is None or kind.dtype not in _FLOATS:
            return None
        region.floats = kind.dtype
    return region if region.seen == set(body) else None


def _beginning(site: Site, types: Types, product: Node, sources: Sequence[Node]) -> IntegerRegion | None:
    """The product itself: bytes by constant ones whose zero points are 0, in packs of 16 along the channels, or so few that
    pixels are folded.

    Integers by signed ones, floats of 8 bits by such.
    """
    x, w = sources
    of_x, place = numbers_of(site, x), _place(site, x.inputs[0])
    weights, scales = _handle(site, w.inputs[0]), _handle(site, w.inputs[1])
    stored = _place(site, w.inputs[0])
    if of_x is None or place is None or weights is None or scales is None or stored is None:
        return None
    if weights.dtype is not (of_x.dtype if of_x.dtype not in INTEGERS else DType.I8):
        return None
    zeros = _handle(site, w.inputs[2]) if len(w.inputs) > 2 and w.inputs[2] is not None else None
    if (len(w.inputs) > 2 and w.inputs[2] is not None and zeros is None) or (zeros is not None and zeros.array().any()):
        return None
    if scales.dtype is not DType.F32 or w.attrs.get("block_size", 0):
        return None
    conv = _convolution(types, product)
    if conv is None or not math.prod(conv.y_shape) or not conv.channels_last:
        return None
    by_channel = conv.is_depthwise and conv.group % PACK == 0 and of_x.dtype in INTEGERS
    folds = conv.channels % PACK and not product.is_op("MatMul") and folding_of(conv) is not None
    if not by_channel and (conv.group != 1 or (conv.channels % PACK and not folds)):
        return None
    if len(conv.x_shape) != 4 or math.prod(conv.y_shape[:-1]) >= 1 << 28 or scales.size not in (1, conv.y_shape[-1]):
        return None
    turned = product.is_op("MatMul")
    region = IntegerRegion(conv, place, of_x, weights, stored, scales, turned)
    region.x_strides = site.strided[place.number] if site.strided else None
    if not turned and len(product.inputs) > 2 and product.inputs[2] is not None:
        region.bias = _handle(site, product.inputs[2])
        if region.bias is None or region.bias.dtype is not DType.F32 or region.bias.size != conv.y_shape[-1]:
            return None
    return region


def _convolution(types: Types, product: Node) -> Convolution | None:
    """The product as a convolution; that of matrices as one over images of a pixel."""
    kinds = [_type(types, v) for v in (product.inputs[0], product.inputs[1], product.output)]
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


def _type(types: Types, value: Value | None) -> TensorType | None:
    kind = None if value is None else types.get(value)
    return kind if isinstance(kind, TensorType) else None


def _take(site: Site, types: Types, region: IntegerRegion, value: Value, node: Node) -> Value | None:
    """What ``node``, which alone reads ``value``, makes of it, where the kernel does that there; None where it does not."""
    region.seen.add(node)
    is_early = region.between is None and region.residual is None and not region.activation and not _is_held(region)
    if node.is_op("Add"):
        other = next((v for v in node.inputs if v is not value), None)
        handle, source = _handle(site, other), None if other is None else other.producer
        if handle is not None and is_early and region.bias is None and _is_row(handle, region.conv.y_shape[-1]):
            region.bias = handle
            return node.output
        kind = _type(types, other)
        if kind is None or region.residual is not None or _is_held(region):
            return None
        if not _type(types, node.output) == _type(types, value) == kind:
            return None
        if source is not None and source.is_op("Cast") and len(source.output.users) == 1:
            other, kind = source.inputs[0], _type(types, source.inputs[0])
            region.seen.add(source)
            source = None if other is None else other.producer
        if source is None and kind is not None:
            numbers, place = Numbers(1.0, 0, kind.dtype) if kind.dtype in _FLOATS else None, _place(site, other)
        elif source is None:
            return None
        elif source.is_op("DequantizeLinear") and len(source.output.users) == 1:
            numbers, place = numbers_of(site, source), _place(site, source.inputs[0])
            region.seen.add(source)
        else:
            return None
        if numbers is None or place is None:
            return None
        region.residual, region.of_residual = place, numbers
        return node.output
    if node.is_op("Cast"):  # to floats of 16 bits and back: one rounding, in the end, does
        kinds = [_type(types, v) for v in (value, node.output)]
        return node.output if all(k is not None and k.dtype in _FLOATS for k in kinds) else None
    if node.is_op("Relu", "Clip"):
        ends = [_number(site, v, end) for v, end in zip((*node.inputs[1:], None, None), (-math.inf, math.inf), strict=False)]
        low, high = (0.0, math.inf) if node.is_op("Relu") else (ends[0], ends[1])
        if low is None or high is None or low > high or _is_held(region):
            return None
        region.least, region.greatest = low, high
        return node.output
    if is_early and activation_of(node) in _ACTIVATIONS:
        region.activation = activation_of(node)
        return node.output
    if node.is_op("QuantizeLinear"):
        numbers = numbers_of(site, node)
        plain = not any(node.attrs.get(name) for name in ("precision", "block_size")) and node.attrs.get("saturate", 1)
        if numbers is None or not plain:
            return None
        body = site.node.body
        assert body is not None
        if node.output in body.outputs:
            region.result = numbers
            return node.output
        wide = node.output.users[0] if len(node.output.users) == 1 else None
        if wide is None or not wide.is_op("DequantizeLinear") or not is_early or numbers_of(site, wide) != numbers:
            return None
        region.seen.add(wide)
        region.between = numbers
        return wide.output
    return None


def _is_held(region: IntegerRegion) -> bool:
    return region.least != -math.inf or region.greatest != math.inf


def _is_row(handle: Constant, features: int) -> bool:
    return handle.dtype in _FLOATS and handle.size == features == (handle.shape[-1] if handle.shape else 0)


def _number(site: Site, value: Value | None, absent: float) -> float | None:
    """A number of the body that is known; ``absent`` for none."""
    if value is None:
        return absent
    handle = _handle(site, value)
    return None if handle is None or handle.size != 1 else float(handle.array().reshape(-1)[0])


def numbers_of(site: Site, node: Node) -> Numbers | None:
    """By which numbers a node quantizes or dequantizes, where they are one for the whole tensor."""
    narrow = node.output if node.is_op("QuantizeLinear") else node.inputs[0]
    scale = _handle(site, node.inputs[1])
    zero = _number(site, node.inputs[2] if len(node.inputs) > 2 else None, 0.0)
    kind = narrow.type if narrow is not None else None
    if scale is None or scale.size != 1 or scale.dtype is not DType.F32 or zero is None:
        return None
    if not isinstance(kind, TensorType) or kind.dtype not in _BYTES:
        return None
    return Numbers(float(scale.array().reshape(-1)[0]), int(zero), kind.dtype)


def _handle(site: Site, value: Value | None) -> Constant | None:
    assert site.node.body is not None
    return constant_within(site.node.body, site.handles, value)


def _place(site: Site, value: Value | None) -> Operand | None:
    body = site.node.body
    assert body is not None
    return Operand.input(body.inputs.index(value)) if value is not None and value in body.inputs else None
