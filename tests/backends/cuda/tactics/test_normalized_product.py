"""Regions of a product whose rows are normalized by statistics, or that leaves some: each form, and what else does the work."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import scaled_columns
from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ir.constants import constant
from miniinfer_cli.ops import OURS, insert, lookup
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.cuda.performing import perform_program
from tests.backends.cuda.tactics.every_tactic import check_graph, offered
from tests.backends.nodes import assert_close

TOLERANCE = 4e-3
ROWS, K, FEATURES = (2, 10), 192, 136


def numbers(*shape: int, dtype: Any = np.float16) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def normalized(
    *, shift: bool = True, kept: bool = False, centred: int = 1, wrong: str = "", rows: tuple[int, ...] = ROWS
) -> tuple[Graph, list[Any]]:
    """A region of NormalizeByStatistics, MatMul, Add and Gelu, with constants for scale, shift and weights; what it is given."""
    x = numbers(*rows, K) * np.float16(2) + np.float16(3)
    (pairs,) = lookup(OURS, "RowStatistics").evaluate((x,), {}, n_outputs=1)
    arrays = {
        "x": x,
        "pairs": pairs,
        "g": numbers(K) + np.float16(1),
        "b": numbers(K + 1)[1:],
        "w": numbers(K, FEATURES) / np.float16(9),
    }
    arrays["bias"] = numbers(FEATURES)
    if not shift:
        del arrays["b"]
    graph, body = Graph("main"), Graph("NormalizedProduct")
    given = [name for name in arrays if name in ("x", "pairs") or name == wrong]
    kinds = {name: TensorType(dtype_of(a), a.shape) for name, a in arrays.items()}
    outer = [graph.add_input(n, kinds[n]) if n in given else graph.add_constant(arrays[n], n) for n in arrays]
    inner = {name: body.add_input(name, kinds[name]) for name in arrays}
    read = [inner[n] for n in ("x", "pairs", "g", "b") if n in inner]
    h = insert(body, "NormalizeByStatistics", *read, domain=OURS, centred=centred)
    y = insert(body, "Add", insert(body, "MatMul", h, inner["w"]), inner["bias"])
    if wrong == "x twice":
        y = insert(body, "Add", y, insert(body, "ReduceMean", inner["x"], keepdims=1))
    y = insert(body, "Gelu", y)
    body.set_outputs([y, h] if kept else [y])
    made = [graph.new_value(v.name, v.type) for v in body.outputs]
    graph.add_node("NormalizedProduct", outer, made, domain=OURS, name="region", body=body)
    graph.set_outputs(made)
    return graph, [arrays[name] for name in given]


def summarized() -> tuple[Graph, list[Any]]:
    """A region of MatMul, Add and RowStatistics."""
    graph, body = Graph("main"), Graph("FusedMatMul")
    arrays = [numbers(*ROWS, K), numbers(K, 128) / np.float16(9), numbers(*ROWS, 128)]
    kinds = [TensorType(dtype_of(a), a.shape) for a in arrays]
    outer = [graph.add_constant(a) if i == 1 else graph.add_input(f"x{i}", kinds[i]) for i, a in enumerate(arrays)]
    inner = [body.add_input(f"y{i}", kind) for i, kind in enumerate(kinds)]
    y = insert(body, "Add", insert(body, "MatMul", *inner[:2]), inner[2])
    body.set_outputs([y, insert(body, "RowStatistics", y, domain=OURS)])
    made = [graph.new_value(v.name, v.type) for v in body.outputs]
    graph.add_node("FusedMatMul", outer, made, domain=OURS, name="region", body=body)
    graph.set_outputs(made)
    return graph, [arrays[0], arrays[2]]


@pytest.mark.parametrize("options", [{}, {"kept": True}, {"shift": False, "kept": True, "centred": 0}, {"rows": (33,)}], ids=str)
def test_every_form_normalizes(options: Any) -> None:
    graph, given = normalized(**options)
    keys = check_graph(given, graph, Target(), TOLERANCE)
    assert all(key.startswith(WAY) for key in keys) and {" parts" in key for key in keys} == {False, True}


def test_every_form_leaves_statistics() -> None:
    graph, given = summarized()
    keys = check_graph(given, graph, Target(), TOLERANCE)
    assert all(key.startswith(WAY) for key in keys) and {" parts" in key for key in keys} == {False, True}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_centred_rows_sum_up_to_nothing(dtype: Any) -> None:
    """Each is one of the two numbers around what it ought to be, and they are no farther from that than the nearest are, by a
    tenth."""
    w, g = numbers(K, FEATURES, dtype=dtype), numbers(K, dtype=dtype)
    kind = dtype_of(w)
    product = Product(10, FEATURES, K, kind, kind, kind, False, False, K, FEATURES, FEATURES)
    columns, *_ = scaled_columns(constant(w), product, constant(g), None, 0.5, centred=True)
    (found,) = (a.astype(np.float64) for a in interpret(columns.graph, [w, g]))
    exact = w.T.astype(np.float64) * g.astype(np.float64) / 2
    exact -= exact.mean(-1, keepdims=True)
    nearest = exact.astype(dtype).astype(np.float64)
    assert np.linalg.norm(found.sum(-1)) < np.linalg.norm(nearest.sum(-1)) / 4
    spacing = 2.0**-10 if dtype is np.float16 else 2.0**-7
    assert (np.abs(found - exact) <= 1.1 * np.abs(nearest) * spacing + 1e-7).all()
    assert np.linalg.norm(found - exact) < 1.1 * np.linalg.norm(nearest - exact)


@pytest.mark.parametrize("graph_of", [normalized, summarized])
def test_elsewhere_primitives_do_the_work(graph_of: Any) -> None:
    graph, given = graph_of()
    target = Target(arch=80)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert len(program.steps) > 3 and not any(WAY in str(step.tactic) for step in program.steps)
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        assert_close(got, want, TOLERANCE)


@pytest.mark.parametrize("wrong", ["g", "b", "w", "x twice"])
def test_what_it_is_not_offered_for(wrong: str) -> None:
    """Scales, shifts and weights that somebody computes; rows that are read as they are, too."""
    assert offered(*normalized(), Target()) and not offered(*normalized(wrong=wrong), Target())
