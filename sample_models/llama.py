"""Llamas (Touvron et al. 2023) as PyTorch's newer exporter writes them: norms by mean squares in f32, heads rotated in halves,
several query heads to a head of keys, SiLU gates.

``llama_1b``: the shapes of Llama 3.2 1B, tied embedding, 1 235 814 400 parameters, a prompt at a time. ``tinyllama``: those of
TinyLlama, 1 100 048 384, with the past as inputs and the present as outputs, as decoders are exported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto

from sample_models.graph_writer import GraphWriter
from sample_models.layers import silu
from sample_models.request import Request

OPSET = 20
EPSILON = 1e-5
THETA = 500_000.0


@dataclass(frozen=True)
class Sizes:
    """``heads`` of queries and ``groups`` of keys and values, each ``width / heads`` wide; ``inner``: of the gated layer."""

    width: int = 2048
    layers: int = 16
    heads: int = 32
    groups: int = 8
    inner: int = 8192
    tokens: int = 128_256
    theta: float = THETA
    tied: bool = True

    @property
    def size(self) -> int:
        """Elements of a head."""
        return self.width // self.heads


SMALL = Sizes(width=32, layers=2, heads=4, groups=2, inner=48, tokens=61)
TINY = Sizes(layers=22, groups=4, inner=5632, tokens=32_000, theta=10_000.0, tied=False)
"""TinyLlama's."""
TINY_SMALL = Sizes(width=32, layers=2, heads=4, groups=2, inner=48, tokens=61, theta=10_000.0, tied=False)


@dataclass(frozen=True)
class _Shared:
    """What every layer reads: sizes of the input, rotations ``[1, 1, seq, size]``, and what is added to scores.

    ``total``: the number of keys, those of the past with the new ones.
    """

    batch: int | str
    seq: int | str
    total: int | str
    cosines: str
    sines: str
    mask: str


def write_1b(graph: GraphWriter, request: Request) -> None:
    """input_ids [batch, seq] to logits [batch, seq, 128256]; ``small``: two layers of 32, 4 heads, 2 of keys, 61 tokens."""
    sizes = SMALL if request.small else Sizes()
    ids = graph.input("input_ids", "int64", [request.batch, request.seq], high=sizes.tokens)
    with graph.scope("model"):
        batch, seq = graph.size(ids, 0, request.batch), graph.size(ids, 1, request.seq)
        words = graph.normal("embed_tokens.weight", (sizes.tokens, sizes.width), sizes.width**-0.5)
        x = graph.node("Gather", [words, ids])
        length = graph.constant(seq) if isinstance(seq, int) else seq
        positions = graph.node("Range", [graph.constant(0), length, graph.constant(1)])
        mask = _mask(graph, _rows(graph, positions), _columns(graph, positions))
        at = graph.node("Unsqueeze", [positions, graph.constant([0, 2])])
        x, _ = _layers(graph, x, _Shared(batch, seq, seq, *_rotations(graph, at, sizes), mask), sizes, None)
    logits = _head(graph, x, words, sizes)
    graph.output("logits", logits, graph.dtype, [request.batch, request.seq, sizes.tokens])


def write_tiny(graph: GraphWriter, request: Request) -> None:
    """input_ids, position_ids [batch, seq], attention_mask [batch, total] and a past of [batch, 4, past, 64] for the keys and the
    values of each layer to logits [batch, seq, 32000] and the present, [batch, 4, past + seq, 64]. With a fixed seq the past is
    as long. ``small``: as ``write_1b``'s.
    """
    sizes = TINY_SMALL if request.small else TINY
    tokens = [request.batch, request.seq]
    is_fixed = isinstance(request.seq, int)
    before: int | str = request.seq if is_fixed else "past"
    after: int | str = 2 * request.seq if is_fixed else "total"
    ids = graph.input("input_ids", "int64", tokens, high=sizes.tokens)
    attended = graph.input("attention_mask", "int64", [request.batch, after])
    places = graph.input("position_ids", "int64", tokens, high=1024)
    held = [request.batch, sizes.groups, before, sizes.size]
    pasts = [
        (graph.input(f"past_key_values.{n}.key", graph.dtype, held), graph.input(f"past_key_values.{n}.value", graph.dtype, held))
        for n in range(sizes.layers)
    ]
    with graph.scope("model"):
        batch, seq = graph.size(ids, 0, request.batch), graph.size(ids, 1, request.seq)
        past = graph.node("Gather", [graph.node("Shape", [pasts[0][0]]), graph.constant(2)], axis=0)
        length = graph.constant(seq) if isinstance(seq, int) else seq
        total = graph.node("Add", [past, length])
        words = graph.normal("embed_tokens.weight", (sizes.tokens, sizes.width), sizes.width**-0.5)
        x = graph.node("Gather", [words, ids])
        queries = graph.node("Range", [past, total, graph.constant(1)])
        keys = graph.node("Range", [graph.constant(0), total, graph.constant(1)])
        told = graph.node("Cast", [graph.node("Unsqueeze", [attended, graph.constant([1, 2])])], to=TensorProto.BOOL)
        mask = _mask(graph, _rows(graph, queries), _columns(graph, keys), told)
        at = graph.node("Unsqueeze", [places, graph.constant([2])])
        shared = _Shared(batch, seq, total, *_rotations(graph, at, sizes), mask)
        x, presents = _layers(graph, x, shared, sizes, pasts)
    logits = _head(graph, x, words, sizes)
    graph.output("logits", logits, graph.dtype, [*tokens, sizes.tokens])
    for n, (key, value) in enumerate(presents):
        graph.output(f"present.{n}.key", key, graph.dtype, [request.batch, sizes.groups, after, sizes.size])
        graph.output(f"present.{n}.value", value, graph.dtype, [request.batch, sizes.groups, after, sizes.size])


