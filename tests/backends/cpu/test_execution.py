"""What an execution does besides computing: sub-graphs, sizes that depend on data, failures, memory, what it hands out."""

import gc
from typing import Any

import numpy as np
import pytest

from miniinfer_cli import host_memory
from miniinfer_cli.backends import reference
from miniinfer_cli.backends.cpu import bound_program, execution, memory
from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.errors import ModelError, OutOfMemoryError
from miniinfer_cli.ir import DType, TensorType, dtype_of
from miniinfer_cli.ops.interpreter import interpret
from tests.graph_text import typed_graph
from tests.late_graphs import TEXTS, chain, feeds

GROWING = """
graph main(m: i64[], x: f32[n,2]) {
  last, sums = Loop(m, -, x, x) {n_captures=1}
    body: graph body(i, going, grown, piece) {
      axes: i64[1] = const [0]
      more = Concat(grown, piece) {axis=0}
      sum = ReduceSum(grown, axes) {keepdims=0}
      return going, more, sum
    }
  return last, sums
}
"""

BRANCH_IN_LOOP = """
graph main(m: i64[], x: f32[n]) {
  last, kept = Loop(m, -, x, x) {n_captures=1}
    body: graph body(i, going, state, origin) {
      two: i64[] = const 2
      rest = Mod(i, two)
      one: i64[] = const 1
      odd = Equal(rest, one)
      next: ? = If(odd, state, origin)
        then_branch: graph then(a, b) {
          s = Add(a, b)
          return s
        }
        else_branch: graph other(a, b) {
          return a
        }
      return going, next, origin
    }
  return last, kept
}
"""

LIST = """
graph main(x: f32[n], w: f32[n]) {
  c: f32[2] = const [1.0, 2.0]
  e = Exp(x)
  l = SequenceConstruct(x, c, e)
  return l
}
"""


class Machine:
    """A graph on the CPU with one context."""

    def __init__(self, text: str) -> None:
        self.graph = typed_graph(text)
        self.model = CpuModel(self.graph)
        self.context = self.model.make_context()

    def run(self, *inputs: Any) -> tuple[Any, ...]:
        return self.context.execute(self.model.make_program([TensorType(dtype_of(a), a.shape) for a in inputs]), inputs)


@pytest.mark.parametrize("text", [GROWING, BRANCH_IN_LOOP])
def test_sub_graphs_compute_what_the_interpreter_does(text):
    machine = Machine(text)
    rank = machine.graph.inputs[1].tensor.rank or 0
    for turns in (0, 1, 5, 2):
        inputs = [np.array(turns), np.arange(6, dtype=np.float32).reshape((3, 2) if rank == 2 else 6)]
        for got, expected in zip(machine.run(*inputs), interpret(machine.graph, inputs), strict=True):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)
            assert not np.shares_memory(got, inputs[1])


def test_programs_of_sub_graphs_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(execution, "_NESTED", 3)
    machine = Machine(GROWING)
    machine.run(np.array(10), np.ones((3, 2), np.float32))
    assert machine.context._nested is not None
    assert len(machine.context._nested._made) == 3
    held = machine.context.arena_nbytes
    machine.run(np.array(10), np.ones((3, 2), np.float32))
    assert machine.context.arena_nbytes == held > 0
    machine.context.close()
    assert machine.context.arena_nbytes == 0


def test_lists_are_handed_out_as_copies():
    machine = Machine(LIST)
    x = np.zeros(3, np.float32)
    ((own, constant, made),) = machine.run(x, x)
    own[:] = constant[:] = made[:] = 7
    assert x.tolist() == [0, 0, 0]
    ((again, constant, made),) = machine.run(x, x)
    assert [a.tolist() for a in (again, constant, made)] == [[0, 0, 0], [1, 2], [1, 1, 1]]


def test_nothing_of_the_caller_is_kept_after_a_run():
    machine = Machine("graph main(x: f32[n]) {\n  s: i64[2] = const [-1, 1]\n  y = Reshape(x, s)\n  return y, x\n}")
    x = np.ones(4, np.float32)
    machine.run(x)
    (bound,) = machine.context._bound.values()
    assert not [v for v in bound._slots if isinstance(v, np.ndarray) and np.shares_memory(v, x)]


PASSED_ON = """
graph main(m: i64[], x: f32[n], w: f32[k]) {
  a, b, last = Loop(m, -, x, w) {n_captures=0}
    body: graph body(i, going, one, other) {
      t = Neg(one)
      return going, other, t, one
    }
  return a, b, last
}
"""


def test_what_a_loop_hands_on_as_it_came_is_not_lost_in_the_next_round():
    machine = Machine(PASSED_ON)
    x, w = np.arange(3, dtype=np.float32), np.arange(3, 6, dtype=np.float32)
    inputs = [np.array(5), x, w]
    for got, expected in zip(machine.run(*inputs), interpret(machine.graph, inputs), strict=True):
        assert np.array_equal(got, expected)


