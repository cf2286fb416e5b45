"""Products of a few tokens by constant weights of 16 or 4 bits: what is offered, each form's numbers, and regions around them."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.row_products import WAY
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_graph, offered
from tests.backends.nodes import make_graph

F16, BF16, F32 = np.float16, ml_dtypes.bfloat16, np.float32
I4, U4 = ml_dtypes.int4, ml_dtypes.uint4
LIMITS = {F16: 3e-3, BF16: 2e-2, F32: 3e-6}


def numbers(*shape: int, dtype: Any = F16) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def keys(op: str, *inputs: Any, constants: Any = (1,), target: Target | None = None, **attrs: Any) -> list[str]:
    """Of the kernel for a few tokens, as the node offers them."""
    graph = make_graph(op, inputs, domain="", n_outputs=1, constants=constants, body=None, attrs=attrs)
    given = [a for i, a in enumerate(inputs) if i not in constants]
    return [t.key for t in offered(graph, given, target or Target()) if t.key.startswith(WAY)]


def in_both_ways(found: list[str]) -> bool:
    """Whether there are forms of the kernel that take all of k in a block, and such that share it."""
    return {" parts" in key for key in found if key.startswith(WAY)} == {True, False}


def region(
    rows: tuple[int, ...] = (1, 1),
    k: int = 256,
    features: int = 136,
    dtype: Any = F16,
    *,
    stored: Any = None,
    group: int = 0,
    zeros: bool = False,
    turned: bool = False,
    norm: str = "",
    gated: bool = False,
    following: bool = False,
    op: str = "RowProduct",
    constant: bool = True,
) -> tuple[Graph, list[Any]]:
    """A region of a product of ``rows`` by weights, of ``stored`` in groups of ``group`` of k, else of ``dtype``; its inputs.

    ``norm``: the operation in front; ``gated``: a SiLU gate of the two halves behind; ``following``: a bias and a residual.
    """
    graph, body = Graph("main"), Graph(op)
    arrays: dict[str, Any] = {"x": numbers(*rows, k, dtype=dtype) + dtype(0.5)}
    rng = np.random.default_rng(k + features)
    shape = (features, k) if turned else (k, features)
    if stored is None:
        arrays["w"] = (numbers(*shape, dtype=F32) / np.sqrt(k)).astype(dtype)
    else:
        low = -8 if stored is I4 else 0
        arrays["w"] = rng.integers(low, low + 16, shape).astype(stored)
        groups = -(-k // group) if group else 1
        of_scales = ((features, groups) if turned else (groups, features)) if group else (features,)
        arrays["s"] = (rng.uniform(0.5, 1.5, of_scales) / np.sqrt(k) / 5).astype(dtype)
        if zeros:
            arrays["z"] = rng.integers(low, low + 16, of_scales).astype(stored)
    if norm:
        arrays["scale"] = rng.uniform(0.5, 1.5, k).astype(dtype)
        if norm == "LayerNormalization":
            arrays["shift"] = rng.uniform(-1, 1, k).astype(dtype)
    if following:
        arrays["bias"] = numbers(features // (1 + gated), dtype=dtype)
        arrays["residual"] = numbers(*rows, features // (1 + gated), dtype=dtype)
    fed = [n for n in arrays if n in ("x", "residual", "bias") or (n == "w" and not constant)]
    kinds = {name: TensorType(dtype_of(a), a.shape) for name, a in arrays.items()}
    outer = [graph.add_input(n, kinds[n]) if n in fed else graph.add_constant(a, n) for n, a in arrays.items()]
    inner = {n: body.add_input(n, kinds[n]) for n in arrays}
    x = inner["x"]
    if norm:
        read = [x, inner["scale"], *([inner["shift"]] if "shift" in inner else [])]
        x = insert(body, norm, *read, axis=-1, epsilon=1e-3)
    w = inner["w"]
    if stored is not None:
        read = [w, inner["s"], *([inner["z"]] if zeros else [])]
        axis = int(turned) if group else int(not turned)
        blocks: dict[str, Any] = {"block_size": group} if group else {}
        w = insert(body, "DequantizeLinear", *read, axis=axis, **blocks)
    y = insert(body, "Gemm", x, w, transB=1) if turned else insert(body, "MatMul", x, w)
    if gated:
        halves = body.add_constant(np.array([features // 2] * 2))
        gate, up = (body.new_value(f"half{i}", TensorType(y.tensor.dtype, (*rows, features // 2))) for i in range(2))
        body.add_node("Split", [y, halves], [gate, up], attrs={"axis": -1}, name="split")
        y = insert(body, "Mul", insert(body, "Swish", gate), up)
    if following:
        y = insert(body, "Add", insert(body, "Add", y, inner["bias"]), inner["residual"])
    body.set_outputs([y])
    made = graph.new_value("y", y.type)
    graph.add_node(op, outer, [made], domain=OURS, name="region", body=body)
    graph.set_outputs([made])
    return graph, [arrays[n] for n in fed]


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("tokens", [1, 3, 8])
def test_every_form_does_the_product(dtype: Any, tokens: int) -> None:
    a, b = numbers(1, tokens, 264, dtype=dtype), numbers(264, 136, dtype=dtype)
    found = keys("MatMul", a, b)
    assert len(found) == len(set(found)) > 2 and in_both_ways(found)
    for key in found:
        target = Target(policy=Policy(forced={"y0": key}))
        check_op("MatMul", a, b, constants=(1,), target=target, by=key, tolerance=LIMITS[dtype])


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_scales_and_adds_what_it_is_given(turned: int) -> None:
    a, b = numbers(2, 136), numbers(*((80, 136) if turned else (136, 80)))
    for c in (numbers(80), numbers(2, 80), numbers(2, 1), numbers(1)):
        attrs: dict[str, Any] = {"transB": turned, "alpha": 0.5, "beta": -1.5}
        for key in keys("Gemm", a, b, c, **attrs)[:2]:
            target = Target(policy=Policy(forced={"y0": key}))
            check_op("Gemm", a, b, c, constants=(1,), target=target, by=key, tolerance=LIMITS[F16], **attrs)


def test_what_it_is_not_offered_for() -> None:
    a, b = numbers(1, 128), numbers(128, 80)
    assert keys("MatMul", a, b)
    assert not keys("MatMul", a, b, constants=())  # weights that somebody computes
    assert not keys("MatMul", numbers(9, 128), b)
    assert not keys("MatMul", numbers(1, 132), numbers(132, 80))  # rows that are read eight at a time
    assert not keys("MatMul", a, numbers(128, 81)) and not keys("MatMul", a, numbers(128, 40))
    assert not keys("MatMul", numbers(3, 1, 128), numbers(3, 128, 80))  # several matrices of weights
    assert not keys("MatMul", a.astype(F32), b.astype(F32))
    for arch in (80, 89, 100):
        assert not keys("MatMul", a, b, target=Target(arch=arch))


REGIONS: dict[str, dict[str, Any]] = {
    "norm": {"norm": "RMSNormalization"},
    "centred norm of three": {"norm": "LayerNormalization", "rows": (1, 3), "dtype": BF16},
    "gate": {"gated": True, "features": 272, "k": 264},
    "norm, gate, k last": {"norm": "RMSNormalization", "gated": True, "features": 272, "turned": True, "rows": (1,)},
    "all": {"norm": "RMSNormalization", "following": True, "rows": (2,)},
    "nibbles": {"stored": I4, "group": 128},
    "nibbles of f32": {"stored": I4, "group": 64, "dtype": F32, "following": True},
    "zero points": {"stored": U4, "group": 32, "zeros": True, "dtype": F32, "rows": (2, 1)},
    "zero points of halves": {"stored": U4, "group": 16, "zeros": True, "rows": (1, 8)},
    "signed zero points": {"stored": I4, "group": 64, "zeros": True, "dtype": BF16, "k": 200},
    "a scale for each feature": {"stored": U4, "k": 264, "dtype": F32},
    "nibbles, k last": {"stored": I4, "group": 32, "turned": True, "rows": (1,), "k": 288},
    "zero points, k last": {"stored": U4, "group": 128, "turned": True, "rows": (1,), "zeros": True, "dtype": F32},
    "nibbles, norm, gate": {"stored": I4, "group": 128, "norm": "RMSNormalization", "gated": True, "features": 256, "dtype": F32},
}


@pytest.mark.parametrize("name", REGIONS)
def test_regions(name: str) -> None:
    graph, arrays = region(**REGIONS[name])
    found = check_graph(arrays, graph, Target(), LIMITS[REGIONS[name].get("dtype", F16)])
    assert found and all(key.startswith(WAY) for key in found)


@pytest.mark.parametrize("name", ["nibbles", "zero points", "nibbles, k last"])
def test_regions_of_quantized_products(name: str) -> None:
    """As passes make them of MatMul behind DequantizeLinear."""
    graph, arrays = region(op="QuantizedMatMul", **REGIONS[name])
    assert in_both_ways(check_graph(arrays, graph, Target(), LIMITS[REGIONS[name].get("dtype", F16)]))


WRONG: dict[str, dict[str, Any]] = {
    "f32 without nibbles": {"dtype": F32},
    "three tokens of f32": {"dtype": F32, "stored": I4, "group": 32, "rows": (3,)},
    "weights that somebody computes": {"constant": False},
    "halves that are no whole tiles": {"stored": I4, "group": 32, "gated": True, "features": 144},
    "halves that something else is added to": {"gated": True, "features": 272, "following": True},
}


@pytest.mark.parametrize("name", WRONG)
def test_regions_that_are_done_node_by_node(name: str) -> None:
    graph, arrays = region(**WRONG[name])
    assert not [t for t in offered(graph, arrays, Target()) if t.key.startswith(WAY)]


def test_a_body_behind_a_product() -> None:
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, (1, 1, 136)))
    y = insert(graph, "MatMul", x, graph.add_constant(numbers(136, 72) / F16(11), "w"))
    y = insert(graph, "Gelu", insert(graph, "Add", y, graph.add_constant(numbers(72), "b")))
    graph.set_outputs([y])
    fuse_matmul(graph)
    found = check_graph([numbers(1, 1, 136)], graph, Target(), LIMITS[F16])
    assert sum(key.startswith(WAY) for key in found) > 2 and in_both_ways(found)
