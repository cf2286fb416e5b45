"""FlexAttention (ai.onnx.preview): attention whose scores and probabilities go through sub-graphs.

    FlexAttention(Q, K, V, *captures)    score_mod(scores, *captures), prob_mod(probabilities, *captures)

Captures are as for the operations of ``control_flow``: all inputs after V, the same for both sub-graphs.
"""

import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ops.attention import grouped_matmul, infer_attention
from miniinfer_cli.ops.flops import attention_flops
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import InferGraph, RunGraph, define
from miniinfer_cli.ops.shapes import expect_rank
from miniinfer_cli.ops.softmax import softmax_into
from miniinfer_cli.ops.type_codes import float_of_code
from miniinfer_cli.ops.type_merging import infer_inner, merge_types
from miniinfer_cli.ops.work import attention_work


def infer_flex_attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    *captures: Type | None,
    scale: float | None = None,
    softmax_precision: int | None = None,
    graphs: dict[str, Graph],
    infer_graph: InferGraph,
) -> TensorType:
    """[batch, query heads, queries, value size] of the type of ``q``; each sub-graph keeps the type it is given."""
    for operand in (q, k, v):
        expect_rank("FlexAttention", operand, 4)
    y, _, _, scores = infer_attention(q, k, v, n_outputs=4)
    given = TensorType(_precision(q.dtype, softmax_precision), scores.shape)
    for name in ("score_mod", "prob_mod"):
        if name in graphs:
            results = infer_inner(graphs[name], (given, *captures), infer_graph)
            if len(results) != 1:
                raise ModelError(f"FlexAttention {name} has {len(results)} outputs, expected 1")
            merged = merge_types(f"FlexAttention {name}", given, results[0])
            if given.is_static and merged != given:
                raise ModelError(f"FlexAttention {name} gives {results[0]}, expected {given}")
    return y


def flex_attention(
    q: Array,
    k: Array,
    v: Array,
    *captures: Array,
    scale: float | None = None,
    softmax_precision: int | None = None,
    graphs: dict[str, Graph],
    run_graph: RunGraph,
    for_each: ForEach | None = None,
) -> Array:
    """prob_mod(softmax(score_mod(q @ k.T * scale))) @ v per head. Source: ONNX FlexAttention-1 of ai.onnx.preview."""
    wide = [x.astype(np.float32) if is_half(x) else x for x in (q, k, v)]
    factor = 1 / math.sqrt(max(q.shape[3], 1)) if scale is None else scale
    scores = grouped_matmul(wide[0] * wide[0].dtype.type(factor), wide[1].swapaxes(2, 3), for_each)
    precision = numpy_dtype(_precision(dtype_of(q), softmax_precision))
    scores = scores.astype(precision, copy=False)
    if "score_mod" in graphs:
        (scores,) = run_graph(graphs["score_mod"], (scores, *captures))
    scores = scores.astype(np.float32) if is_half(scores) else scores
    probabilities = softmax_into(np.empty_like(scores), scores, -1).astype(precision, copy=False)
    if "prob_mod" in graphs:
        (probabilities,) = run_graph(graphs["prob_mod"], (probabilities, *captures))
    return grouped_matmul(probabilities.astype(wide[2].dtype), wide[2], for_each).astype(q.dtype, copy=False)


def _precision(dtype: DType, softmax_precision: int | None) -> DType:
    """The element type of scores and probabilities: as asked for, else f64 for f64 and f32 for the rest."""
    if softmax_precision is not None:
        return float_of_code("FlexAttention", "softmax_precision", softmax_precision)
    return DType.F64 if dtype is DType.F64 else DType.F32


FLEX_ATTENTION = define(
    "FlexAttention",
    domain="ai.onnx.preview",
    infer=infer_flex_attention,
    reference=flex_attention,
    optional_graphs=("score_mod", "prob_mod"),
    work=attention_work,
    heavy=True,
    flops=attention_flops,
)
