"""Which versions of ONNX's operators mean what their newest version means.

An operator's version is the opset that last changed it. For each version that a model of opset 7 or later can hold (and
of opset 6, which old exports still use) the operator either appears here, which says "the newest meaning, with defaults
for what is missing", or has a handler in ``upgrades``. A version in neither is refused by name: it is newer than this
release. The meanings were compared version by version in onnx.defs.

An operator in ``TAKEN_EARLY`` may stand in an opset from before it existed; the build's report notes it.

Operators that have no definition in ``ops`` run on the host as of their own version and are not listed.
"""

NEWEST = 28
"""The newest opset whose operators were compared."""

TAKEN_EARLY: dict[str, int] = {"LayerNormalization": 17, "ThresholdedRelu": 10}
"""Operators that exporters write into opsets from before they existed, with the version that is meant then."""

SAME: dict[str, tuple[int, ...]] = {
    "Abs": (6, 13), "Acos": (7, 22), "Acosh": (9, 22), "Add": (7, 13, 14), "AffineGrid": (20,), "And": (7,),
    "ArgMax": (1, 11, 12, 13), "ArgMin": (1, 11, 12, 13), "Asin": (7, 22), "Asinh": (9, 22), "Atan": (7, 22),
    "Atanh": (9, 22), "Attention": (23, 24, 25), "AveragePool": (1, 7, 10, 11, 19, 22), "BatchNormalization": (14, 15),
    "Bernoulli": (15, 22), "BitCast": (26,), "BitShift": (11, 28), "BitwiseAnd": (18,), "BitwiseNot": (18,),
    "BitwiseOr": (18,), "BitwiseXor": (18,), "Cast": (6, 9, 13, 19, 21, 23, 24, 25, 28), "CastLike": (15, 19, 21, 23, 24, 25),
    "CausalConvWithState": (27,), "Ceil": (6, 13), "Celu": (12, 28), "CenterCropPad": (18,), "Clip": (11, 12, 13),
    "Col2Im": (18,), "Compress": (9, 11, 28), "Concat": (4, 11, 13), "ConcatFromSequence": (11,),
    "ConstantOfShape": (9, 20, 21, 23, 24, 25), "Conv": (1, 11, 22), "ConvInteger": (10,), "ConvTranspose": (11, 22),
    "Cos": (7, 22), "Cosh": (9, 22), "CumProd": (26,), "CumSum": (11, 14), "DeformConv": (19, 22),
    "DepthToSpace": (1, 11, 13, 28), "DequantizeLinear": (10, 13, 19, 21, 23, 24, 25, 28), "Det": (11, 22),
    "Div": (7, 13, 14), "Dropout": (12, 13, 22), "DynamicQuantizeLinear": (11,), "Einsum": (12, 28), "Elu": (6, 22),
    "Equal": (7, 11, 13, 19), "Erf": (9, 13), "Exp": (6, 13), "Expand": (8, 13), "EyeLike": (9, 22),
    "Flatten": (1, 9, 11, 13, 21, 23, 24, 25), "Floor": (6, 13), "GRU": (7, 14, 22), "Gather": (1, 11, 13),
    "GatherElements": (11, 13), "GatherND": (11, 12, 13), "Gelu": (20,), "Gemm": (7, 9, 11, 13), "GlobalAveragePool": (1, 22),
    "GlobalLpPool": (2, 22), "GlobalMaxPool": (1, 22), "Greater": (7, 9, 13), "GreaterOrEqual": (12, 16),
    "GridSample": (20, 22), "HardSigmoid": (6, 22), "HardSwish": (14, 22), "Hardmax": (13,),
    "Identity": (1, 13, 14, 16, 19, 21, 23, 24, 25), "InstanceNormalization": (6, 22), "IsInf": (10, 20),
    "IsNaN": (9, 13, 20), "LRN": (1, 13), "LSTM": (7, 14, 22), "LeakyRelu": (6, 16),
    "Less": (7, 9, 13), "LessOrEqual": (12, 16), "LinearAttention": (27,), "Log": (6, 13), "LogSoftmax": (13,),
    "LpNormalization": (1, 22), "LpPool": (2, 11, 18, 22), "MatMul": (1, 9, 13), "MatMulInteger": (10,),
    "Max": (6, 8, 12, 13), "MaxPool": (1, 8, 10, 11, 12, 22), "MaxRoiPool": (1, 22), "MaxUnpool": (9, 11, 22),
    "Mean": (6, 8, 13), "MeanVarianceNormalization": (9, 13), "Min": (6, 8, 12, 13), "Mish": (18, 22), "Mod": (10, 13, 28),
    "Mul": (7, 13, 14), "Multinomial": (7, 22), "Neg": (6, 13), "NegativeLogLikelihoodLoss": (12, 13, 22),
    "NonMaxSuppression": (10, 11), "NonZero": (9, 13), "Not": (1,), "OneHot": (11, 28), "Optional": (15, 28),
    "OptionalGetElement": (15, 18, 28), "OptionalHasElement": (15, 18, 28), "Or": (7,), "PRelu": (7, 9, 16),
    "Pad": (11, 13, 18, 19, 21, 23, 24, 25), "Pow": (7, 12, 13, 15), "QLinearConv": (10,), "QLinearMatMul": (10, 21),
    "QuantizeLinear": (10, 13, 19, 21, 23, 24, 25, 28), "RNN": (7, 14, 22),
    "RandomNormal": (1, 22), "RandomNormalLike": (1, 22), "RandomUniform": (1, 22), "RandomUniformLike": (1, 22),
    "Range": (11, 27), "Reciprocal": (6, 13), "ReduceL1": (18,), "ReduceL2": (18,), "ReduceLogSum": (18, 28),
    "ReduceLogSumExp": (18, 28), "ReduceMax": (18, 20), "ReduceMean": (18,), "ReduceMin": (18, 20), "ReduceProd": (18,),
    "ReduceSum": (13,), "ReduceSumSquare": (18,), "Relu": (6, 13, 14), "Reshape": (5, 13, 14, 19, 21, 23, 24, 25),
    "ReverseSequence": (10, 28), "RoiAlign": (16, 22), "RotaryEmbedding": (23,), "Round": (11, 22),
    "ScatterElements": (11, 13, 16, 18), "ScatterND": (11, 13, 16, 18), "Selu": (6, 22), "SequenceAt": (11,),
    "SequenceConstruct": (11,), "SequenceEmpty": (11,), "SequenceErase": (11,), "SequenceInsert": (11,),
    "SequenceLength": (11,), "Shape": (1, 13, 15, 19, 21, 23, 24, 25), "Shrink": (9,), "Sigmoid": (6, 13), "Sign": (9, 13),
    "Sin": (7, 22), "Sinh": (9, 22), "Size": (1, 13, 19, 21, 23, 24, 25), "Slice": (10, 11, 13), "Softmax": (13,),
    "SoftmaxCrossEntropyLoss": (12, 13), "Softplus": (1, 22), "Softsign": (1, 22), "SpaceToDepth": (1, 13, 28),
    "Split": (18,), "SplitToSequence": (11, 24), "Sqrt": (6, 13), "Squeeze": (13, 21, 23, 24, 25), "Sub": (7, 13, 14),
    "Sum": (6, 8, 13), "SwiGLU": (28,), "Swish": (24,), "Tan": (7, 22), "Tanh": (6, 13), "TensorScatter": (24,),
    "ThresholdedRelu": (10, 22), "Tile": (6, 13), "TopK": (10, 11, 24), "Transpose": (1, 13, 21, 23, 24, 25), "Trilu": (14,),
    "Unique": (11, 28), "Unsqueeze": (13, 21, 23, 24, 25), "Where": (9, 16), "Xor": (7,),
}  # fmt: skip
