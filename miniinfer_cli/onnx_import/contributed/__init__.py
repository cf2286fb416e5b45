"""Operators of com.microsoft, ONNX Runtime's own domain, as operations of ai.onnx; importing this registers all."""

from miniinfer_cli.onnx_import.contributed import (
    activations,
    attention,
    block_quantized,
    convolution,
    experts,
    group_query_attention,
    matmul,
    normalization,
    quantized,
    quantized_products,
    recurrent,
    renamed,
    rotary,
)

__all__ = [
    "activations",
    "attention",
    "block_quantized",
    "convolution",
    "experts",
    "group_query_attention",
    "matmul",
    "normalization",
    "quantized",
    "quantized_products",
    "recurrent",
    "renamed",
    "rotary",
]
