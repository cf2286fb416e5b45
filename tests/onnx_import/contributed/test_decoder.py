"""A decoder's layer as ONNX Runtime's model builder writes it, step by step: one plan for prompts and single tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.runtime.engine import Engine
from tests.onnx_import.contributed.cases import Chance, on_cpu

HEADS, KV_HEADS, SIZE, WIDTH, VOCABULARY = 8, 2, 16, 128, 96
F32, I64, I32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


def layer(chance: Chance) -> bytes:
    """Embedding in 4-bit blocks, norms, 4-bit products, GroupQueryAttention over a cache, logits."""
    packed = {"qkv": ((HEADS + 2 * KV_HEADS) * SIZE, WIDTH), "out": (WIDTH, HEADS * SIZE), "logits": (VOCABULARY, WIDTH)}
    stored: dict[str, Any] = {"table": chance.eight_bits(np.uint8, VOCABULARY, WIDTH // 2), "one": np.array([1], np.int64)}
    stored |= {"table.scales": np.abs(chance.normal(VOCABULARY, WIDTH // 32)) / 10, "axis": np.array([1], np.int64)}
    stored |= {"gamma": np.abs(chance.normal(WIDTH)), "index": np.array(1, np.int64)}
    for name, (n, k) in packed.items():
        stored |= {f"{name}.w": chance.eight_bits(np.uint8, n, k // 32, 16), f"{name}.s": np.abs(chance.normal(n, k // 32)) / 50}
    turned = np.arange(32)[:, None] * chance.rng.uniform(0.1, 1, SIZE // 2)
    stored |= {"cos": np.cos(turned).astype(np.float32), "sin": np.sin(turned).astype(np.float32)}

    def own(op: str, inputs: str, outputs: str, **attrs: Any) -> Any:
        return helper.make_node(op, inputs.replace("-", "").split(","), outputs.split(","), domain="com.microsoft", **attrs)

    def product(x: str, name: str, y: str) -> Any:
        n, k = packed[name]
        return own("MatMulNBits", f"{x},{name}.w,{name}.s", y, K=k, N=n, bits=4, block_size=32)

    heads = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1}
    nodes = [
        helper.make_node("ReduceSum", ["mask", "axis"], ["sums"], keepdims=0),
        helper.make_node("Sub", ["sums", "one"], ["less"]),
        helper.make_node("Cast", ["less"], ["seqlens"], to=I32),
        helper.make_node("Shape", ["mask"], ["shape"]),
        helper.make_node("Gather", ["shape", "index"], ["length"], axis=0),
        helper.make_node("Cast", ["length"], ["total"], to=I32),
        own("GatherBlockQuantized", "table,ids,table.scales", "x", block_size=32, bits=4),
        helper.make_node("SimplifiedLayerNormalization", ["x", "gamma"], ["n0"], axis=-1, epsilon=1e-5, stash_type=1),
        product("n0", "qkv", "qkv"),
        own("GroupQueryAttention", "qkv,-,-,past_k,past_v,seqlens,total,cos,sin", "a,present_k,present_v", **heads),
        product("a", "out", "o"),
        own("SkipSimplifiedLayerNormalization", "o,x,gamma", "n1", epsilon=1e-5),
        product("n1", "logits", "logits"),
    ]
    cache = ["batch", KV_HEADS, "past", SIZE]
    given = {"ids": (I64, ["batch", "seq"]), "mask": (I64, ["batch", "total"]), "past_k": (F32, cache), "past_v": (F32, cache)}
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in given.items()],
        [helper.make_tensor_value_info(n, F32, None) for n in ("logits", "present_k", "present_v")],
        [numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, n) for n, a in stored.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


def check_steps(opened: Callable[[Plan], Engine], tolerance: float) -> None:
    """Prompts and tokens of one row and of three, the cache of one step in the next; ``tolerance`` is relative to the largest."""
    chance = Chance(0)
    model = layer(chance)
    theirs = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with opened(miniinfer_cli.build(model, tf32=False)) as engine:
        for batch in (1, 3):
            past = {n: np.zeros((batch, KV_HEADS, 0, SIZE), np.float32) for n in ("past_k", "past_v")}
            total = 0
            for new in (5, 1, 1) if batch > 1 else (4, 1, 2, 1):
                total += new
                ids = chance.integers(0, VOCABULARY - 1, batch, new)
                feeds = {"ids": ids, "mask": np.ones((batch, total), np.int64), **past}
                wanted = theirs.run(None, feeds)
                found = engine.run(feeds)
                for name, want in zip(("logits", "present_k", "present_v"), wanted, strict=True):
                    assert found[name].shape == want.shape
                    np.testing.assert_allclose(found[name], want, rtol=0, atol=tolerance * np.abs(want).max())
                past = {"past_k": wanted[1], "past_v": wanted[2]}


def test_prompt_and_steps() -> None:
    check_steps(on_cpu, 1e-4)


def test_narrow_weights_stay_narrow() -> None:
    """What the plan holds of weights is no larger than what the model does."""
    plan = miniinfer_cli.build(layer(Chance(0)))
    narrow = [t for t in plan.tensors if t.dtype.bits == 4]
    assert sorted(tuple(sorted(t.shape)) for t in narrow) == [(96, 128), (96, 128), (128, 128), (128, 192)]
    assert not any(t.dtype.bits == 8 for t in plan.tensors)