def _layers(
    graph: GraphWriter, x: str, shared: _Shared, sizes: Sizes, pasts: Sequence[tuple[str, str]] | None
) -> tuple[str, list[tuple[str, str]]]:
    """All layers and the norm behind them; the keys and values of each, with the past where there is one."""
    presents: list[tuple[str, str]] = []
    for layer in range(sizes.layers):
        with graph.scope(f"layers.{layer}"):
            gain = (2 * sizes.layers) ** -0.5
            past = None if pasts is None else pasts[layer]
            normal = _rms_norm(graph, "input_layernorm", x, sizes.width)
            y, present = _attention(graph, normal, shared, sizes, gain, past)
            presents.append(present)
            x = graph.node("Add", [x, y])
            x = graph.node("Add", [x, _gated(graph, _rms_norm(graph, "post_attention_layernorm", x, sizes.width), sizes, gain)])
    return _rms_norm(graph, "norm", x, sizes.width), presents


def _head(graph: GraphWriter, x: str, words: str, sizes: Sizes) -> str:
    if not sizes.tied:
        return _linear(graph, "lm_head", x, sizes.width, sizes.tokens)
    with graph.scope("lm_head"):
        return graph.node("MatMul", [x, graph.node("Transpose", [words], perm=[1, 0])])


def _rotations(graph: GraphWriter, at: str, sizes: Sizes) -> tuple[str, str]:
    """Cosines and sines of position ``at`` ([batch or 1, seq, 1]) times frequency, computed in f32, twice side by side."""
    with graph.scope("rotary_emb"):
        frequencies = sizes.theta ** (-np.arange(0, sizes.size, 2, dtype=np.float32) / sizes.size)
        angles = graph.node("Mul", [graph.node("Cast", [at], to=TensorProto.FLOAT), _f32(graph, frequencies)])
        angles = graph.node("Concat", [angles, angles], axis=-1)
        both = (graph.node("Cast", [graph.node(op, [angles])], to=graph.code) for op in ("Cos", "Sin"))
        cosines, sines = (graph.node("Unsqueeze", [value, graph.constant([1])]) for value in both)
    return cosines, sines


def _rows(graph: GraphWriter, positions: str) -> str:
    """[length] as [1, 1, length, 1]."""
    return graph.node("Unsqueeze", [positions, graph.constant([0, 1, 3])])


def _columns(graph: GraphWriter, positions: str) -> str:
    """[length] as [1, 1, 1, length]."""
    return graph.node("Unsqueeze", [positions, graph.constant([0, 1, 2])])


def _mask(graph: GraphWriter, queries: str, keys: str, told: str | None = None) -> str:
    """Zero where a key is not behind the query, else the lowest finite number: [1, 1, queries, keys].

    ``told``: which keys count at all, [batch, 1, 1, keys].
    """
    lowest = graph.constant(float(ml_dtypes.finfo(graph.dtype).min))
    seen = graph.node("LessOrEqual", [keys, queries])
    if told is not None:
        seen = graph.node("And", [seen, told])
    return graph.node("Where", [seen, graph.constant(0.0), lowest])


