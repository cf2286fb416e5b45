"""GPT-2 (Radford et al. 2019) as HF transformers exported it at opset 13; 124 439 808 parameters, or 774 030 080 (large)."""

import ml_dtypes
import numpy as np

from sample_models.graph_writer import GraphWriter
from sample_models.layers import decomposed_layer_norm, split_heads, tanh_gelu
from sample_models.request import Request

OPSET = 13
EPSILON = 1e-5
POSITIONS = 1024
TOKENS = 50257


def write(graph: GraphWriter, request: Request) -> None:
    """input_ids [batch, seq] to logits [batch, seq, 50257]; ``small``: two layers of 32, 4 heads, 61 tokens, 32 positions."""
    _write(graph, request, 768, 12, 12)


def write_large(graph: GraphWriter, request: Request) -> None:
    """The same with 36 layers of 1280, 20 heads: 3.1 GB of weights in f32."""
    _write(graph, request, 1280, 36, 20)


def _write(graph: GraphWriter, request: Request, width: int, layers: int, heads: int) -> None:
    tokens, positions = TOKENS, POSITIONS
    if request.small:
        width, layers, heads, tokens, positions = 32, 2, 4, 61, 32
    ids = graph.input("input_ids", "int64", [request.batch, request.seq], high=tokens)
    with graph.scope("transformer"):
        ids = graph.reshape(ids, [-1, graph.size(ids, 1, request.seq)])
        words = graph.normal("wte.weight", (tokens, width), width**-0.5)
        here = graph.node("Range", [graph.constant(0), _scalar(graph, graph.size(ids, 1, request.seq)), graph.constant(1)])
        here = graph.node("Unsqueeze", [here, graph.constant([0])])
        places = graph.node("Gather", [graph.normal("wpe.weight", (positions, width), width**-0.5), here])
        x = graph.node("Add", [graph.node("Gather", [words, ids]), places])
        triangle = graph.weight("attn.bias", np.tril(np.ones((1, 1, positions, positions), bool)))
        for layer in range(layers):
            with graph.scope(f"h.{layer}"):
                # The published start: what is added to the stream shrinks with the number of sums.
                gain = (2 * layers) ** -0.5
                y = _attention(
                    graph, decomposed_layer_norm(graph, "ln_1", x, width, EPSILON), triangle, request, width, heads, gain
                )
                x = graph.node("Add", [y, x])
                y = decomposed_layer_norm(graph, "ln_2", x, width, EPSILON)
                y = tanh_gelu(graph, "mlp.act", _conv1d(graph, "mlp.c_fc", y, request, width, 4 * width))
                x = graph.node("Add", [x, _conv1d(graph, "mlp.c_proj", y, request, 4 * width, width, gain)])
        x = decomposed_layer_norm(graph, "ln_f", x, width, EPSILON)
    with graph.scope("lm_head"):  # tied: the token embedding, transposed
        logits = graph.node("MatMul", [x, graph.node("Transpose", [words], perm=[1, 0])])
    graph.output("logits", logits, graph.dtype, [request.batch, request.seq, tokens])


def _conv1d(graph: GraphWriter, name: str, x: str, request: Request, width: int, out: int, gain: float = 1.0) -> str:
    """HF's Conv1D, a linear layer whose weight is [width, out]: flattened, Gemm, and viewed back."""
    with graph.scope(name):
        batch, seq = graph.size(x, 0, request.batch), graph.size(x, 1, request.seq)
        weights = [graph.normal("weight", (width, out), gain * width**-0.5), graph.normal("bias", (out,), 0.02)]
        y = graph.node("Gemm", [graph.reshape(x, [-1, width]), *weights], alpha=1.0, beta=1.0)
        return graph.reshape(y, [batch, seq, out])


def _attention(graph: GraphWriter, x: str, triangle: str, request: Request, width: int, heads: int, gain: float) -> str:
    with graph.scope("attn"):
        size = width // heads
        qkv = _conv1d(graph, "c_attn", x, request, width, 3 * width)
        q, k, v = graph.nodes("Split", [qkv, graph.constant([width] * 3)], outputs=3, axis=2)
        q, k, v = (
            split_heads(graph, value, [graph.size(value, 0, request.batch), graph.size(value, 1, request.seq), heads, size], perm)
            for value, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3]))
        )
        scores = graph.node("Div", [graph.node("MatMul", [q, k]), graph.constant(float(size) ** 0.5)])
        seen = _corner(graph, triangle, scores, request.seq)
        scores = graph.node("Where", [seen, scores, graph.constant(float(ml_dtypes.finfo(graph.dtype).min))])
        y = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), v])
        y = graph.node("Transpose", [y], perm=[0, 2, 1, 3])
        y = graph.reshape(y, [graph.size(y, 0, request.batch), graph.size(y, 1, request.seq), width])
        return _conv1d(graph, "c_proj", y, request, width, width, gain)


def _corner(graph: GraphWriter, triangle: str, scores: str, seq: int | str) -> str:
    """The triangle's rows keys-queries to keys and its columns 0 to keys, as HF slices it for a cache that may be there."""
    queries, keys = graph.size(scores, 2, seq), graph.size(scores, 3, seq)
    if isinstance(queries, int):
        start, end = graph.constant([0]), graph.constant([queries])
    else:
        start = graph.node("Unsqueeze", [graph.node("Sub", [keys, queries]), graph.constant([0])])
        end = graph.node("Unsqueeze", [keys, graph.constant([0])])
    one = graph.constant([1])
    rows = graph.node("Slice", [triangle, start, end, graph.constant([2]), one])
    return graph.node("Slice", [rows, graph.constant([0]), end, graph.constant([3]), one])


def _scalar(graph: GraphWriter, size: int | str) -> str:
    return graph.constant(size) if isinstance(size, int) else size
