"""Fast forms of the hot operations on the CPU; the file names mirror ``ops``. Importing this registers them."""

from miniinfer_cli.backends.cpu.lowering import (
    attention,
    conv_transpose,
    convolution,
    matmul,
    movement,
    pointwise,
    pooling,
    quantize,
    quantized_conv,
    quantized_matmul,
    quantized_region,
    recurrent,
    reduction,
    region,
    resize,
    softmax,
)

__all__ = [
    "attention",
    "conv_transpose",
    "convolution",
    "matmul",
    "movement",
    "pointwise",
    "pooling",
    "quantize",
    "quantized_conv",
    "quantized_matmul",
    "quantized_region",
    "recurrent",
    "reduction",
    "region",
    "resize",
    "softmax",
]