def _rms_norm(graph: GraphWriter, name: str, x: str, width: int) -> str:
    """Computed in f32 and rounded before the weight, as HF transformers has it."""
    with graph.scope(name):
        is_wide = graph.dtype == np.float32
        wide = x if is_wide else graph.node("Cast", [x], to=TensorProto.FLOAT)
        mean = graph.reduce("ReduceMean", graph.node("Pow", [wide, _f32(graph, 2.0)]), [-1])
        root = graph.node("Sqrt", [graph.node("Add", [mean, _f32(graph, EPSILON)])])
        y = graph.node("Mul", [wide, graph.node("Reciprocal", [root])])
        y = y if is_wide else graph.node("Cast", [y], to=graph.code)
        return graph.node("Mul", [graph.uniform("weight", (width,), 0.8, 1.2), y])


def _f32(graph: GraphWriter, value: float | np.ndarray) -> str:
    return graph.constant(np.asarray(value, np.float32))


def _linear(graph: GraphWriter, name: str, x: str, width: int, out: int, gain: float = 1.0) -> str:
    with graph.scope(name):
        return graph.node("MatMul", [x, graph.normal("weight", (width, out), gain * width**-0.5)])


def _attention(
    graph: GraphWriter, x: str, shared: _Shared, sizes: Sizes, gain: float, past: tuple[str, str] | None = None
) -> tuple[str, tuple[str, str]]:
    with graph.scope("self_attn"):
        of_keys = sizes.groups * sizes.size
        q, k, v = (
            _heads(graph, _linear(graph, f"{name}_proj", x, sizes.width, out), shared, sizes)
            for name, out in (("q", sizes.width), ("k", of_keys), ("v", of_keys))
        )
        q, k = (_rotated(graph, value, shared, sizes) for value in (q, k))
        if past is not None:
            k, v = (graph.node("Concat", [held, new], axis=-2) for held, new in zip(past, (k, v), strict=True))
        present = (k, v)
        k, v = (_repeated(graph, value, shared, sizes) for value in present)
        # Both sides by the root of the scale, as scaled_dot_product_attention is taken apart.
        root = graph.constant(float(sizes.size) ** -0.25)
        k = graph.node("Mul", [graph.node("Transpose", [k], perm=[0, 1, 3, 2]), root])
        scores = graph.node("Add", [graph.node("MatMul", [graph.node("Mul", [q, root]), k]), shared.mask])
        y = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), v])
        y = graph.reshape(graph.node("Transpose", [y], perm=[0, 2, 1, 3]), [shared.batch, shared.seq, sizes.width])
        return _linear(graph, "o_proj", y, sizes.width, sizes.width, gain), present


def _heads(graph: GraphWriter, x: str, shared: _Shared, sizes: Sizes) -> str:
    """[batch, seq, heads * size] as [batch, heads, seq, size]."""
    return graph.node("Transpose", [graph.reshape(x, [shared.batch, shared.seq, -1, sizes.size])], perm=[0, 2, 1, 3])


def _rotated(graph: GraphWriter, x: str, shared: _Shared, sizes: Sizes) -> str:
    half, last, one = graph.constant([sizes.size // 2]), graph.constant([3]), graph.constant([1])
    first = graph.node("Slice", [x, graph.constant([0]), half, last, one])
    second = graph.node("Slice", [x, half, graph.constant([np.iinfo(np.int64).max]), last, one])
    turned = graph.node("Concat", [graph.node("Neg", [second]), first], axis=-1)
    return graph.node("Add", [graph.node("Mul", [x, shared.cosines]), graph.node("Mul", [turned, shared.sines])])


def _repeated(graph: GraphWriter, x: str, shared: _Shared, sizes: Sizes) -> str:
    """Heads of keys or values [batch, groups, seq, size], each as often as there are queries' heads to it."""
    times = sizes.heads // sizes.groups
    x = graph.node("Unsqueeze", [x, graph.constant([2])])
    x = graph.node("Expand", [x, graph.shape([shared.batch, sizes.groups, times, shared.total, sizes.size])])
    return graph.reshape(x, [shared.batch, sizes.heads, shared.total, sizes.size])


def _gated(graph: GraphWriter, x: str, sizes: Sizes, gain: float) -> str:
    with graph.scope("mlp"):
        gate = silu(graph, "act_fn", _linear(graph, "gate_proj", x, sizes.width, sizes.inner))
        y = graph.node("Mul", [gate, _linear(graph, "up_proj", x, sizes.width, sizes.inner)])
        return _linear(graph, "down_proj", y, sizes.inner, sizes.width, gain)
