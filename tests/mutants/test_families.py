"""Every entry of a register has tests that name it, found by the convention of ``named_tests.py``."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.join import families
from miniinfer_cli.backends.cuda.contract.site import lowered_operations
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import annotate, infer_graph
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_normalized_product import normalized
from tests.backends.cuda.tactics.test_quantized_attention import joined
from tests.backends.cuda.tactics.test_row_products import region
from tests.backends.nodes import make_graph
from tests.graph_text import typed_graph
from tests.mutants import views
from tests.mutants.families import FAMILIES, exchange_code
from tests.mutants.mutant import mutants_of
from tests.mutants.named_tests import ROOT
from tests.mutants.tactic_keys import KEYS, general
from tests.passes.names import pass_names
from tests.passes.quantized_graphs import quantized_product, random_feeds


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_is_named_by_a_test_file(family: str) -> None:
    entries = FAMILIES[family].entries()
    texts = {file: (ROOT / file).read_text() for files in entries.values() for file in files}
    unnamed = {e: f for e, f in entries.items() if not any(e.rpartition(".")[2].split()[0].rstrip(",") in texts[p] for p in f)}
    assert unnamed == {}


def test_registers_are_whole() -> None:
    assert len(FAMILIES["cuda"].entries()) == len(lowered_operations())
    assert tuple(FAMILIES["pass"].entries()) == pass_names()
    assert FAMILIES["join"].entries().keys() == families().keys() != set()
    reached: list[Any] = []

    def noted(function: Any) -> Any:
        reached.append(function)
        return function

    for entry in FAMILIES["view"].entries():
        FAMILIES["view"].substitute(entry, noted)
    assert len(reached) == len(set(reached)) and set(reached) == views.functions()
    names = [m.name for m in mutants_of(FAMILIES)]
    assert len(set(names)) == len(names) > 1000


def random(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape, dtype)


I8, F16 = np.int8, np.float16
_ONE_TAP = (random(1, 9, 7, 12), random(20, 1, 1, 12), random(20))
_WEIGHTS = {"constants": (1,)}
_PIXELS: list[tuple[Any, Any, dict[str, Any]]] = [
    (random(1, 12, 12, 512, dtype=F16), random(64, 3, 3, 512, dtype=F16), {}),
    (random(1, 40, 40, 16, dtype=F16), random(16, 3, 3, 16, dtype=F16), {}),
    (random(1, 80, 80, 3, dtype=F16), random(16, 3, 3, 3, dtype=F16), {"strides": [2, 2]}),
    (random(1, 9, 9, 96, dtype=F16), random(96, 3, 3, 48, dtype=F16), {"group": 2}),
    (random(1, 9, 9, 16, dtype=F16), random(16, 3, 3, 1, dtype=F16), {"group": 16}),
]
"""Images, weights and attributes for the kernels of sm_90."""
_HEADS = tuple(random(1, 2, n, 16, dtype=F16) for n in (20, 300, 300))
# For each lowering, nodes whose tactics together are all that it has: the operation, its operands, what else it is given.
NODES: dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
    "matmul": [
        ("MatMul", (random(1, 600), random(600, 40)), {}),
        ("MatMul", (random(40, 2048), random(2048, 3)), {}),
        ("Gemm", (random(20, 600), random(600, 24), random(1)), {}),
        ("MatMul", (random(40, 64), random(64, 50)), _WEIGHTS),
        *(
            ("MatMul", (random(m, k, dtype=F16), random(k, 72, dtype=F16)), _WEIGHTS)
            for m, k in ((20, 64), (20, 200), (1024, 64), (1, 64), (1, 512))
        ),
    ],
    "einsum": [("Einsum", (random(3, 5), random(4, 5)), {"equation": "ij,kj->ik"})],
    "convolution": [
        ("ConvNHWC", (random(2, 6, 7, 8), random(8, 3, 3, 1)), {"group": 8}),
        ("ConvNHWC", _ONE_TAP, {}),
        ("ConvNHWC", (random(1, 9, 7, 13), random(20, 1, 1, 13)), {}),
        ("ConvNHWC", (random(1, 1, 1, 12), random(20, 1, 1, 12)), {}),
        ("ConvNHWC", (random(5, 8, 9, 3), random(20, 4, 4, 3)), {"strides": [4, 4]}),
        ("Conv", (random(2, 6, 9, 11), random(4, 6, 3, 3)), {}),
        *(("ConvNHWC", (x, w), {**attrs, **_WEIGHTS}) for x, w, attrs in _PIXELS),
    ],
    "quantized_conv": [("ConvInteger", (random(2, 3, 9, 8, dtype=I8), random(4, 3, 3, 2, dtype=I8)), {})],
    "attention": [("Attention", _HEADS, {}), ("Attention", (*_HEADS, random(20, 300)), {})],
    "rotary_attention": [("RotaryAttention", (*_HEADS, *(None,) * 4, *(random(1, 20, 8, dtype=F16),) * 2), {})],
    "cached_attention": [
        (
            "CachedAttention",
            (
                *(random(2, heads, 1, 64, dtype=F16) for heads in (4, 2, 2)),
                *(random(2, 2, 90, 64, dtype=F16),) * 2,
                *(np.array([0, 80]), np.array([1, 81])),
                *(random(2, 1, 32, dtype=F16),) * 2,
            ),
            {"n_outputs": 3},
        )
    ],
    "softmax": [("Softmax", (random(3, 600),), {})],
    "layer_normalization": [("RMSNormalization", (random(3, 600), random(600)), {})],
    "normalization": [("GroupNormalization", (random(2, 6, 5, 4), random(6), random(6)), {"num_groups": 3})],
    "reduction": [("ReduceSum", (random(3, 300, 5), np.array([1])), {})],
    "arg_reduction": [("ArgMax", (random(3, 600),), {"axis": 1})],
    "global_pooling": [("GlobalAveragePoolNHWC", (random(2, 20, 19, 5),), {})],
    "quantized_matmul": [
        ("MatMulInteger", (random(20, 33, dtype=I8), random(33, 24, dtype=I8), random(dtype=I8)), _WEIGHTS),
        ("MatMulInteger", (random(20, 33, dtype=I8), random(33, 24, dtype=I8)), {}),
        *(
            (
                "QLinearMatMul",
                (
                    *(random(20, 33, dtype=I8), random(), zero),
                    *(random(33, 24, dtype=I8), random(), zero, random(), random(dtype=I8)),
                ),
                {"constants": (2, 3, 5)},
            )
            for zero in (random(dtype=I8), np.zeros((), I8))
        ),
    ],
    "movement": [
        ("Transpose", (random(70, 130),), {"perm": [1, 0]}),
        ("Concat", (random(3, 5), random(4, 5)), {"axis": 0}),
        ("Split", (random(6, 5), np.array([1, 5])), {"axis": 0, "n_outputs": 2}),
    ],
    "scan_ops": [("CumSum", (random(*shape), np.array(1)), {"constants": (1,)}) for shape in ((3, 601), (2, 300, 3))],
    "resize": [
        (
            "Resize",
            (random(1, 2, 6, 7), None, None, np.array([1, 2, 9, 15])),
            {"mode": "linear", "constants": (3,)},
        )
    ],
    "scatter": [
        ("ScatterElements", (random(9, 5), np.zeros((40, 5), np.int64), random(40, 5)), {"axis": 0, "reduction": reduction})
        for reduction in ("none", "add")
    ],
    "linear_attention": [
        (
            "LinearAttention",
            (random(2, 3, 6), random(2, 3, 6), random(2, 3, 9)),
            {"q_num_heads": 3, "kv_num_heads": 3, "update_rule": "linear", "n_outputs": 2},
        )
    ],
    "topk": [("TopK", (random(3, 50), np.array([9])), {"n_outputs": 2})],
    "deform_conv": [("DeformConv", (random(1, 4, 6, 6), random(6, 4, 3, 3), random(1, 18, 4, 4)), {})],
    "excitation": [("Excitation", (random(2, 1, 1, 12), random(4, 1, 1, 12), random(12, 1, 1, 4)), {})],
    "squeeze_excitation": [
        (
            "SqueezeExcitation",
            (random(2, 3, 4, 16, dtype=F16), random(4, 1, 1, 16, dtype=F16), random(16, 1, 1, 4, dtype=F16)),
            {"constants": (1, 2)},
        )
    ],
    "recurrent": [("LSTM", (random(5, 3, 4), random(1, 24, 4), random(1, 24, 6)), {"hidden_size": 6})],
}


_OURS = ("CachedAttention", "Excitation", "RotaryAttention", "SqueezeExcitation")

BY_THEMSELVES = {
    *("fused_conv", "fused_matmul", "fused_normalization", "normalized_product", "quantized_attention", "quantized_regions"),
    "row_products",
}
"""Those that have a test of their own."""


@pytest.mark.parametrize("module", sorted({*KEYS} - BY_THEMSELVES))
def test_every_tactic_has_its_mutants(module: str) -> None:
    listed: set[str] = set()
    for op, operands, options in NODES[module]:
        constants = options.get("constants", ())
        attrs = {k: v for k, v in options.items() if k not in ("constants", "n_outputs")}
        domain = OURS if op.endswith("NHWC") or op in _OURS else ""
        outputs = options.get("n_outputs", 1)
        graph = make_graph(op, operands, domain=domain, n_outputs=outputs, constants=constants, body=None, attrs=attrs)
        given = [a for i, a in enumerate(operands) if a is not None and i not in constants]
        listed.update(general(t.key) for t in offered(graph, given, Target(supports=lambda problem: True)))
    assert listed == set(KEYS[module])


def test_every_tactic_of_fused_convolutions_has_its_mutants() -> None:
    listed: set[str] = set()
    cases = [
        ((1, 9, 9, 8), (8, 3, 3, 1), (1, 7, 7, 8), 8, 1),
        ((2, 3, 4, 8), (20, 1, 1, 8), (2, 3, 4, 20), 1, 1),
        ((5, 8, 8, 3), (20, 4, 4, 3), (5, 2, 2, 20), 1, 4),
    ]
    for x, w, z, group, stride in cases:
        graph = Graph("g")
        operands = [graph.add_input(f"x{i}", TensorType(DType.F32, shape)) for i, shape in enumerate((x, w, z))]
        y = graph.add("ConvNHWC", *operands[:2], domain=OURS, group=group, strides=[stride, stride])
        graph.set_outputs([graph.add("Relu", graph.add("Add", y, operands[2]))])
        annotate(graph)
        assert fuse_conv(graph) == 1
        inputs = [random(*shape) for shape in (x, w, z)]
        listed.update(general(t.key) for t in offered(graph, inputs, Target(supports=lambda problem: True)))
    for image, w, attrs in _PIXELS:
        graph = Graph("g")
        value = graph.add_input("x", TensorType(DType.F16, image.shape))
        y = graph.add("ConvNHWC", value, graph.add_constant(w, "w"), domain=OURS, **attrs)
        graph.set_outputs([graph.add("Relu", y)])
        annotate(graph)
        assert fuse_conv(graph) == 1
        listed.update(general(t.key) for t in offered(graph, [image], Target(supports=lambda problem: True)))
    assert listed == set(KEYS["fused_conv"])


def test_every_tactic_of_quantized_regions_has_its_mutants() -> None:
    listed: set[str] = set()
    for group, side in ((1, 5), (1, 23), (16, 5)):
        graph = quantized_product(channels=16, features=16, group=group, symmetric=True, side=side)
        assert fuse_quantized(graph) == 1
        annotate(graph)
        listed.update(general(t.key) for t in offered(graph, random_feeds(graph), Target()))
    for k in (64, 512):
        nibbles = region(k=k, dtype=np.float32, stored=ml_dtypes.int4, group=64, op="QuantizedMatMul")
        listed.update(general(t.key) for t in offered(*nibbles, Target()))
    assert listed == set(KEYS["quantized_regions"])


def test_every_tactic_of_quantized_attention_has_its_mutants() -> None:
    listed = {general(t.key) for t in offered(*joined(), Target())}
    assert listed == set(KEYS["quantized_attention"])


def test_every_tactic_of_row_products_has_its_mutants() -> None:
    listed = {general(t.key) for k in (64, 512) for t in offered(*region(k=k, gated=True, features=256), Target())}
    assert listed == set(KEYS["row_products"])


def test_every_tactic_of_normalized_products_has_its_mutants() -> None:
    listed = {general(t.key) for t in offered(*normalized(), Target(supports=lambda problem: True))}
    assert listed == set(KEYS["normalized_product"])


def test_every_tactic_of_fused_products_has_its_mutants() -> None:
    listed: set[str] = set()
    cases = [(20, 600, 24, False), (1, 600, 40, False), (20, 32, 72, True), (20, 200, 72, True), (1024, 32, 72, True)]
    for m, k, n, constant in cases:
        a, b = (m, k), (k, n)
        graph = Graph("g")
        x = graph.add_input("x", TensorType(DType.F32, a))
        w = graph.add_constant(random(*b), "w") if constant else graph.add_input("w", TensorType(DType.F32, b))
        graph.set_outputs([graph.add("Relu", graph.add("MatMul", x, w))])
        annotate(graph)
        assert fuse_matmul(graph) == 1
        given = [random(*shape) for shape in ((a,) if constant else (a, b))]
        listed.update(general(t.key) for t in offered(graph, given, Target(supports=lambda problem: True)))
    for k in (64, 512):
        graph = Graph("g")
        x = graph.add_input("x", TensorType(DType.F16, (1, k)))
        graph.set_outputs([graph.add("Relu", graph.add("MatMul", x, graph.add_constant(random(k, 72, dtype=F16), "w")))])
        annotate(graph)
        assert fuse_matmul(graph) == 1
        listed.update(general(t.key) for t in offered(graph, [random(1, k, dtype=F16)], Target()))
    assert listed == set(KEYS["fused_matmul"])


def test_every_tactic_of_fused_normalizations_has_its_mutants() -> None:
    graph = typed_graph("graph main(x: f32[3,600], g: f32[600]) {\n  s = Add(x, x)\n  y = RMSNormalization(s, g)\n  return y\n}")
    (join,) = families()["normalization"](graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())
    listed = {general(t.key) for t in offered(join.graph, [random(3, 600), random(600)], Target())}
    assert listed == set(KEYS["fused_normalization"])


def twice(x: float, *, by: float = 2) -> float:
    return by * x


def test_a_function_s_code_is_exchanged_for_everyone_who_holds_it() -> None:
    held, code, defaults = twice, twice.__code__, twice.__kwdefaults__
    try:
        exchange_code(twice, lambda function: lambda *a, **k: -function(*a, **k))
        assert (held(3), held(3, by=5)) == (-6, -15)
        exchange_code(twice, lambda function: lambda *a, **k: 10 * function(*a, **k))
        assert (held(3), held(3, by=5)) == (-60, -150)
    finally:
        twice.__code__, twice.__kwdefaults__ = code, defaults
