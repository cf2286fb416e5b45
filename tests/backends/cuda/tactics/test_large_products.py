"""Products of many tokens: what is offered, on which GPUs, and each form's numbers."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE, favours_large
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import DType, Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.nodes import assert_close, make_graph
from tests.emulation.compiler import EARLY, LATE, scheduled
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import Schedule

F16, BF16, F32 = np.float16, ml_dtypes.bfloat16, np.float32
LIMITS = {F16: 4e-3, BF16: 3e-2, F32: 2e-2}
ROWS = (2, 515)
TARGET = Target(multiprocessors=4)


def numbers(*shape: int, dtype: Any = F16) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def keys(op: str, *inputs: Any, constants: Any = (1,), target: Target = TARGET, **attrs: Any) -> list[str]:
    """Of the kernel for many tokens, as the node offers them."""
    graph = make_graph(op, inputs, domain="", n_outputs=1, constants=constants, body=None, attrs=attrs)
    given = [a for i, a in enumerate(inputs) if i not in constants]
    return [t.key for t in offered(graph, given, target) if t.key.startswith(LARGE)]


@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_forms_do_the_product(dtype: Any) -> None:
    a, b = numbers(*ROWS, 72, dtype=dtype), numbers(72, 136, dtype=dtype)
    found = keys("MatMul", a, b)
    assert len(found) == len(set(found)) > 2 and any("together" in key for key in found)
    for key in found if dtype is F16 else found[::3]:
        target = replace(TARGET, policy=Policy(forced={"y0": key}))
        check_op("MatMul", a, b, constants=(1,), target=target, by=key, tolerance=LIMITS[dtype])


def test_columns_that_are_no_whole_vectors() -> None:
    a, b = numbers(*ROWS, 72), numbers(72, 101)
    key = keys("MatMul", a, b)[0]
    target = replace(TARGET, policy=Policy(forced={"y0": key}))
    check_op("MatMul", a, b, constants=(1,), target=target, by=key, tolerance=LIMITS[F16])


@pytest.mark.parametrize("constants", [(1,), ()])
def test_gemm_scales_and_adds_what_it_is_given(constants: tuple[int, ...]) -> None:
    """Weights that lie by columns are read where they lie, whoever makes them."""
    a, b = numbers(1030, 72), numbers(80, 72)
    for c in (numbers(80), numbers(1030, 80), numbers(1030, 1)) if constants else (numbers(80),):
        attrs = {"transB": 1, "alpha": 0.5, "beta": -1.5 if c.size != 80 else 1.0}
        key = keys("Gemm", a, b, c, constants=constants, **attrs)[0]
        target = replace(TARGET, policy=Policy(forced={"y0": key}))
        check_op("Gemm", a, b, c, constants=constants, target=target, by=key, tolerance=LIMITS[F16], **attrs)


def test_what_it_is_not_offered_for() -> None:
    a, b = numbers(1030, 128), numbers(128, 80)
    assert keys("MatMul", a, b)
    assert not keys("MatMul", a, b, constants=())  # weights that somebody computes, by rows
    assert not keys("MatMul", numbers(1020, 128), b)
    assert not keys("MatMul", numbers(1030, 132), numbers(132, 80))  # rows that begin at no multiple of 16 bytes
    assert not keys("MatMul", a, numbers(128, 40)) and not keys("MatMul", numbers(1030, 40), numbers(40, 80))
    assert not keys("MatMul", numbers(2, 1030, 128), numbers(2, 128, 80))  # several matrices of weights
    assert not keys("Gemm", numbers(128, 1030), b, transA=1)
    assert not keys("MatMul", a.astype(F32), b.astype(F32), target=replace(TARGET, tf32=False))
    assert not keys("MatMul", a.astype(np.float64), b.astype(np.float64))
    for arch in (80, 89, 100):
        assert not keys("MatMul", a, b, target=replace(TARGET, arch=arch))


def region(steps: list[tuple[Any, ...]]) -> tuple[Graph, list[Any]]:
    """A product and steps behind it, (operation, operands and attributes), as one node."""
    graph, arrays = Graph("main"), [numbers(*ROWS, 72)]
    x = graph.add_input("x", TensorType(dtype_of(arrays[0]), arrays[0].shape))
    y = insert(graph, "MatMul", x, graph.add_constant(numbers(72, 80) / F16(8), "w"))
    made = {"product": y}
    for op, *others in steps:
        operands: list[Value] = []
        attrs: dict[str, Any] = {}
        for other in others:
            if isinstance(other, dict):
                attrs = other
            elif isinstance(other, str):
                operands.append(made[other])
            else:
                arrays.append(numbers(*other))
                operands.append(graph.add_input(f"x{len(arrays)}", TensorType(dtype_of(arrays[-1]), arrays[-1].shape)))
        y = insert(graph, op, y, *operands, **attrs)
        made[op] = y
    graph.set_outputs([y])
    fuse_matmul(graph)
    return graph, arrays


REGIONS: dict[str, list[tuple[Any, ...]]] = {
    "erf": [("Add", (80,)), ("Gelu", {"approximate": "none"})],
    "gate": [("Add", (80,)), ("Sigmoid",), ("Mul", "Add")],
    "residual behind": [("Add", (80,)), ("Gelu", {"approximate": "none"}), ("Add", (*ROWS, 80))],
    "columns, and no bias": [("Sub", (*ROWS, 1)), ("Tanh",)],
    "two tables": [("Sub", (*ROWS, 80)), ("Mul", (*ROWS, 80))],
    "a whole product": [("Add", (80,)), ("Relu",)],
    "a residual of the product's": [("Add", (80,)), ("Add", (*ROWS, 80))],
}


@pytest.mark.parametrize("name", REGIONS)
def test_what_follows_a_product_is_done_in_its_kernel(name: str) -> None:
    graph, arrays = region(REGIONS[name])
    (node,) = graph
    want = interpret(graph, arrays)
    listed = offered(graph, arrays, TARGET)
    tactic = next(t for t in listed if t.key.startswith(LARGE) and t.claims == len(node.body or ()))
    target = replace(TARGET, policy=Policy(forced={node.name: tactic.key}))
    (got,) = run_graph(graph, arrays, target)
    assert_close(got, want[0], LIMITS[F16])
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [kernel.name for kernel in program.kernels] == ["large_product"]


def test_a_table_of_rows_for_each_of_several_batches_is_left_to_others() -> None:
    graph, arrays = region([("Gelu", {"approximate": "none"}), ("Add", (ROWS[1], 80))])
    (node,) = graph
    assert not [t for t in offered(graph, arrays, TARGET) if t.key.startswith(LARGE) and t.claims == len(node.body or ())]


def test_a_gelu_by_the_quick_formula_is_as_good_for_infinities_and_tails() -> None:
    graph, arrays = region([("Add", (80,)), ("Gelu", {"approximate": "none"})])
    (node,) = graph
    arrays[1][:6] = [np.inf, np.nan, -30, 30, -5.5, 0]
    arrays[1][6:9] = [60000, -60000, -3]
    want = interpret(graph, arrays)
    key = next(t.key for t in offered(graph, arrays, TARGET) if t.key.startswith(LARGE))
    (got,) = run_graph(graph, arrays, replace(TARGET, policy=Policy(forced={node.name: key})))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want[0]))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want[0]))
    finite = np.isfinite(want[0])
    np.testing.assert_allclose(got[finite].astype(F32), want[0][finite].astype(F32), rtol=4e-3, atol=2e-3)


def test_weights_are_loaded_before_the_turn_and_nothing_else() -> None:
    """Products begin before what is in front of them has run, and give the same bits."""
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, (1030, 72)))
    first = insert(graph, "Sigmoid", x)
    y = first
    for number in range(3):
        y = insert(graph, "MatMul", y, graph.add_constant(numbers(72, 72 + number)[:, :72] / F16(8), f"w{number}"))
    graph.set_outputs([insert(graph, "Add", y, first)])
    key = keys("MatMul", numbers(1030, 72), numbers(72, 72), target=Target(multiprocessors=EmulatedDevice.multiprocessors))[0]
    tactics = {node.name: key for node in graph if node.op == "MatMul"}
    plan, results = freeze(graph), []
    for pdl in (False, True):
        device = EmulatedDevice(schedule=Schedule("early"))
        with open_emulated(plan, device, options=DeviceOptions(pdl=pdl, tactics=tactics)) as engine:
            for seed in (LATE, EARLY):
                with scheduled(seed):
                    results.append(b"".join(v.tobytes() for v in engine.run({"x": numbers(1030, 72)}).values()))
        assert (device.schedule.begun >= 6) == pdl
    assert len(set(results)) == 1


def product(m: int, n: int, k: int, dtype: DType = DType.F16) -> Product:
    return Product(m, n, k, dtype, dtype, dtype, False, True, k, k, n)


def test_the_heuristic_takes_it_where_it_is_to_take_less_time() -> None:
    whole = Target(arch=90, multiprocessors=132)
    assert favours_large(product(8192, 3072, 768), whole) and favours_large(product(1024, 3072, 768), whole)
    assert not favours_large(product(1024, 128, 3072), whole)  # nearly all of the multiprocessors would do nothing
    assert not favours_large(product(1000, 3072, 768), whole)
    assert not favours_large(product(8192, 3073, 768), whole)
    assert favours_large(product(8192, 3072, 768, DType.F32), whole)
    assert not favours_large(product(8192, 3072, 768, DType.F32), replace(whole, tf32=False))
    assert not favours_large(product(8192, 3072, 768, DType.F64), whole)
    for arch in (80, 100):
        assert not favours_large(product(8192, 3072, 768), replace(whole, arch=arch))
    assert not favours_large(product(8192, 3072, 768), whole, replace(PRODUCTS, large_gain=0.1))


def test_the_favourite_comes_first() -> None:
    """Of a region with a pass behind the library's part."""
    target = Target(multiprocessors=132, supports=lambda problem: True)
    a = np.zeros((8192, 768), F16)
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, a.shape))
    y = insert(graph, "MatMul", x, graph.add_constant(np.zeros((768, 3072), F16), "w"))
    y = insert(graph, "Gelu", insert(graph, "Add", y, graph.add_constant(np.zeros(3072, F16), "b")), approximate="none")
    graph.set_outputs([y])
    fuse_matmul(graph)
    first, *others = offered(graph, [a], target)
    assert first.key.startswith(f"{LARGE} 128x192") and first.claims == 3
    assert "cublaslt" in [t.key for t in others]
    assert offered(graph, [a], replace(target, arch=80))[0].key == "cublaslt"


@pytest.mark.parametrize("shape", [(4096, 3072), (2, 4096, 3072)])
def test_it_is_no_favourite_where_it_leaves_a_pass_as_well_or_reads_a_table(shape: tuple[int, ...]) -> None:
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, (2, 4096, 768)))
    y = insert(graph, "MatMul", x, graph.add_constant(np.zeros((768, 3072), F16), "w"))
    rows = graph.add_input("rows", TensorType(DType.F16, shape))
    graph.set_outputs([insert(graph, "Add", insert(graph, "Gelu", y, approximate="none"), rows)])
    fuse_matmul(graph)
    target = Target(multiprocessors=132, supports=lambda problem: True)
    given = [np.zeros((2, 4096, 768), F16), np.zeros(shape, F16)]
    listed = offered(graph, given, target)
    assert listed[0].key == "cublaslt" and any(t.key.startswith(LARGE) for t in listed)
