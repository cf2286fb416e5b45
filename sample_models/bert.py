"""BERT-base (Devlin et al. 2018) as HF transformers exported it at opset 14: everything in primitives; 109 482 240 parameters."""

import ml_dtypes
import numpy as np

from sample_models.graph_writer import GraphWriter
from sample_models.layers import decomposed_layer_norm, erf_gelu, linear, split_heads
from sample_models.request import Request

OPSET = 14
EPSILON = 1e-12


def write(graph: GraphWriter, request: Request) -> None:
    """input_ids, attention_mask, token_type_ids [batch, seq] to last_hidden_state [batch, seq, 768] and pooler_output.

    ``small``: two layers of 32, 4 heads, 61 tokens, 32 positions.
    """
    width, layers, heads, tokens, positions = (32, 2, 4, 61, 32) if request.small else (768, 12, 12, 30522, 512)
    shape = [request.batch, request.seq]
    ids = graph.input("input_ids", "int64", shape, high=tokens)
    mask = graph.input("attention_mask", "int64", shape, high=2)
    types = graph.input("token_type_ids", "int64", shape, high=2)
    bias = _mask_bias(graph, mask)
    with graph.scope("embeddings"):
        x = _embeddings(graph, ids, types, request, width, tokens, positions)
    for layer in range(layers):
        with graph.scope(f"encoder.layer.{layer}"):
            y = _attention(graph, x, bias, request, width, heads)
            x = decomposed_layer_norm(graph, "attention.output.LayerNorm", graph.node("Add", [y, x]), width, EPSILON)
            y = linear(graph, "intermediate.dense", x, width, 4 * width)
            y = linear(graph, "output.dense", erf_gelu(graph, "intermediate.intermediate_act_fn", y), 4 * width, width)
            x = decomposed_layer_norm(graph, "output.LayerNorm", graph.node("Add", [y, x]), width, EPSILON)
    with graph.scope("pooler"):
        first = graph.node("Gather", [x, graph.constant(0)], axis=1)
        with graph.scope("dense"):
            weights = [graph.normal("weight", (width, width), width**-0.5), graph.normal("bias", (width,), 0.02)]
            pooled = graph.node("Gemm", [first, *weights], alpha=1.0, beta=1.0, transB=1)
        pooled = graph.node("Tanh", [pooled])
    graph.output("last_hidden_state", x, graph.dtype, [*shape, width])
    graph.output("pooler_output", pooled, graph.dtype, [request.batch, width])


def _mask_bias(graph: GraphWriter, mask: str) -> str:
    """(1 - mask) times the lowest finite number, [batch, 1, 1, seq]."""
    mask = graph.node("Unsqueeze", [graph.node("Unsqueeze", [mask, graph.constant([1])]), graph.constant([2])])
    mask = graph.node("Cast", [mask], to=graph.code)
    absent = graph.node("Sub", [graph.constant(1.0), mask])
    return graph.node("Mul", [absent, graph.constant(float(ml_dtypes.finfo(graph.dtype).min))])


def _embeddings(graph: GraphWriter, ids: str, types: str, request: Request, width: int, tokens: int, positions: int) -> str:
    every = graph.weight("position_ids", np.arange(positions, dtype=np.int64)[None])
    end = graph.shape([graph.size(ids, 1, request.seq)])
    here = graph.node("Slice", [every, graph.constant([0]), end, graph.constant([1]), graph.constant([1])])
    words = graph.node("Gather", [graph.normal("word_embeddings.weight", (tokens, width), 0.6), ids])
    kinds = graph.node("Gather", [graph.normal("token_type_embeddings.weight", (2, width), 0.3), types])
    places = graph.node("Gather", [graph.normal("position_embeddings.weight", (positions, width), 0.3), here])
    x = graph.node("Add", [graph.node("Add", [words, kinds]), places])
    return decomposed_layer_norm(graph, "LayerNorm", x, width, EPSILON)


def _attention(graph: GraphWriter, x: str, bias: str, request: Request, width: int, heads: int) -> str:
    with graph.scope("attention.self"):
        size = width // heads
        q, k, v = (linear(graph, name, x, width, width) for name in ("query", "key", "value"))
        # PyTorch asks for the sizes anew at every view.
        q, k, v = (
            split_heads(graph, value, [graph.size(value, 0, request.batch), graph.size(value, 1, request.seq), heads, size], perm)
            for value, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3]))
        )
        scores = graph.node("Div", [graph.node("MatMul", [q, k]), graph.constant(float(size) ** 0.5)])
        weights = graph.node("Softmax", [graph.node("Add", [scores, bias])], axis=-1)
        y = graph.node("Transpose", [graph.node("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        y = graph.reshape(y, [graph.size(y, 0, request.batch), graph.size(y, 1, request.seq), width])
    return linear(graph, "attention.output.dense", y, width, width)
