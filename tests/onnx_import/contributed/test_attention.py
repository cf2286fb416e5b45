"""Attention of com.microsoft in all its forms, and rotary embeddings."""

from typing import Any

import numpy as np
import pytest

from tests.onnx_import.contributed.cases import VARIATIONS, Case, Chance, check, on_cpu


def angles(chance: Chance, length: int, half: int) -> dict[str, Any]:
    turned = np.arange(length)[:, None] * chance.rng.uniform(0.1, 1, half)
    return {"cos": np.cos(turned).astype(np.float32), "sin": np.sin(turned).astype(np.float32)}


def rotary(chance: Chance) -> Case:
    batch, length, heads, size = chance.size(1, 3), chance.size(1, 4), chance.size(1, 3), chance.pick(4, 8)
    four, part = chance.pick(False, True), chance.pick(False, True)
    x = chance.normal(batch, heads, length, size) if four else chance.normal(batch, length, heads * size)
    ids = chance.integers(0, 5, 1) if chance.maybe(True) else chance.integers(0, 9, batch, length)
    turned = size // 2 if part else size
    attrs: dict[str, Any] = {"interleaved": chance.pick(0, 1)}
    if part:
        attrs |= {"num_heads": heads, "rotary_embedding_dim": turned}
    return Case("RotaryEmbedding", {"x": x, "ids": ids, **angles(chance, 12, turned // 2)}, attrs)


def multi_head(chance: Chance) -> Case:
    batch, heads, size = chance.size(1, 3), chance.size(1, 3), chance.pick(4, 8)
    queries, keys = chance.size(1, 4), chance.size(1, 5)
    hidden = heads * size
    form = chance.pick("apart", "packed", "packed kv", "cache", "past")
    if form in ("packed", "past"):
        keys = queries
    operands: dict[str, Any] = {"q": chance.normal(batch, queries, hidden), "k": None, "v": None}
    if form == "packed":
        operands["q"] = chance.normal(batch, queries, heads, 3, size)
    elif form == "packed kv":
        operands["k"] = chance.normal(batch, keys, heads, 2, size)
    elif form == "cache":
        operands |= {"k": chance.normal(batch, heads, keys, size), "v": chance.normal(batch, heads, keys, size)}
    else:
        operands |= {"k": chance.normal(batch, keys, hidden), "v": chance.normal(batch, keys, hidden)}
    operands["bias"] = chance.maybe(chance.normal(3 * hidden)) if form != "packed kv" else None
    past = chance.size(1, 3) if form == "past" else 0
    total = past + keys
    mask = chance.pick("none", "keys", "queries", "lengths")
    if mask == "lengths" and past:
        mask = "keys"
    masks = {
        "none": None,
        "keys": chance.integers(0, 1, batch, total, dtype=np.int32),
        "queries": chance.integers(0, 1, batch, queries, total, dtype=np.int32),
        "lengths": chance.integers(1, total, batch, dtype=np.int32),
    }
    for seen in (masks["keys"], masks["queries"]):
        seen[..., 0] = 1  # where nothing is seen, what is left of the scores beside -10000 counts
    operands["mask"] = masks[mask]
    operands["added"] = chance.maybe(chance.normal(chance.pick(1, batch), chance.pick(1, heads), queries, total))
    results = ["y"]
    if form == "past":
        operands |= {"pk": chance.normal(batch, heads, past, size), "pv": chance.normal(batch, heads, past, size)}
        results += ["present_k", "present_v"]
    attrs: dict[str, Any] = {"num_heads": heads}
    if chance.maybe(True):
        attrs["scale"] = 0.3
    if form in ("packed", "past") and chance.maybe(True):
        attrs["unidirectional"] = 1
    if chance.maybe(True):
        attrs["mask_filter_value"] = -50.0
    reference = _apart if form.startswith("packed") else None
    return Case("MultiHeadAttention", operands, attrs, results=results, reference=reference, tolerance=1e-4)


def _apart(q: Any, k: Any, v: Any, bias: Any, mask: Any, added: Any, **attrs: Any) -> Any:
    """ONNX Runtime's CPU does not take packed tensors: its answer for them apart."""
    if k is None:
        q, k, v = (q[:, :, :, i].reshape(*q.shape[:2], -1) for i in range(3))
    else:
        k, v = (k[:, :, :, i].reshape(*k.shape[:2], -1) for i in range(2))
    operands = {"q": q, "k": k, "v": v, "bias": bias, "mask": mask, "added": added}
    return Case("MultiHeadAttention", operands, attrs).wanted()


def merged(chance: Chance) -> Case:
    batch, heads, size, length, width = chance.size(1, 3), chance.size(1, 3), chance.pick(4, 8), chance.size(1, 4), 6
    past, hidden = chance.pick(0, 0, 2), heads * size
    total = past + length
    quantized = chance.pick(False, True)
    value = hidden if past or quantized or chance.maybe(True) else 2 * hidden
    mask, unidirectional = chance.pick("none", "keys", "queries", "lengths", "bounds"), chance.pick(False, True)
    masks = {
        "none": None,
        "keys": chance.integers(0, 1, batch, total, dtype=np.int32),
        "queries": chance.integers(0, 1, batch, length, total, dtype=np.int32),
        "lengths": chance.integers(1, total, batch, dtype=np.int32),
        "bounds": np.concatenate([np.full(batch, total), chance.integers(0, total - 1, batch)]).astype(np.int32),
    }
    for seen in (masks["keys"], masks["queries"]):
        seen[..., 0] = 1
    masks["bounds"][batch:] = 0 if unidirectional else masks["bounds"][batch:]
    cache = chance.normal(2, batch, heads, past, size) if past else None
    bias = chance.normal(2 * hidden + value)
    attrs: dict[str, Any] = {"num_heads": heads, "unidirectional": int(unidirectional)}
    if chance.maybe(True):
        attrs["scale"] = 0.3
    results = ["y", "present"] if past else ["y"]
    if quantized:
        x, xs, xz = chance.quantized(np.uint8, batch, length, width, scale=0.01)
        w, ws, wz = chance.quantized(np.int8, width, 3 * hidden, scale=0.01)
        if chance.maybe(True):
            ws, wz = np.abs(chance.normal(3 * hidden)) / 100, np.zeros(3 * hidden, np.int8)
        operands = {"x": x, "w": w, "b": bias, "xs": xs, "ws": ws, "mask": masks[mask], "xz": xz, "wz": wz, "past": cache}
        return Case("QAttention", operands, attrs, results=results, stored=("w", "b", "xs", "ws", "xz", "wz"), tolerance=1e-4)
    operands = {
        "x": chance.normal(batch, length, width),
        "w": chance.normal(width, 2 * hidden + value) / 2,
        "b": bias,
        "mask": masks[mask],
        "past": cache,
        "added": None if past else chance.maybe(chance.normal(1, heads, length, total)),
    }
    if value != hidden:
        attrs["qkv_hidden_sizes"] = [hidden, hidden, value]
    return Case("Attention", operands, attrs, results=results, stored=("w", "b"), tolerance=1e-4)


def grouped(chance: Chance) -> Case:
    kv_heads, size = chance.size(1, 3), 16
    heads = kv_heads * chance.size(1, 3)
    prompt, packed, static = (chance.pick(False, True) for _ in range(3))
    batch = chance.size(1, 3)
    new = chance.size(1, 5) if prompt or batch == 1 else 1
    lengths = chance.integers(1, new, batch) if prompt else chance.integers(new + 1, new + 5, batch)
    if prompt:
        lengths[0] = new
    total = int(lengths.max())
    held = total + chance.size(0, 3) if static else total - new
    operands: dict[str, Any] = {"q": chance.normal(batch, new, heads * size), "k": None, "v": None}
    if packed:
        operands["q"] = chance.normal(batch, new, (heads + 2 * kv_heads) * size)
    else:
        operands |= {name: chance.normal(batch, new, kv_heads * size) for name in "kv"}
    operands |= {f"past_{name}": chance.normal(batch, kv_heads, held, size) for name in "kv"}
    operands |= {"seqlens": (lengths - 1).astype(np.int32), "total": np.array(total, np.int32)}
    attrs: dict[str, Any] = {"num_heads": heads, "kv_num_heads": kv_heads}
    if chance.maybe(True):
        operands |= angles(chance, 20, size // 2)
        attrs |= {"do_rotary": 1, "rotary_interleaved": chance.pick(0, 1)}
    else:
        operands |= {"cos": None, "sin": None}
    operands["ids"] = None
    operands["added"] = chance.maybe(chance.normal(1, chance.pick(1, heads), new, total))
    operands["sink"] = chance.normal(heads) if chance.pick(False, False, True) else None
    if chance.maybe(True):
        attrs["local_window_size"] = chance.size(1, 4)
    if chance.maybe(True):
        attrs["scale"] = 0.3
    if chance.maybe(True):
        attrs["softcap"] = 2.0
    if operands["sink"] is None and chance.pick(False, False, True):
        attrs["smooth_softmax"] = 1

    def defined(number: int, result: Any) -> Any:
        """Of rows padded on the right, and of a cache beyond its tokens, nothing is said."""
        rows = [r[: n if prompt else new] if number == 0 else r[:, :n] for r, n in zip(result, lengths, strict=True)]
        return np.concatenate([r.reshape(-1) for r in rows])

    results = ("y", "present_k", "present_v")
    return Case("GroupQueryAttention", operands, attrs, results=results, defined=defined, tolerance=1e-4)


def normalized(chance: Chance) -> Case:
    """Norms of heads, which ONNX Runtime's CPU has not: the reference is its answer for queries and keys that had them."""
    case = grouped(chance)
    while case.operands["k"] is None:
        case = grouped(chance)
    size = case.operands["past_k"].shape[3]
    weights = {name: chance.normal(size) for name in ("qw", "kw")}

    def norm(x: Any, weight: Any) -> Any:
        apart = x.reshape(*x.shape[:2], -1, size)
        return (apart / np.sqrt((apart * apart).mean(axis=-1, keepdims=True) + 1e-5) * weight).reshape(x.shape).astype(np.float32)

    def reference(*_: Any, **attrs: Any) -> Any:
        turned = {name: norm(case.operands[name], weights[f"{name}w"]) for name in "qk"}
        attrs.pop("qk_norm_epsilon")
        return Case(case.op, {**case.operands, **turned}, attrs, results=case.results).wanted()

    operands = {**case.operands, "ks": None, "vs": None, **weights}
    return Case(
        case.op,
        operands,
        {**case.attrs, "qk_norm_epsilon": 1e-5},
        results=case.results,
        reference=reference,
        defined=case.defined,
        tolerance=1e-4,
    )


FAMILIES = [normalized, rotary, multi_head, merged, grouped]


@pytest.mark.parametrize("family", FAMILIES)
def test_random_nodes(family: Any) -> None:
    for seed in range(3 * VARIATIONS):
        check(family(Chance(seed)), None if seed else on_cpu)