def test_inputs_of_any_size_are_read_anew_in_each_run(monkeypatch):
    for limit in (0, 1 << 15):
        monkeypatch.setattr(bound_program, "_COPIED_NBYTES", limit)
        machine = Machine("graph main(x: f32[n], w: f32[n]) {\n  y = Add(x, w)\n  z = Exp(y)\n  return z, x\n}")
        for n in range(3):
            x, w = np.full(4, n, np.float32), np.full(4, -2 * n, np.float32)
            z, same = machine.run(x, w)
            assert np.allclose(z, np.exp(-n))
            same += 1
            assert x.tolist() == [n] * 4


INDEXED = "graph main(x: f32[4], i: i64[n]) {\n  y = Gather(x, i)\n  z = Exp(y)\n  return z\n}"


def test_a_context_goes_on_after_a_failure_and_the_failure_names_its_node():
    machine = Machine(INDEXED)
    x = np.zeros(4, np.float32)
    with pytest.raises(ModelError, match=r"^node 'y': .*9"):
        machine.run(x, np.array([0, 9]))
    (bound,) = machine.context._bound.values()
    assert not [v for v in bound._slots if isinstance(v, np.ndarray) and np.shares_memory(v, x)]
    assert machine.run(x, np.array([0, 3]))[0].tolist() == [1, 1]


@pytest.mark.parametrize("error", [IndexError, ValueError, ZeroDivisionError])
def test_what_numpy_refuses_is_the_datas_fault_and_names_its_node(monkeypatch, error):
    def refuse(node, inputs, for_each):
        raise error("no such thing")

    monkeypatch.setattr(reference, "interpret_node", refuse)
    with pytest.raises(ModelError, match=r"^node 'y': Gather: no such thing\n  hint: "):
        Machine(INDEXED).run(np.zeros(4, np.float32), np.array([0]))


def test_memory_that_a_step_does_not_get_is_told_with_the_node(monkeypatch):
    def refuse(node, inputs, for_each):
        raise MemoryError("Unable to allocate 3.00 TiB")

    monkeypatch.setattr(reference, "interpret_node", refuse)
    with pytest.raises(OutOfMemoryError, match=r"^node 'y': Gather: Unable to allocate 3.00 TiB\n  hint: run smaller"):
        Machine(INDEXED).run(np.zeros(4, np.float32), np.array([0]))


@pytest.mark.parametrize("size", [1 << 20, 1 << 27])
def test_a_value_that_cannot_fit_is_refused_before_anything_is_made(size):
    machine = Machine("graph main(x: f32[1,n], y: f32[m,1]) {\n  z = Add(x, y)\n  s = Exp(z)\n  return s\n}")
    kinds = [TensorType(DType.F32, (1, size)), TensorType(DType.F32, (size, 1))]
    with pytest.raises(OutOfMemoryError, match=r"memory for the value '[zs]': \d+ MiB needed, \d+ MiB free\n  hint: run smaller"):
        machine.model.make_program(kinds)


def test_scratch_that_cannot_be_is_told_before_it_is_planned():
    huge = 1 << 31
    machine = Machine(
        f"graph main(x: f32[1,4,4,1], w: f32[1,1,1,1]) {{\n  y = miniinfer.ConvNHWC(x, w) {{pads=[{huge},{huge},{huge},{huge}], "
        f"strides=[{huge},{huge}]}}\n  return y\n}}"
    )
    with pytest.raises(OutOfMemoryError, match=r"scratch memory of node 'y': more than 2\^63 bytes needed, \d+ MiB free"):
        machine.model.make_program([TensorType(DType.F32, (1, 4, 4, 1)), TensorType(DType.F32, (1, 1, 1, 1))])


def test_an_arena_larger_than_what_is_free_is_refused(monkeypatch):
    monkeypatch.setattr(host_memory, "available_memory", lambda: 5 << 20)
    with pytest.raises(OutOfMemoryError, match="memory for the activations: 512 MiB needed, 5 MiB free"):
        memory.allocate_arena(512 << 20)
    assert memory.allocate_arena(1000).nbytes == 1000


def test_available_memory_is_within_the_containers_limit(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       100 kB\nMemAvailable:    50 kB\n")
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "meminfo")
    for limit, expected in (("max\n", 51200), ("1000\n", 1000), ("99999999\n", 51200)):
        (tmp_path / "limit").write_text(limit)
        monkeypatch.setattr(host_memory, "_CGROUP_LIMIT", tmp_path / "limit")
        assert host_memory.available_memory() == expected
    monkeypatch.setattr(host_memory, "_CGROUP_LIMIT", tmp_path / "none")
    assert host_memory.available_memory() == 51200
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "none")
    assert host_memory.available_memory() is None


