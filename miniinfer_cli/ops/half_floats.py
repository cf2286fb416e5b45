"""How each operation bears floats of 16 bits: a table, which ``passes/precision`` reads.

Every operation computes in f32 within, whatever it reads, and rounds once, at its results. So the question is what rounding its
operands and results costs: results may be too large for f16, or operands may need digits that 16 bits do not have.
"""

from enum import StrEnum

from miniinfer_cli.ops.registry import ONNX, OURS, find

_Names = frozenset[str]


class Bearing(StrEnum):
    """What an operation does to floats of 16 bits."""

    FOLLOWS = "follows"
    """Its results are about as large as its operands, and as exact."""
    BOUNDED = "bounded"
    """Its results are small and few digits suffice for them, whatever its operands are."""
    GROWS = "grows"
    """Its results may be far larger than its operands, or lose what counts: f32, and so is what follows elementwise."""
    EXACT = "exact"
    """Its operands need the digits of f32 (angles, coordinates, scales of quantization); its results may be rounded."""


_GROWS: _Names = frozenset({
    "Exp", "Pow", "Sinh", "Cosh", "Tan", "CumSum", "CumProd", "Range", "Det", "LpPool", "GlobalLpPool", "ReduceSum",
    "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
    "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "RowStatistics",
})  # fmt: skip
_EXACT: _Names = frozenset({
    "Sin", "Cos", "Mod", "AffineGrid", "NonMaxSuppression", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
    "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "Bernoulli", "Multinomial", "RandomNormal",
    "RandomNormalLike", "RandomUniform", "RandomUniformLike", "BitCast",
})  # fmt: skip
_BOUNDED: _Names = frozenset({
    "Sigmoid", "HardSigmoid", "Tanh", "Softsign", "Erf", "Atan", "Acos", "Asin", "Sign", "Softmax", "LogSoftmax",
    "Hardmax", "LayerNormalization", "RMSNormalization", "GroupNormalization", "GroupNormalizationNHWC",
    "InstanceNormalization", "MeanVarianceNormalization", "LpNormalization", "NormalizeByStatistics",
})  # fmt: skip
_FOLLOWS: _Names = frozenset({
    "Abs", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asinh", "Atanh", "Attention", "AveragePool", "AveragePoolNHWC",
    "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike",
    "CachedAttention", "CausalConvWithState", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat",
    "ConstantOfShape",
    "Conv", "ConvNHWC", "ConvTranspose", "ConvTransposeNHWC", "DeformConv", "DepthToSpace", "Div", "Dropout", "Einsum",
    "Elu", "Equal", "Excitation", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "GlobalAveragePoolNHWC", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GridSample", "HardSwish", "Identity", "IsInf", "IsNaN", "LRN", "LSTM", "LeakyRelu", "Less", "LessOrEqual",
    "LinearAttention", "Log", "MatMul", "Max", "MaxPool", "MaxPoolNHWC", "MaxRoiPool", "MaxUnpool", "Mean", "Min", "Mish",
    "Mul", "Neg", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "RNN", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceMin", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryAttention", "RotaryEmbedding", "Round",
    "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Size", "Slice", "Softplus", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "SqueezeExcitation", "Sub", "Sum", "SwiGLU", "Swish", "TensorScatter", "ThresholdedRelu",
    "Tile", "TopK",
    "Transpose", "Trilu", "Unique", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
_TABLE = {
    name: bearing
    for names, bearing in (
        (_GROWS, Bearing.GROWS), (_EXACT, Bearing.EXACT), (_BOUNDED, Bearing.BOUNDED), (_FOLLOWS, Bearing.FOLLOWS),
    )
    for name in names
}  # fmt: skip
_EXACT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Attention": (3,),  # the mask, of any type: a large negative number would be an infinity
    "GridSample": (1,),
    "MaxRoiPool": (1,),
    "Resize": (1, 2),
    "RoiAlign": (1,),
}
_COORDINATES: dict[str, tuple[int, ...]] = {"GridSample": (1,), "MaxRoiPool": (1,), "NonMaxSuppression": (0,), "RoiAlign": (1,)}


def bearing_of(domain: str, op: str) -> Bearing | None:
    """How an operation bears floats of 16 bits; None for one of which nothing is known: of a plugin, or of another domain."""
    return _TABLE.get(op) if domain in (ONNX, OURS) else None


def exact_operands(domain: str, op: str) -> tuple[int, ...]:
    """The inputs, by number, that keep f32 where the others are rounded."""
    return _EXACT_OPERANDS.get(op, ()) if domain == ONNX else ()


def coordinate_operands(domain: str, op: str) -> tuple[int, ...]:
    """The inputs, by number, that are places in an image: what they are made of needs the digits of f32, too."""
    return _COORDINATES.get(op, ()) if domain == ONNX else ()


def is_product(domain: str, op: str) -> bool:
    """Whether an operation sums products, for which 16 bits are there."""
    opdef = find(domain, op)
    return opdef is not None and opdef.flops is not None
