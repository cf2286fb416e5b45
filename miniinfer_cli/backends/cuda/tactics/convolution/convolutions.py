"""A convolution with everything that its kernels and libraries want to know.

The regions' lowering and those of the bare operations look at the same record: what an epilogue adds is in ``Finish``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute, ConvolutionProblem
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.ir import Constant, DType, Node, TensorType
from miniinfer_cli.ops.conv_transpose import transpose_padding
from miniinfer_cli.ops.windows import window

Ints = tuple[int, ...]
LIBRARY_DTYPES = frozenset({DType.F32, DType.F16, DType.BF16})
# cuDNN has kernels at hand for these. Others it compiles for every shape (60 to 300 ms each, on an H200), or does by an engine
# of last resort: 1x1 convolutions with relu6 took 32 ms where without it they take 0.1 ms.
LIBRARY_ACTIVATIONS = frozenset({Activation.NONE, Activation.RELU})
PRODUCT_ACTIVATIONS = frozenset({*LIBRARY_ACTIVATIONS, Activation.GELU_TANH})
_ACTIVATIONS = {
    "Relu": Activation.RELU,
    "Sigmoid": Activation.SIGMOID,
    "Tanh": Activation.TANH,
    "HardSwish": Activation.HARD_SWISH,
}
_AXES = 3  # spatial axes that kernels have


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """Shapes as stored: x ``[N, C, spatial...]`` and w ``[K, C/group, kernel...]``, or with the channels last.

    ``transposed``: w is ``[C, K/group, kernel...]``, or with the last two turned; ``begin`` and ``end`` are then how much
    is cut off the output, ``end`` as the plain convolution that goes the other way has it: below 0 where padding is added.
    """

    dtype: DType
    x_shape: Ints
    w_shape: Ints
    y_shape: Ints
    strides: Ints
    dilations: Ints
    begin: Ints
    end: Ints
    group: int
    transposed: bool
    channels_last: bool

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.x_shape[-1 if self.channels_last else 1] // self.group

    @property
    def features(self) -> int:
        """Output channels of a group."""
        return self.y_shape[-1 if self.channels_last else 1] // self.group

    @property
    def taps(self) -> int:
        """Elements of the kernel's window."""
        return math.prod(self.spatial(self.w_shape))

    @property
    def is_depthwise(self) -> bool:
        """One input channel for each output channel, channels last."""
        return self.channels_last and not self.transposed and self.channels == 1 and self.features == 1

    def spatial(self, shape: Ints) -> Ints:
        """The spatial sizes within one of the shapes."""
        return shape[1:-1] if self.channels_last else shape[2:]


@dataclass(frozen=True, slots=True)
class Finish:
    """What follows the sum of products: ``activation(total + bias + residual)``."""

    bias: Operand | None = None
    residual: Operand | None = None
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True)
class ConvolutionOperands:
    """Input, weights and output of a convolution. ``weights`` is the constant behind ``w``, None where that is computed;
    ``x_strides`` are those of the input, None where it is dense."""

    x: Operand
    w: Operand
    y: Operand
    weights: Constant | None = None
    x_strides: Ints | None = None


def convolution_of(node: Node, x: TensorType, w: TensorType, y: TensorType) -> Convolution | None:
    """The convolution that a node is; None for more spatial axes than kernels have, and for what is no convolution."""
    forms = {"Conv": (False, False), "ConvNHWC": (False, True), "ConvTranspose": (True, False), "ConvTransposeNHWC": (True, True)}
    if node.op not in forms or node.body is not None:
        return None
    transposed, channels_last = forms[node.op]
    return convolution(node.op, node.attrs, x, w, y, transposed=transposed, channels_last=channels_last)


def convolution(
    op: str, attrs: Mapping[str, Any], x: TensorType, w: TensorType, y: TensorType, *, transposed: bool, channels_last: bool
) -> Convolution | None:
    """The record for ONNX's attributes and operands of these types."""
    x_shape, w_shape, y_shape = (static_shape(t) for t in (x, w, y))
    middle = slice(1, -1) if channels_last else slice(2, None)
    sizes, kernel = x_shape[middle], w_shape[middle]
    if len(sizes) > _AXES:
        return None
    names = ("strides", "dilations", "pads", "auto_pad")
    geometry = window(op, kernel, **{k: attrs[k] for k in names if k in attrs})
    if transposed:
        begin = transpose_padding(geometry, sizes, attrs.get("output_padding"), attrs.get("output_shape"))
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, geometry.dilations, strict=True)]
        full = [(n - 1) * s + span for n, s, span in zip(sizes, geometry.strides, spans, strict=True)]
        end: Sequence[int] = [f - b - out for f, b, out in zip(full, begin, y_shape[middle], strict=True)]
    else:
        begin, end = geometry.padding(sizes)
    group = int(attrs.get("group", 1))
    return Convolution(
        dtype=x.dtype,
        x_shape=x_shape,
        w_shape=w_shape,
        y_shape=y_shape,
        strides=tuple(geometry.strides),
        dilations=tuple(geometry.dilations),
        begin=tuple(begin),
        end=tuple(end),
        group=group,
        transposed=transposed,
        channels_last=channels_last,
    )


