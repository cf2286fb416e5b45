"""FlexAttention: as attention where nothing is done to its scores, else as primitives around its sub-graphs."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import read_form
from miniinfer_cli.backends.cuda.tactics.attention.attention_tactics import attention_tactics
from miniinfer_cli.ir import Array, DType, Graph, Value, numpy_dtype
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code


@lowers("FlexAttention", domain="ai.onnx.preview")
def lower_flex_attention(site: Site) -> Rewrite | tuple[Tactic, ...] | None:
    """Sub-graphs are copied between the two products, so what they do is fused as any other nodes are."""
    if site.node.graphs:
        return Rewrite(_primitives(site))
    form = read_form(site) if len(site.types) == 3 else None
    return None if form is None else attention_tactics(form, Operand.output(0), site.target)


def _primitives(site: Site) -> Graph:
    graph = Graph("FlexAttention")
    operands = [None if t is None else graph.add_input(f"x{i}", t) for i, t in enumerate(site.types)]
    q, k, v, *captures = operands
    assert q is not None and k is not None and v is not None
    dtype = q.tensor.dtype
    wide = DType.F32 if dtype.is_half else dtype
    (batch, heads, queries, size), (_, kv_heads, keys, _) = site.shape(0), site.shape(1)
    v_size = site.shape(2)[3]
    code = site.attr("softmax_precision")
    precision = (DType.F64 if dtype is DType.F64 else DType.F32) if code is None else dtype_of_code(code)
    scale = site.attr("scale")
    factor = np.array(1 / math.sqrt(max(size, 1)) if scale is None else scale, numpy_dtype(wide))
    group = heads // max(kv_heads, 1)

    def constant(array: Array) -> Value:
        return graph.add_constant(array)

    def shaped(x: Value, *sizes: int) -> Value:
        return insert(graph, "Reshape", x, constant(np.array(sizes, np.int64)), allowzero=1)

    def cast(x: Value, to: DType) -> Value:
        return x if x.tensor.dtype is to else insert(graph, "Cast", x, to=code_of_dtype(to))

    def modified(x: Value, name: str) -> Value:
        if name not in site.node.graphs:
            return x
        (y,) = graph.inline(site.node.graphs[name], (x, *captures))
        graph.set_type(y, x.type)  # a sub-graph keeps the type it is given
        return y

    # Query heads of a group are rows of one product with the head of keys that they share.
    rows = shaped(insert(graph, "Mul", cast(q, wide), constant(factor)), batch, kv_heads, group * queries, size)
    scores = insert(graph, "MatMul", rows, insert(graph, "Transpose", cast(k, wide), perm=[0, 1, 3, 2]))
    scores = modified(cast(shaped(scores, batch, heads, queries, keys), precision), "score_mod")
    working = insert(graph, "Softmax", cast(scores, DType.F32) if precision.is_half else scores, axis=-1)
    probabilities = modified(cast(working, precision), "prob_mod")
    rows = shaped(cast(probabilities, wide), batch, kv_heads, group * queries, keys)
    y = cast(insert(graph, "MatMul", rows, cast(v, wide)), dtype)
    graph.set_outputs([shaped(y, batch, heads, queries, v_size)])
    return graph
