"""QuantizedConv and QuantizedMatMul on the CPU, within one step of what their nodes say; numbers quantized in chains."""

import math

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops import annotate, insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.backends.cpu.lowering.one_node import check_graph
from tests.passes.quantized_graphs import CASES, assert_within_a_step, quantized_product, random_feeds


@pytest.mark.parametrize("case", CASES)
def test_a_region_gives_what_its_nodes_give(case):
    graph = quantized_product(**CASES[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    assert fuse_quantized(graph) == 1
    annotate(graph)
    for threads in (1, 3):
        model = CpuModel(graph, threads)
        try:
            program = model.make_program([v.type for v in graph.inputs])
            assert sum(s.tactic.startswith("unfolded ") for s in program.steps) == 1
            kept = [f.copy() for f in feeds]
            for _ in range(2):  # what the first run leaves behind changes nothing
                (got,) = model.make_context().execute(program, kept)
                assert_within_a_step(got, want)
            assert all(np.array_equal(a, b) for a, b in zip(kept, feeds, strict=True)), "an input was changed"
        finally:
            model.close()


def test_two_programs_share_the_unfolded_weights():
    graph = quantized_product(y_dtype=DType.I8)
    fuse_quantized(graph)
    annotate(graph)
    model = CpuModel(graph, 1)
    for _ in range(2):
        model.make_program([v.type for v in graph.inputs])
    assert model.stats()["weights"]["derived_nbytes"] == 4 * 4 * 3 * 3 * 6
    model.close()


def test_what_is_made_of_the_unfolded_weights_is_shared_too():
    """Weights of three taps as Winograd has them: another program makes none anew."""
    graph = quantized_product(y_dtype=DType.I8, channels=64, features=64, side=24)
    fuse_quantized(graph)
    annotate(graph)
    model = CpuModel(graph, 1)
    held, programs = [], []
    for _ in range(2):
        programs.append(model.make_program([v.type for v in graph.inputs]))
        held.append(model.stats()["weights"]["derived_nbytes"])
    assert held[0] == held[1] > 4 * 64 * 3 * 3 * 64
    model.close()


SPECIAL = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, np.inf, -np.inf, 0.0, -0.0, 126.4, 127.5, 254.5, 255.5, 40000.0])


def one(op, dtype, scale, zero, *, bound="", shape=(4, 8)):
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F32 if op == "QuantizeLinear" else dtype, shape))
    numbers = [graph.add_constant(np.float32(scale), "scale")]
    numbers += [] if zero is None else [graph.add_constant(np.array([zero], numpy_dtype(dtype)), "zero")]
    body = Graph("FusedPointwise")
    inner = body.add_input("x", x.type)
    if bound == "Relu":
        inner = insert(body, "Relu", inner)
    elif bound:
        ends = [None if e is None else body.add_constant(np.float32(e)) for e in bound]
        inner = insert(body, "Clip", inner, *ends)
    attrs = {"output_dtype": 3} if op == "QuantizeLinear" and zero is None else {}
    y = insert(body, op, inner, *(body.add_constant(n.constant, n.name) for n in numbers), **attrs)
    body.set_outputs([y])
    result = graph.new_value("y")
    graph.add_node("FusedPointwise", [x], [result], domain="miniinfer", body=body)
    graph.set_outputs([result])
    return graph


@pytest.mark.parametrize(
    ("dtype", "zero"), [(DType.I8, 0), (DType.I8, -5), (DType.U8, 0), (DType.U8, 128), (DType.I16, 0), (DType.U16, 7)]
)
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0371])
def test_numbers_are_quantized_as_the_operation_says(dtype, zero, scale):
    rng = np.random.default_rng(0)
    x = np.concatenate([SPECIAL, (rng.standard_normal(16) * 90).astype(np.float32)]).reshape(4, 8) * np.float32(scale)
    check_graph(one("QuantizeLinear", dtype, scale, zero), [x], "blocks of 1")
    ends = np.iinfo(numpy_dtype(dtype))
    stored = rng.integers(ends.min, ends.max, (4, 8), dtype=numpy_dtype(dtype), endpoint=True)
    stored[0, :2] = ends.min, ends.max
    check_graph(one("DequantizeLinear", dtype, scale, zero), [stored], "blocks of 1")


@pytest.mark.parametrize("dtype", [DType.F8E4M3FN, DType.F8E5M2])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0371])
def test_8_bit_floats_are_rounded_and_widened_as_the_operation_says(dtype, scale):
    """Every code, what lies in the middle of two, what is beside that, and what is beyond all; NaN too."""
    codes = np.arange(256, dtype=np.uint8).view(numpy_dtype(dtype))
    wide = np.sort(codes.astype(np.float32)[np.isfinite(codes.astype(np.float32))])
    middles = (wide[1:] + wide[:-1]) / 2
    near = [middles, np.nextafter(middles, np.float32(9e9)), np.nextafter(middles, np.float32(-9e9)), wide, SPECIAL, [np.nan]]
    x = np.resize(np.concatenate(near).astype(np.float32), (1024, 8)) * np.float32(scale)
    graph = one("QuantizeLinear", dtype, scale, 0, shape=(1024, 8))
    check_graph(graph, [x], "blocks of 1")
    check_graph(one("QuantizeLinear", dtype, scale, 0, shape=(1024, 8), bound=(-0.7, 3.3)), [x], "blocks of 1")
    check_graph(one("DequantizeLinear", dtype, scale, 0), [np.resize(codes, (4, 8))], "blocks of 1")
    check_graph(one("DequantizeLinear", dtype, scale, None, shape=(32, 8)), [codes.reshape(32, 8)], "blocks of 1")


def test_8_bit_floats_that_do_not_saturate_are_left_to_the_reference():
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F32, (2,)))
    numbers = (graph.add_constant(np.float32(1), "s"), graph.add_constant(np.zeros((), numpy_dtype(DType.F8E4M3FN)), "z"))
    graph.set_outputs([insert(graph, "QuantizeLinear", x, *numbers, saturate=0)])
    check_graph(graph, [np.float32([1e6, 3.3])], "reference")


def test_without_a_zero_point():
    check_graph(
        one("QuantizeLinear", DType.I8, 0.1, None), [np.linspace(-20, 20, 32, dtype=np.float32).reshape(4, 8)], "blocks of 1"
    )
    check_graph(one("DequantizeLinear", DType.I8, 0.1, None), [np.arange(32, dtype=np.int8).reshape(4, 8)], "blocks of 1")


@pytest.mark.parametrize("bound", ["Relu", (0.0, 6.0), (None, 1.03), (-2.0, None), (-math.inf, 3.3), (-0.37, 0.21)])
@pytest.mark.parametrize("scale", [1.0, 0.0371])
def test_what_bounds_a_number_first_costs_no_stage(bound, scale):
    x = np.random.default_rng(3).standard_normal((4, 8)).astype(np.float32) * 4
    check_graph(one("QuantizeLinear", DType.U8, scale, 11, bound=bound), [x], "blocks of 1")
    check_graph(one("QuantizeLinear", DType.I8, scale, -3, bound=bound), [x], "blocks of 1")


def test_bounds_the_wrong_way_round_stay_a_stage():
    x = np.random.default_rng(3).standard_normal((4, 8)).astype(np.float32)
    check_graph(one("QuantizeLinear", DType.U8, 0.1, 11, bound=(1.0, -1.0)), [x], "blocks of 2")
