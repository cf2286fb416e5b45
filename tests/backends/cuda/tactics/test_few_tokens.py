"""Products of few tokens by constant weights: what is offered, on which GPUs, and each form's numbers."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.token_forms import TokenProduct, forms_of
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


def numbers(*shape: int, dtype: Any = F16) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def keys(op: str, *inputs: Any, constants: Any = (1,), target: Target | None = None, **attrs: Any) -> list[str]:
    """Of the kernel for few tokens, as the node offers them."""
    graph = make_graph(op, inputs, domain="", n_outputs=1, constants=constants, body=None, attrs=attrs)
    given = [a for i, a in enumerate(inputs) if i not in constants]
    return [t.key for t in offered(graph, given, target or Target()) if t.key.startswith(WAY)]


@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_every_form_does_the_product(dtype: Any) -> None:
    a, b = numbers(2, 10, 136, dtype=dtype), numbers(136, 72, dtype=dtype)
    found = keys("MatMul", a, b)
    assert len(found) == len(set(found)) > 2 and any(" parts" in key for key in found)
    for key in found:
        target = Target(policy=Policy(forced={"y0": key}))
        check_op("MatMul", a, b, constants=(1,), target=target, by=key, tolerance=LIMITS[dtype])


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_scales_and_adds_what_it_is_given(turned: int) -> None:
    a, b = numbers(13, 136), numbers(*((80, 136) if turned else (136, 80)))
    for c in (numbers(80), numbers(13, 80), numbers(13, 1), numbers(1)):
        attrs = {"transB": turned, "alpha": 0.5, "beta": -1.5}
        key = keys("Gemm", a, b, c, **attrs)[0]
        target = Target(policy=Policy(forced={"y0": key}))
        check_op("Gemm", a, b, c, constants=(1,), target=target, by=key, tolerance=LIMITS[F16], **attrs)


def test_what_it_is_not_offered_for() -> None:
    a, b = numbers(24, 128), numbers(128, 80)
    assert keys("MatMul", a, b)
    assert not keys("MatMul", a, b, constants=())  # weights that somebody computes
    assert not keys("MatMul", numbers(8, 128), b) and not keys("MatMul", numbers(520, 128), b)
    assert not keys("MatMul", numbers(24, 132), numbers(132, 80))  # rows that begin at no multiple of 16 bytes
    assert not keys("MatMul", a, numbers(128, 40)) and not keys("MatMul", numbers(24, 40), numbers(40, 80))
    assert not keys("MatMul", numbers(3, 24, 128), numbers(3, 128, 80))  # several matrices of weights
    assert not keys("Gemm", numbers(128, 24), b, transA=1)
    assert not keys("MatMul", a.astype(F32), b.astype(F32), target=Target(tf32=False))
    assert not keys("MatMul", a.astype(np.float64), b.astype(np.float64))
    for arch in (80, 89, 100):
        assert not keys("MatMul", a, b, target=Target(arch=arch))


def region(steps: list[tuple[Any, ...]], dtype: Any = F16) -> tuple[Graph, list[Any]]:
    """A product and steps behind it, (operation, operands and attributes), as one node."""
    graph, arrays = Graph("main"), [numbers(2, 10, 136, dtype=dtype)]
    x = graph.add_input("x", TensorType(dtype_of(arrays[0]), arrays[0].shape))
    y = insert(graph, "MatMul", x, graph.add_constant(numbers(136, 72, dtype=dtype) / F16(11), "w"))
    made = {"product": y}
    for op, *others in steps:
        operands: list[Value] = []
        attrs: dict[str, Any] = {}
        for other in others:
            if isinstance(other, dict):
                attrs = other
            elif isinstance(other, str):
                operands.append(made[other])
            elif isinstance(other, float):
                operands.append(graph.add_constant(np.array(other, dtype)))
            else:
                arrays.append(numbers(*other, dtype=dtype))
                operands.append(graph.add_input(f"x{len(arrays)}", TensorType(dtype_of(arrays[-1]), arrays[-1].shape)))
        y = insert(graph, op, y, *operands, **attrs)
        made[op] = y
    graph.set_outputs([y])
    fuse_matmul(graph)
    return graph, arrays


REGIONS: dict[str, list[tuple[Any, ...]]] = {
    "erf": [("Add", (72,)), ("Gelu", {"approximate": "none"})],
    "gate": [("Add", (72,)), ("Sigmoid",), ("Mul", "Add")],
    "residual behind": [("Add", (72,)), ("Gelu", {"approximate": "none"}), ("Add", (2, 10, 72))],
    "scalars and columns": [("Mul", 0.25), ("Sub", (2, 10, 1)), ("Tanh",)],
}


@pytest.mark.parametrize("name", REGIONS)
def test_what_follows_a_product_is_done_in_its_kernel(name: str) -> None:
    graph, arrays = region(REGIONS[name])
    (node,) = graph
    want = interpret(graph, arrays)
    whole = [t for t in offered(graph, arrays, Target()) if t.key.startswith(WAY) and t.claims == len(node.body or ())]
    alone, parted = ([t for t in whole if (" parts" in t.key) == are] for are in (False, True))
    for tactic in (alone[0], parted[0]):
        target = Target(policy=Policy(forced={node.name: tactic.key}))
        (got,) = run_graph(graph, arrays, target)
        assert_close(got, want[0], LIMITS[F16])
        program = make_program(graph, [v.type for v in graph.inputs], target)
        assert [kernel.name for kernel in program.kernels] == ["product_sm90"]


def test_a_table_of_rows_for_each_of_several_batches_is_left_to_others() -> None:
    graph, arrays = region([("Gelu", {"approximate": "none"}), ("Add", (10, 72))])
    (node,) = graph
    assert not [t for t in offered(graph, arrays, Target()) if t.key.startswith(WAY) and t.claims == len(node.body or ())]


def test_forms_fit_the_device() -> None:
    p = TokenProduct(197, 768, 768, DType.F16, DType.F16, 768, 768)
    for room in (120 << 10, 226 << 10):
        forms = forms_of(p, 132, room)
        assert forms and all(not f.fault(p.chunks) and f.shared_nbytes(p.chunks) <= room for f in forms)
    assert not forms_of(replace(p, count=100_000), 132)


@pytest.mark.parametrize("parted", [False, True])
def test_weights_are_loaded_before_the_turn_and_nothing_else(parted: bool) -> None:
    """Products begin before what is in front of them has run, and give the same bits."""
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, (24, 256)))
    first = insert(graph, "Sigmoid", x)
    y = first
    for number in range(3):
        y = insert(graph, "MatMul", y, graph.add_constant(numbers(256, 256 + number)[:, :256] / F16(16), f"w{number}"))
    graph.set_outputs([insert(graph, "Add", y, first)])
    target = Target(multiprocessors=EmulatedDevice.multiprocessors)
    listed = keys("MatMul", numbers(24, 256), numbers(256, 256), target=target)
    key = next(k for k in listed if (" parts" in k) == parted)
    tactics = {node.name: key for node in graph if node.op == "MatMul"}
    plan, results = freeze(graph), []
    for pdl in (False, True):
        device = EmulatedDevice(schedule=Schedule("early"))
        with open_emulated(plan, device, options=DeviceOptions(pdl=pdl, tactics=tactics)) as engine:
            for seed in (LATE, EARLY, 5):
                with scheduled(seed):
                    results.append(b"".join(v.tobytes() for v in engine.run({"x": numbers(24, 256)}).values()))
        assert (device.schedule.begun >= 9) == pdl
    assert len(set(results)) == 1


def test_it_is_the_favourite_where_networks_are_faster_by_it() -> None:
    def first(m: int, k: int, n: int, dtype: Any = F16, arch: int = 90, tf32: bool = True) -> bool:
        given = [np.zeros((m, k), dtype), np.zeros((k, n), dtype)]
        graph = make_graph("MatMul", given, domain="", n_outputs=1, constants=(1,), body=None, attrs={})
        return offered(graph, given[:1], Target(arch=arch, tf32=tf32))[0].key.startswith(WAY)

    for m, k, n in ((128, 768, 2304), (128, 768, 3072), (128, 3072, 768), (197, 768, 768), (9, 256, 256), (208, 640, 4096)):
        assert first(m, k, n) and first(m, k, n, BF16) and not first(m, k, n, arch=100), (m, k, n)
    for m, k, n in (
        (8, 768, 768),
        (128, 2048, 2048),
        (209, 768, 768),
        (128, 768, 248),
        (128, 768, 4104),
        (128, 768, 1004),
        (128, 248, 768),
    ):
        assert not first(m, k, n), (m, k, n)
    assert first(33, 768, 768, F32) and not first(32, 768, 768, F32) and not first(128, 768, 768, F32, tf32=False)
