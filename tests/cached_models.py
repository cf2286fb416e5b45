"""Decoders with a past, in the forms in which exporters write them: a block of attention, written with onnx's helpers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS, HEADS, GROUPS, SIZE = 17, 4, 2, 8
_WIDTH = HEADS * SIZE
_I64, _F32 = TensorProto.INT64, TensorProto.FLOAT


def weights(positions: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """By name what the blocks compute with."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)  # noqa: E731
    angles = np.arange(positions)[:, None] * 0.5 ** np.arange(SIZE // 2)
    return {
        "words": rng.standard_normal((TOKENS, _WIDTH)).astype(np.float32),
        "wq": draw(_WIDTH, _WIDTH),
        "wk": draw(_WIDTH, GROUPS * SIZE),
        "wv": draw(_WIDTH, GROUPS * SIZE),
        "wo": draw(_WIDTH, _WIDTH),
        "head": draw(_WIDTH, TOKENS),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
    }


def group_query_attention(*, window: int = -1, positions: int = 64) -> onnx.ModelProto:
    """As the builder of onnxruntime-genai writes it: lengths from the mask, the cache shared between past and present."""
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["sums"], keepdims=1),
        helper.make_node("Sub", ["sums", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("Gather", ["mask_shape", "one_scalar"], ["length"], axis=0),
        helper.make_node("Cast", ["length"], ["total"], to=TensorProto.INT32),
        *_projected(),
        helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "past_key_values.0.key", "past_key_values.0.value", "seqlens_k", "total", "cos", "sin"],
            ["y", "present.0.key", "present.0.value"],
            domain="com.microsoft", num_heads=HEADS, kv_num_heads=GROUPS, do_rotary=1, local_window_size=window,
        ),
        *_ending(),
    ]  # fmt: skip
    extra = {"one": np.array([1]), "one_scalar": np.array(1)}
    return _model(
        nodes,
        extra,
        ["attention_mask"],
        "past_sequence_length",
        "total_sequence_length",
        17,
        ("com.microsoft", 1),
        positions=positions,
    )


def tensor_scatter(capacity: int = 24) -> onnx.ModelProto:
    """As ONNX has it from opset 24 on: rows written at indices that the caller gives, attention over so many."""
    apart = [("q", HEADS, "q4"), ("k", GROUPS, "k4"), ("v", GROUPS, "v4")]
    nodes = [
        *_projected(),
        *(helper.make_node("Reshape", [a, f"apart_{n}"], [f"{a}_rows"]) for a, n, _ in apart),
        *(helper.make_node("Transpose", [f"{a}_rows"], [b], perm=[0, 2, 1, 3]) for a, _, b in apart),
        helper.make_node("RotaryEmbedding", ["q4", "cos", "sin", "position_ids"], ["qr"]),
        helper.make_node("RotaryEmbedding", ["k4", "cos", "sin", "position_ids"], ["kr"]),
        helper.make_node("TensorScatter", ["key_cache", "kr", "at"], ["present_key"], axis=2),
        helper.make_node("TensorScatter", ["value_cache", "v4", "at"], ["present_value"], axis=2),
        helper.make_node("Attention", ["qr", "present_key", "present_value", "", "", "", "seen"], ["a"], is_causal=1),
        helper.make_node("Transpose", ["a"], ["at_rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["at_rows", "flat"], ["y"]),
        *_ending(),
    ]
    extra = {f"apart_{n}": np.array([0, 0, n, SIZE]) for n in (HEADS, GROUPS)} | {"flat": np.array([0, 0, _WIDTH])}
    graph = _model(
        nodes,
        extra,
        ["position_ids"],
        capacity,
        capacity,
        24,
        pairs=[("key_cache", "present_key"), ("value_cache", "present_value")],
    )
    for name in ("at", "seen"):
        graph.graph.input.append(helper.make_tensor_value_info(name, _I64, ["batch"]))
    return graph


def _projected() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["words", "input_ids"], ["x"]),
        *(helper.make_node("MatMul", ["x", f"w{name}"], [name]) for name in "qkv"),
    ]


def _ending() -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["y", "wo"], ["o"]),
        helper.make_node("Add", ["o", "x"], ["z"]),
        helper.make_node("MatMul", ["z", "head"], ["logits"]),
    ]


def _model(
    nodes: Sequence[onnx.NodeProto],
    extra: dict[str, np.ndarray],
    inputs: Sequence[str],
    past: Any,
    total: Any,
    opset: int,
    *domains: tuple[str, int],
    positions: int = 64,
    pairs: Sequence[tuple[str, str]] = (
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
    ),
) -> onnx.ModelProto:
    shapes = {"attention_mask": ["batch", "total_sequence_length"], "position_ids": ["batch", "seq"]}
    values = [helper.make_tensor_value_info("input_ids", _I64, ["batch", "seq"])]
    values += [helper.make_tensor_value_info(name, _I64, shapes[name]) for name in inputs]
    values += [helper.make_tensor_value_info(name, _F32, ["batch", GROUPS, past, SIZE]) for name, _ in pairs]
    results = [helper.make_tensor_value_info("logits", _F32, ["batch", "seq", TOKENS])]
    results += [helper.make_tensor_value_info(name, _F32, ["batch", GROUPS, total, SIZE]) for _, name in pairs]
    read = {name for node in nodes for name in node.input}
    stored = [numpy_helper.from_array(a, n) for n, a in (weights(positions) | extra).items() if n in read]
    graph = helper.make_graph(nodes, "decoder", values, results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in [("", opset), *domains]], ir_version=10)


def logits_of(ids: np.ndarray, *, window: int = -1) -> np.ndarray:
    """What both compute for whole prompts, in f64: [batch, tokens, TOKENS]."""
    w = {name: array.astype(np.float64) for name, array in weights(max(64, ids.shape[1])).items()}
    x = w["words"][ids]
    batch, length, _ = x.shape
    q, k, v = (
        (x @ w[f"w{n}"]).reshape(batch, length, heads, SIZE).transpose(0, 2, 1, 3)
        for n, heads in (("q", HEADS), ("k", GROUPS), ("v", GROUPS))
    )
    cos, sin = w["cos"][:length], w["sin"][:length]

    def turned(a: np.ndarray) -> np.ndarray:
        one, other = a[..., : SIZE // 2], a[..., SIZE // 2 :]
        return np.concatenate([one * cos - other * sin, one * sin + other * cos], -1)

    k, v = (np.repeat(a, HEADS // GROUPS, 1) for a in (turned(k), v))
    scores = turned(q) @ k.swapaxes(2, 3) / np.sqrt(SIZE)
    i, j = np.indices((length, length))
    scores = np.where((j <= i) & ((window < 0) | (j > i - window)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    y = (p / p.sum(-1, keepdims=True)) @ v
    return (y.transpose(0, 2, 1, 3).reshape(batch, length, _WIDTH) @ w["wo"] + x) @ w["head"]
