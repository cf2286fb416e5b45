"""QuantizedAttention, the region of the join "quantized_attention": each cut, what it is refused for, and its faults."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Q
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Cut, Leaving, attention_launch
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.ir import DType, Graph, numpy_dtype
from miniinfer_cli.ops.attention import attention
from miniinfer_cli.ops.inference import annotate, infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from tests.backends.cuda.harness import program_of
from tests.backends.cuda.performing import perform_program
from tests.backends.cuda.tactics import faults
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_attention_warpgroups import form, heads
from tests.emulation.compiler import EARLY, LATE
from tests.graph_text import typed_graph
from tests.sm90_cases.running import emulated_arrays

TEXT = """
graph main(q: f16[1,4,40,32], k: f16[1,2,130,32], v: f16[1,2,130,48]) {
  y = Attention(q, k, v)
  w = Cast(y) {to=1}
  s: f32[] = const 0.01
  z: u8[] = const 120
  b = QuantizeLinear(w, s, z)
  return b
}
"""
LEAVING = Leaving(DType.I8, 50.0, 3, -131.0, 124.0)


def joined() -> tuple[Graph, list[Any]]:
    """The region, and what it is given."""
    graph = typed_graph(TEXT)
    fuse_pointwise(graph)
    annotate(graph)
    (join,) = joins_of(graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())
    return join.graph, [heads(1, 4, 40, 32), heads(1, 2, 130, 32), heads(1, 2, 130, 48)]


def test_every_cut() -> None:
    graph, given = joined()
    (want,) = interpret(graph, given)
    keys = [t.key for t in offered(graph, given, Target())]
    assert [k.removeprefix("warpgroups ") for k in keys] == [
        *("64x144, 1 ahead", "64x80, 2 ahead in 2 parts", "64x48, 2 ahead in 2 parts", "64x48, 3 ahead in 3 parts"),
        *("64x80, 2 ahead", "64x48, 3 ahead", "64x48, 2 ahead", "128x144, 1 ahead"),
    ]
    for key in keys:
        target = Target(policy=Policy(forced={graph.nodes[0].name: key}))
        program = program_of(graph, given, target)
        assert [(s.kind, s.tactic) for s in program.steps] == [("miniinfer.QuantizedAttention", key)]
        (got,) = perform_program(program, given, target)
        np.testing.assert_array_less(np.abs(got.astype(int) - want.astype(int)), 2)
        np.testing.assert_array_less(np.mean(got != want), 0.02)


def test_keys_of_one_value_give_its_byte_in_every_cut() -> None:
    """Results lie between two steps, so that no rounding of probabilities moves a byte."""
    graph, (q, k, v) = joined()
    steps = np.random.default_rng(2).integers(-100, 100, (1, 2, 1, v.shape[-1])) + 0.2
    given = [q, k, np.broadcast_to(steps * 0.01, v.shape).astype(np.float16)]
    (want,) = interpret(graph, given)
    for key in (t.key for t in offered(graph, given, Target())):
        target = Target(policy=Policy(forced={graph.nodes[0].name: key}))
        (got,) = perform_program(program_of(graph, given, target), given, target)
        np.testing.assert_array_equal(got, want)


def test_the_estimate_counts_bytes_that_leave() -> None:
    (plain, *_), (narrow, *_) = (
        warpgroup_tactics(form(), Operand.output(0), Target(), leaving=leaving) for leaving in (None, LEAVING)
    )
    assert narrow.estimate.flops == plain.estimate.flops
    assert plain.estimate.nbytes - narrow.estimate.nbytes == 2 * 4 * 100 * 64


@pytest.mark.parametrize("fields", [{"v_size": 72}, {"strides": ((51200, 64, 512),) * 3 + ((51200, 64, 520),)}])
def test_what_cannot_leave_as_bytes(fields: Any) -> None:
    assert warpgroup_tactics(form(**fields), Operand.output(0), Target())
    assert not warpgroup_tactics(form(**fields), Operand.output(0), Target(), leaving=LEAVING)
    with pytest.raises(ValueError, match="multiples of 16"):
        attention_launch(form(**fields), Cut(1, 64, 2), Operand.output(0), leaving=LEAVING)


def error(cut: Cut, leaving: Leaving, seed: int, kernel: Kernel | None = None) -> float:
    """Of the bytes that leave, over the norm of what they are to be; what nobody is to write is in the norm as it was."""
    shape, width = form(), 512
    random = np.random.default_rng(4)
    q, k, v = (random.standard_normal((2, 100, width)).astype(np.float16) for _ in range(3))
    y = np.full((2, 100, width), 7, np.uint8).view(numpy_dtype(leaving.dtype))
    action = attention_launch(shape, cut, Operand.output(0), leaving=leaving)
    arrays = {Operand.input(Q): q, shape.k: k, shape.v: v, Operand.output(0): y}
    got = emulated_arrays(action, arrays, seed, kernel)[Operand.output(0)].astype(np.float32)
    (exact,) = attention(
        *(a[..., : n * 64].astype(np.float32) for a, n in ((q, 4), (k, 2), (v, 2))), q_num_heads=4, kv_num_heads=2
    )[:1]
    want = y.astype(np.float32)
    bounded = np.clip(exact * leaving.inverse, leaving.low, leaving.high)
    steps = np.rint(bounded) + leaving.zero if leaving.dtype.is_integer else bounded.astype(numpy_dtype(leaving.dtype))
    want[..., :256] = steps.astype(np.float32)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


CUTS = [Cut(1, 64, 1), Cut(2, 48, 2), Cut(1, 32, 2, 2)]
FLOATS = replace(LEAVING, dtype=DType.F8E4M3FN, zero=0, low=-448.0, high=448.0)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("leaving", [LEAVING, replace(LEAVING, inverse=900.0), replace(FLOATS, inverse=1e4), FLOATS])
def test_schedules(cut: Cut, leaving: Leaving) -> None:
    for seed in (LATE, EARLY, 5):
        assert error(cut, leaving, seed) < 1e-2


KERNEL = faults.kernel_text("attention")
FAULTS = {
    "the row": ("row = row0 + g + i % 2 * 8", "row = row0 + g"),
    "the chunk": ("place_in_tile(row, n / 2) + n % 2", "place_in_tile(row, n) + n % 2"),
    "the half of a chunk": ("n % 2 * 8 + 2 * t", "2 * t"),
    "the zero point": ("leaving.high, leaving.zero)", "leaving.high, 0)"),
    "a bound": ("leaving.low, leaving.high", "leaving.low, 1e9f"),
    "no barrier before results are read": ("  __syncwarp();\n  if (tile", "  if (tile"),
    "no barrier before queries are written over": ("  if (MI_PARTS == 1) meet(1 + group, 128);\n", ""),
}


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert KERNEL.count(right) == 1
    kernel = Kernel("attention_sm90", code=KERNEL.replace(right, wrong))
    leaving = replace(LEAVING, inverse=900.0)
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if not error(Cut(1, 64, 1), leaving, seed, kernel) < 1e-2:
                return
        except AssertionError:
            return
    pytest.fail(f"nobody saw that there is a fault in {name}")
