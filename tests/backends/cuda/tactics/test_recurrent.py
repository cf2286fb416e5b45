"""RNN, GRU and LSTM in one launch, step by step, and by products."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.deciding import lower as decide
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.recurrent.recurrent import RecurrentHeuristic, recurrent_tactics
from miniinfer_cli.backends.cuda.tactics.recurrent.recurrent_net import Net
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ops.inference import infer_node
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_graph, offered
from tests.backends.cuda.unrolling import unrolled
from tests.backends.nodes import make_graph
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = [
    "Relu",
    "Tanh",
    "Sigmoid",
    "Softsign",
    "Softplus",
    "Affine",
    "LeakyRelu",
    "ThresholdedRelu",
    "ScaledTanh",
    "HardSigmoid",
    "Elu",
]
PRODUCTS = "by "
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((op, {}) for op in GATES),
    *((op, {"direction": "reverse", "lengths": True}) for op in GATES),
    *((op, {"direction": "bidirectional", "layout": 1, "lengths": True, "clip": 0.3}) for op in GATES),
    *((op, {"bias": False, "initial": False, "clip": 0.0}) for op in GATES),
    ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
    ("GRU", {"linear_before_reset": 1, "bias": False}),
    ("LSTM", {"peepholes": True}),
    ("LSTM", {"peepholes": True, "input_forget": 1, "direction": "bidirectional"}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"n_outputs": 1}),
]


def operands(
    op: str,
    sizes: tuple[int, int, int, int],
    direction: str = "forward",
    layout: int = 0,
    bias: bool = True,
    lengths: bool = False,
    initial: bool = True,
    peepholes: bool = False,
    dtype: str = "float32",
) -> list[Any]:
    """``sizes``: time steps, sequences, inputs, units."""
    random = np.random.default_rng(11)
    t, n, i, h = sizes
    d, g = 2 if direction == "bidirectional" else 1, GATES[op]

    def new(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.5).astype(dtype)

    state = (n, d, h) if layout else (d, n, h)
    given = [new(*((n, t, i) if layout else (t, n, i))), new(d, g * h, i), new(d, g * h, h)]
    given += [new(d, 2 * g * h) if bias else None, random.integers(0, t + 1, n).astype(np.int32) if lengths else None]
    given += [new(*state) if initial else None]
    if op == "LSTM":
        given += [new(*state) if initial else None, new(d, 3 * h) if peepholes else None]
    return given


def check(op: str, sizes: Any, target: Target | None = None, n_outputs: int | None = None, way: str = "", **options: Any) -> None:
    names = ("bias", "lengths", "initial", "peepholes", "dtype")
    own = {k: options.pop(k) for k in names if k in options}
    given = operands(op, sizes, options.get("direction", "forward"), options.get("layout", 0), **own)
    tolerance = {"float16": 4e-3, "bfloat16": 3e-2}.get(own.get("dtype", ""), 2e-5)
    options |= {"n_outputs": n_outputs or (3 if op == "LSTM" else 2), "hidden_size": sizes[3]}
    target = target or Target()
    if way:
        graph = graph_of(op, given, **options)
        key = next(t.key for t in offered(graph, [a for a in given if a is not None], target) if f", then {way}" in t.key)
        target = replace(target, policy=Policy(forced={graph.nodes[0].name: key}))
        options["by"] = key
    check_op(op, *given, target=target, tolerance=tolerance, **options)


def graph_of(op: str, given: list[Any], n_outputs: int = 2, **attrs: Any) -> Graph:
    return make_graph(op, given, domain="", n_outputs=n_outputs, constants=(), body=None, attrs=attrs)


@pytest.fixture(params=["in one launch", "step by step", PRODUCTS])
def way(request: Any) -> str:
    return str(request.param)


@pytest.mark.parametrize(("op", "options"), VARIANTS, ids=str)
def test_variants(way: str, op: str, options: dict[str, Any]) -> None:
    check(op, (4, 3, 5, 8), way=way, **options)
    if way == PRODUCTS:
        check(op, (3, 3, 5, 8), target=Library().target(), way=way, **options)


@pytest.mark.parametrize("op", GATES)
def test_odd_sizes_and_more_sequences_than_a_warp_takes(way: str, op: str) -> None:
    check(op, (3, 11, 6, 7), way=way, target=Target(multiprocessors=2), direction="bidirectional", lengths=True)


@pytest.mark.parametrize("op", GATES)
def test_halves_keep_their_state_wide(way: str, op: str) -> None:
    check(op, (4, 3, 5, 8), way=way, dtype="float16", direction="bidirectional")


def test_doubles(way: str) -> None:
    check("LSTM", (4, 3, 5, 8), way=way, dtype="float64")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    for parameters in ({}, {"activation_alpha": [0.7, 0.4], "activation_beta": [0.3, 0.2]}):
        check("RNN", (3, 2, 4, 8), activations=[name] * 2, direction="bidirectional", **parameters)


def test_parameters_go_to_the_functions_that_have_them() -> None:
    names = ["HardSigmoid", "Tanh", "Affine", "Sigmoid", "ScaledTanh", "LeakyRelu"]
    parameters = {"activation_alpha": [0.3, 0.9, 1.1, 0.2], "activation_beta": [0.4, 0.1]}
    check("LSTM", (3, 2, 4, 8), activations=names, direction="bidirectional", **parameters)


def test_no_time_steps_leave_the_states() -> None:
    given = operands("LSTM", (0, 3, 5, 8))
    y, h, c = run_op("LSTM", *given, n_outputs=3, hidden_size=8)
    assert y.shape == (0, 1, 3, 8)
    np.testing.assert_array_equal(h, given[5])
    np.testing.assert_array_equal(c, given[6])
    given = operands("GRU", (0, 3, 5, 8), initial=False)
    _, h = run_op("GRU", *given, n_outputs=2, hidden_size=8)
    assert not h.any()


def test_no_sequences_and_no_inputs() -> None:
    given = operands("RNN", (3, 0, 5, 8))
    y, h = run_op("RNN", *given, n_outputs=2, hidden_size=8)
    assert (y.shape, h.shape) == ((3, 1, 0, 8), (1, 0, 8))
    check("RNN", (3, 2, 0, 8))


def lower(op: str, sizes: tuple[int, int, int, int]) -> Lowered:
    lowered = decide(site_of(op, sizes))
    assert lowered is not None and isinstance(lowered.work, Lowered)
    return lowered.work


def site_of(op: str, sizes: tuple[int, int, int, int]) -> Site:
    given = operands(op, sizes)
    (node,) = graph_of(op, given, hidden_size=sizes[3])
    kinds = tuple(None if a is None else TensorType(dtype_of(a), a.shape) for a in given)
    return Site(node, kinds, infer_node(node, kinds), (None,) * len(kinds), Target())


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((9, 1, 64, 128), "in one launch"), ((9, 1, 64, 512), "step by step"), ((9, 64, 64, 512), "by gemm 64x64 in 2 parts")],
)
def test_the_way_follows_from_the_sizes(sizes: Any, expected: str) -> None:
    assert lower("LSTM", sizes).tactic.endswith(expected)


@pytest.mark.parametrize(("rows", "way"), [(1, "step by step"), (64, "by gemm 64x64 in 2 parts")])
@pytest.mark.parametrize("op", GATES)
def test_a_program_does_not_grow_with_the_sequence(op: str, rows: int, way: str) -> None:
    short, long, longer = (lower(op, (length, rows, 64, 512)) for length in (500, 1000, 1001))
    assert short.tactic == long.tactic and short.tactic.endswith(way)
    assert len(long.actions) == len(short.actions)
    done = [sum(1 for _ in unrolled(lowered.actions)) for lowered in (short, long, longer)]
    assert done[1] - done[0] == 500 * (done[2] - done[1]) > 0


@pytest.mark.parametrize(("length", "rows"), [(1, 16), (4, 16), (5, 16), (5, 1)])
def test_an_engine_advances_enqueued_and_captured(length: int, rows: int) -> None:
    way = "step by step" if rows == 1 else PRODUCTS
    listed = recurrent_tactics(Net(site_of("GRU", (length, rows, 3, 4))))
    tactics = {"y": next(t.key for t in listed if not t.problems and f", then {way}" in t.key)}
    plan = plan_of(
        f"""graph main(x: f32[{length},{rows},3], w: f32[1,12,3], r: f32[1,12,4]) {{
          y, h = GRU(x, w, r) {{hidden_size=4}}
          return y, h
        }}"""
    )
    random = np.random.default_rng(5)
    device = EmulatedDevice(schedule=Schedule("late"))
    with (
        open_emulated(plan, device, options=DeviceOptions(tactics=tactics)) as engine,
        engine.create_context() as context,
        load(plan, "cpu") as other,
    ):
        for _ in range(3):  # enqueued, captured, replayed
            given = {b.name: random.standard_normal(b.shape).astype(np.float32) for b in engine.inputs}
            want = other.run(given)
            for name, got in context.run(given).items():
                np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=1e-5)
        assert engine.stats()["cuda_graphs"]["captures"]


KERNELS = ("cublaslt", "gemm 64x64", "gemm 128x128")
BY_PRODUCTS = {  # the projection, and the products of a step's phases
    "LSTM": [
        *(("cublaslt", "cublaslt"), ("cublaslt", "gemv_along_k"), ("gemm 64x64", "cublaslt"), ("gemm 64x64", "gemv_along_k")),
        *(("gemm 64x64", "gemm 64x64"), ("gemm 128x128", "gemm 128x128")),
    ],
    "GRU": [
        *(
            (a, "cublaslt" if n < 2 else "gemv_along_k", "gemv_along_k" if n % 2 else "cublaslt")
            for a in KERNELS[:2]
            for n in range(4)
        ),
        *(("gemm 64x64",) * 3, ("gemm 128x128",) * 3),
    ],
}


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_every_tactic_runs_the_net_when_it_is_forced(op: str) -> None:
    given = operands(op, (5, 3, 8, 8))
    keys = check_graph(
        [a for a in given if a is not None], graph_of(op, given, hidden_size=8), Library().target(), tolerance=2e-5
    )
    steps = [(a, f"by {' and '.join(dict.fromkeys(products))}") for a, *products in BY_PRODUCTS[op]]
    wanted = [*((a, b) for b in ("in one launch", "step by step") for a in KERNELS), *steps]
    assert keys == [f"{a}, then {b}" for a, b in wanted]


def test_thresholds_are_those_of_the_table() -> None:
    def first(rows: int, **table: int) -> str:
        listed = recurrent_tactics(Net(site_of("LSTM", (5, rows, 4, 6))), RecurrentHeuristic(**table))
        return listed[0].key.partition(", then ")[2]

    nbytes = 4 * 6 * 6 * 4
    assert [first(3), first(3, cached_nbytes=nbytes), first(3, cached_nbytes=nbytes - 1)] == [
        *("in one launch", "in one launch", "step by step")
    ]
    assert [first(3, cached_nbytes=0, many_rows=n) for n in (3, 4)] == ["by cublaslt", "step by step"]