def library_problem(conv: Convolution, finish: Finish, target: Target) -> ConvolutionProblem | None:
    """The convolution in cuDNN's terms, None where it has no words for it. Operands that are channels first are turned for it."""
    shapes = (conv.x_shape, conv.w_shape, conv.y_shape)
    if conv.dtype not in LIBRARY_DTYPES or finish.activation not in LIBRARY_ACTIVATIONS or any(0 in s for s in shapes):
        return None
    if finish.residual is not None and not conv.channels_last:  # it would have to be turned, too
        return None
    ends = conv.end
    if conv.transposed:
        # Output padding: positions that the last taps do not reach, so long as the plain convolution has no window there.
        if any(e <= -s for e, s in zip(conv.end, conv.strides, strict=True)):
            return None
        ends = tuple(max(e, 0) for e in conv.end)
    x_shape, w_shape, y_shape = shapes if conv.channels_last else (turned(s) for s in shapes)
    return ConvolutionProblem(
        dtype=conv.dtype,
        x_shape=x_shape,
        w_shape=w_shape,
        y_shape=y_shape,
        strides=conv.strides,
        dilations=conv.dilations,
        pads_begin=conv.begin,
        pads_end=ends,
        group=conv.group,
        transposed=conv.transposed,
        bias=finish.bias is not None,
        residual=finish.residual is not None,
        activation=finish.activation,
        compute=Compute.TF32 if conv.dtype is DType.F32 and target.tf32 else Compute.F32,
    )


def product_of(conv: Convolution, finish: Finish) -> Product | None:
    """The matrix product of pixels and weights that a kernel of one tap is; None for another kernel or activation."""
    plain = not conv.transposed and conv.channels_last and conv.group == 1 and conv.channels > 0
    moves = any(s != 1 for s in conv.strides) or any(conv.begin) or any(conv.end)
    if not plain or conv.taps != 1 or moves or finish.activation not in PRODUCT_ACTIVATIONS:
        return None
    return product_of_rows(conv, finish)


def product_of_rows(conv: Convolution, finish: Finish) -> Product:
    """The matrix product of windows, a dense row each, and the weights: for a finish that products have."""
    rows, features, length = math.prod(conv.y_shape[:-1]), conv.features, conv.taps * conv.channels
    types = (conv.dtype, conv.dtype, conv.dtype)
    return Product(
        *(rows, features, length, *types, False, True, length, length, features),
        c=None if finish.residual is None else (features, 1),
        bias=None if finish.bias is None else (0, 1),
        activation=finish.activation,
    )


def estimate_of(conv: Convolution, finish: Finish) -> Estimate:
    """A multiplication and an addition for each tap, channel and output; every operand read once, Y written once."""
    y, item = math.prod(conv.y_shape), element_nbytes(conv.dtype)
    # Transposed, each element of X meets each tap and feature of its group.
    sums = math.prod(conv.x_shape) * conv.features * conv.taps if conv.transposed else y * conv.channels * conv.taps
    after = (finish.bias is not None) + (finish.residual is not None) + bool(finish.activation)
    moved = math.prod(conv.x_shape) + math.prod(conv.w_shape) + y * (2 if finish.residual is not None else 1)
    moved += conv.features * conv.group if finish.bias is not None else 0
    return Estimate(2 * sums + after * y, moved * item)


def turned(shape: Ints) -> Ints:
    """A channels-first shape with the channels last."""
    return (shape[0], *shape[2:], shape[1])


def activation_of(node: Node) -> Activation:
    """The activation that the node is, NONE where it is none that kernels have."""
    if node.domain:
        return Activation.NONE
    match node.op:
        case "Swish":
            return Activation.SWISH if node.attrs.get("alpha", 1.0) == 1 else Activation.NONE
        case "Elu":
            return Activation.ELU if node.attrs.get("alpha", 1.0) == 1 else Activation.NONE
        case "Gelu":
            tanh = node.attrs.get("approximate", "none") == "tanh"
            return Activation.GELU_TANH if tanh else Activation.GELU
        case "Clip":
            limits = [None if v is None or v.constant is None else v.constant.array().item() for v in node.inputs[1:]]
            return Activation.RELU6 if limits == [0, 6] else Activation.NONE
    return _ACTIVATIONS.get(node.op, Activation.NONE)
