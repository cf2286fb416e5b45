"""Which tactics there are mutants of: for each lowering with several, their keys, without the numbers that depend on sizes."""

import re

_NUMBERS = (
    (r"^.*, softmax, .*$", "softmax"),
    (r"^columns, .*$", "columns"),
    (r"^patches, .*$", "patches"),
    (r"^.*, then by .*$", "then by a product"),
    (r"^.*, then (in one launch|step by step)$", r"then \1"),
    (r"^tokens .* in \d+ parts$", "tokens in parts"),
    (r"^tokens .* (ahead|together)$", "tokens"),
    (r"^rows \d+ by \d+ warps.* in \d+ parts$", "rows by warps in parts"),
    (r"^rows \d+ by \d+ warps.*$", "rows by warps"),
    (r"^warpgroups .* in \d+ parts$", "warpgroups in parts"),
    (r"^warpgroups .* ahead$", "warpgroups"),
    (r"^stem, .*$", "stem"),
    (r"^groups .*$", "groups"),
    (r"^cluster of .*$", "cluster"),
    (r"^depthwise tiles .*$", "depthwise tiles"),
    (r"^large .* by turns, .*$", "large by turns"),
    (r"^large .* ahead.*$", "large"),
    (r" in \d+ parts", " in parts"),
    (r"in \d+ passes", "in passes"),
    (r"by (\d+ threads|a thread)", "by threads"),
    (r"^sort by \d+$", "sort by so many"),
    (r"^depthwise \d+x\d+x\d+$", "depthwise"),
    (r"^integers \d+x\d+$", "integers"),
    (r"^slices of \d+$", "slices of outputs"),
)


def general(key: str) -> str:
    """A tactic's key with any numbers of parts and threads, and any products that it is made of."""
    for pattern, general in _NUMBERS:
        key = re.sub(pattern, general, key)
    return key


_TILES = ("gemm 64x64", "gemm 128x128")
_CONVOLUTION = ("cudnn", "cublaslt", *_TILES, "patches", "depthwise", "tiles 64x64", "direct")
_PIXELS = ("tokens", "tokens in parts", "large", "large by turns", "stem", "groups", "depthwise tiles")
_FUSED = tuple(f"fused {tile}" for tile in ("64x64", "64x32", "32x64", "32x32", "16x64", "16x32", "16x16"))
_ROWS = ("rows by warps", "rows by warps in parts")
_REDUCTION = ("reduce by threads", "reduce by threads in parts")

KEYS: dict[str, tuple[str, ...]] = {
    "matmul": (
        *("cublaslt", "cublaslt over C", "cublaslt padded", "cublaslt interleaved", "large"),
        *(
            key + parts
            for key in ("gemv_along_k", "gemv_along_n", *_TILES, "tokens", "rows by warps")
            for parts in ("", " in parts")
        ),
    ),
    "fused_matmul": (
        *("cublaslt", "large"),
        *(key + parts for key in ("gemv_along_n", *_TILES, "tokens", "rows by warps") for parts in ("", " in parts")),
    ),
    "normalized_product": ("tokens", "tokens in parts"),
    "row_products": _ROWS,
    "einsum": ("cublaslt", "cublaslt padded", "gemv_along_k", *_TILES, "rewritten"),
    "convolution": (*_CONVOLUTION, *_PIXELS, "cublaslt padded", "cudnn between transposes", "gemv_along_k"),
    "fused_conv": (*_CONVOLUTION, *_PIXELS),
    "quantized_conv": ("tiles 64x64", "direct"),
    "attention": (
        *("cudnn", "cudnn with a mask", "softmax"),
        *(key + parts for key in (*_FUSED, "warpgroups") for parts in ("", " in parts")),
    ),
    "rotary_attention": ("warpgroups", "warpgroups in parts"),
    "quantized_attention": ("warpgroups", "warpgroups in parts"),
    "cached_attention": ("parts of the cache", "a cluster for each head of keys"),
    "softmax": ("rows by threads", "columns by threads", "sums"),
    "layer_normalization": ("rows by threads", "statistics"),
    "fused_normalization": ("rows by threads",),
    "normalization": ("rows by threads", "statistics"),
    "reduction": _REDUCTION,
    "arg_reduction": _REDUCTION,
    "global_pooling": _REDUCTION,
    "quantized_matmul": (
        *("cublaslt", "cublaslt over signed bytes", *_TILES, "rewritten"),
        *(f"{key}, requantized" for key in ("cublaslt", "cublaslt over signed bytes", *_TILES)),
    ),
    "quantized_regions": ("integers", "integers by channel", "tokens", "tokens in parts", "large", "rewritten", *_ROWS),
    "deform_conv": ("columns",),
    "movement": ("tiles 64x64", "tiles 32x32", "copy", "concat", "split", "copies"),
    "scan_ops": ("scan by warps", *(f"scan by {of}{parts}" for of in ("blocks", "columns") for parts in ("", " in parts"))),
    "resize": ("resize in one pass", "resize in passes"),
    "scatter": ("scatter by lines", "scatter the last", "scatter sorted"),
    "linear_attention": ("columns by threads",),
    "topk": ("sort by so many",),
    "excitation": ("slices of outputs",),
    "squeeze_excitation": ("cluster",),
    "recurrent": ("then in one launch", "then step by step", "then by a product"),
}
"""By the module of the lowering; empty results and the like have one way, and are not among these."""
ALSO_IN = {
    "attention": ("attention_warpgroups",),
    "matmul": ("few_tokens", "large_products", "row_products"),
    "fused_matmul": ("few_tokens", "large_products", "row_products"),
    "quantized_regions": ("row_products",),
    "convolution": ("depthwise_tiles", "grouped_products", "patches", "pixel_products", "stems"),
    "fused_conv": ("depthwise_tiles", "grouped_products", "patches", "pixel_products", "stems"),
}
"""Test files of their tactics that are not called like the module."""