def test_random_operations_draw_anew_at_each_run():
    machine = Machine("graph main(x: f32[4]) {\n  r = RandomNormal() {shape=[4]}\n  y = Add(x, r)\n  return y\n}")
    first, second = (machine.run(np.zeros(4, np.float32))[0] for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("shapes", [((2, 3, 0), (0, 5)), ((0, 3, 4), (4, 5)), ((2, 3, 4), (4, 0))])
def test_products_of_nothing(shapes):
    machine = Machine("graph main(x: f32[a,b,c], w: f32[d,e]) {\n  y = MatMul(x, w)\n  return y\n}")
    x, w = (np.ones(s, np.float32) for s in shapes)
    (y,) = machine.run(x, w)
    assert np.array_equal(y, x @ w)
    assert y.shape == (*shapes[0][:2], shapes[1][1])


def test_a_gemm_without_beta_reads_no_addend():
    machine = Machine("graph main(x: f32[2,3], w: f32[3,2], c: f32[2]) {\n  y = Gemm(x, w, c) {beta=0.0}\n  return y\n}")
    inputs = [np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), np.array([np.nan, np.inf], np.float32)]
    assert machine.run(*inputs)[0].tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize("layout", ["transposed", "strided", "read-only"])
def test_inputs_lie_as_they_like(layout):
    machine = Machine(
        "graph main(x: f32[a,b], w: f32[b,c]) {\n  e = Exp(x)\n  p = MatMul(x, w)\n  s = Softmax(x)\n"
        "  k: i64[1] = const [-1]\n  r = Reshape(x, k)\n  t = Tanh(r)\n  return e, p, s, t\n}"
    )
    base = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    x = {"transposed": base.T, "strided": base[::2, ::-2], "read-only": base.copy()}[layout]
    x.flags.writeable = False
    w = base[: x.shape[1]]
    for got, expected in zip(machine.run(x, w), interpret(machine.graph, [x, w]), strict=True):
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TEXTS)
def test_late_parts_have_programs_of_their_own(name: str):
    graph = typed_graph(TEXTS[name])
    model = CpuModel(graph)
    context = model.make_context()
    for rows, seed in ((5, 0), (5, 1), (9, 2), (5, 0), (1, 3), (9, 2)):
        given = list(feeds(name, rows, seed).values())
        program = model.make_program([TensorType(dtype_of(v), v.shape) for v in given])
        assert [s.tactic for s in program.steps].count("late") == 1
        for got, want in zip(context.execute(program, given), interpret(graph, given), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, strict=True)


def test_a_late_part_is_made_once_for_each_of_its_sizes(monkeypatch):
    made = []
    make = execution.CpuProgram
    graph = typed_graph(TEXTS["chosen"])
    model = CpuModel(graph)
    context = model.make_context()
    given = list(feeds("chosen", 5, 0).values())
    program = model.make_program([TensorType(dtype_of(v), v.shape) for v in given])
    monkeypatch.setattr(execution, "CpuProgram", lambda *given, **more: made.append(given) or make(*given, **more))
    for turn in range(6):
        given[0] = np.full((5, 3), 1, np.float32)
        given[0][: turn % 3] = -1  # so many rows are chosen
        context.execute(program, given)
    assert len(made) == 3


def test_what_a_late_part_holds_goes_with_its_program(monkeypatch):
    monkeypatch.setattr(execution, "_NESTED", 2)
    monkeypatch.setattr(execution, "_EXECUTIONS", 2)
    text = TEXTS["chosen"].replace(
        "  r = Relu(y)", "  s = Shape(x)\n  t = Expand(zero, s)\n  u = Gather(t, f)\n  v = MatMul(u, w)\n  r = Add(y, v)"
    )
    graph = typed_graph(text)
    model = CpuModel(graph)
    context = model.make_context()
    held = []
    for rows in range(2, 12):
        given = list(feeds("chosen", rows, rows).values())
        program = model.make_program([TensorType(dtype_of(v), v.shape) for v in given])
        for got, want in zip(context.execute(program, given), interpret(graph, given), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, strict=True)
        del program
        gc.collect()
        held.append(len(model._weights._arrays))
    assert held[-1] == held[4]


def test_long_chains_of_choices():
    graph = typed_graph(chain(110))
    model = CpuModel(graph)
    given = [np.float32([[1, 0], [-1, -2], [0, 3]]), np.eye(2, dtype=np.float32)]
    program = model.make_program([TensorType(dtype_of(v), v.shape) for v in given])
    (y,) = model.make_context().execute(program, given)
    np.testing.assert_array_equal(y, given[0][[0, 2]])
