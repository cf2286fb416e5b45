"""Programs as they are made: slots and steps, where outputs live, and that no two live values share memory."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.choice import tactics
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, HostStep
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.making import ways
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import DType, Graph, SequenceType, TensorType
from miniinfer_cli.ops.inference import annotate
from tests.backends.cuda.checked_runs import assert_same, keep_from_device
from tests.backends.cuda.live_memory import check_memory
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule
from tests.graph_text import typed_graph

F32 = DType.F32


def program_of(text: str, *types: object) -> CudaProgram:
    graph = typed_graph(text)
    program = make_program(graph, types or [v.type for v in graph.inputs], Target())
    check_memory(program)
    return program


def kinds(program: CudaProgram) -> list[str]:
    return [s.kind if isinstance(s, DeviceStep) else f"host {s.kind}" for s in program.steps]


def origins(program: CudaProgram) -> list[str]:
    return [program.slots[program.slots[s].root].origin for s in program.output_slots]


def test_steps_slots_and_the_region_of_outputs():
    program = program_of("graph main(x: f32[2,3]) {\n  a = Neg(x)\n  b = Exp(a)\n  return b\n}")
    assert kinds(program) == ["Neg", "Exp"]
    assert [(s.origin, str(s.type), s.root) for s in program.slots] == [
        ("input", "f32[2,3]", 0),
        ("device", "f32[2,3]", 1),
        ("device", "f32[2,3]", 2),
    ]
    assert (program.input_slots, program.output_slots) == ((0,), (2,))
    assert (dict(program.io.inputs), program.io.input_nbytes) == ({0: 0}, 256)
    assert (dict(program.io.outputs), program.io.output_nbytes) == ({2: 0}, 256)
    assert (dict(program.layout.offsets), program.arena_nbytes, program.activation_nbytes) == ({1: 0}, 256, 256)
    assert (program.uploads, program.host_steps, len(program.segments())) == ((), (), 1)


def test_views_share_the_bytes_of_their_root():
    text = (
        "graph main(x: f32[2,3]) {\n  s: i64[1] = const [-1]\n  a = Neg(x)\n  v = Reshape(a, s)\n  b = Exp(v)\n  return v, b\n}"
    )
    program = program_of(text)
    assert kinds(program) == ["Neg", "Exp"]
    v = program.slots[program.output_slots[0]]
    assert (str(v.type), program.slots[v.root].origin, v.root in program.io.outputs) == ("f32[6]", "device", True)


def test_what_shapes_tell_is_settled_and_no_step():
    text = "  s = Shape(x)\n  m = ReduceProd(s) {keepdims=1}\n  y = Reshape(x, m)\n  z = Neg(y)\n  return z, s\n"
    program = program_of(f"graph main(x: f32[n,3]) {{\n{text}}}", TensorType(F32, (4, 3)))
    assert kinds(program) == ["Neg", "Copy"]  # the shape itself is an output: from a table to its place
    tables = [s for s in program.slots if s.origin == "table"]
    assert [t.contents.tolist() for t in tables] == [[4, 3], [12]]


def test_outputs_that_nothing_computes_are_copied():
    text = """
graph main(x: f32[2,3]) {
  w: f32[2] = const [1.0, 2.0]
  f: i64[1] = const [-1]
  v = Reshape(x, f)
  a = Neg(x)
  r = Reshape(a, f)
  return x, again=x, w, v, a, a2=a, r
}
"""
    program = program_of(text)
    assert kinds(program) == ["Neg", *["Copy"] * 5]
    assert origins(program) == ["device"] * 7
    assert program.output_slots[4] == program.output_slots[5]
    assert len(set(program.output_slots)) == 6
    assert all(program.slots[s].root in program.io.outputs for s in program.output_slots)


def test_outputs_have_the_values_of_what_they_are(emulated):
    plan = plan_of(
        """
graph main(x: f32[n,3]) {
  w: f32[2] = const [1.0, 2.0]
  e: f32[0] = const []
  f: i64[1] = const [-1]
  s = Shape(x)
  v = Reshape(x, f)
  a = Neg(x)
  r = Reshape(a, f)
  z = NonZero(a)
  i = Identity(r)
  return x, again=x, w, e, v, a, a2=a, r, s, z, z2=z, i
}
"""
    )
    with load(plan, "cpu") as cpu, open_emulated(plan, emulated) as engine, engine.create_context() as context:
        for x in (np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((1, 3), np.float32), np.zeros((0, 3), np.float32)) * 2:
            assert_same(context.run({"x": x}), cpu.run({"x": x}))


def test_a_node_without_lowering_goes_to_the_host_with_its_reason(monkeypatch):
    keep_from_device(monkeypatch, "Erf")
    program = program_of("graph main(x: f32[2,3]) {\n  a = Neg(x)\n  b = Erf(a)\n  c = Exp(b)\n  return c\n}")
    assert kinds(program) == ["Neg", "host Erf", "Exp"]
    (step,) = program.host_steps
    assert (step.label, step.reason, step.tactic) == ("b", "no lowering", "host")
    assert program.uploads == (step.outputs[0],)
    assert [len(s) for s in program.segments()] == [1, 1, 1]


def test_a_form_without_lowering_says_so(monkeypatch):
    find = tactics.find_lowering
    monkeypatch.setattr(tactics, "find_lowering", lambda node: (lambda site: None) if node.op == "Erf" else find(node))
    (step,) = program_of("graph main(x: f32[2,3]) {\n  b = Erf(x)\n  return b\n}").host_steps
    assert step.reason == "this form has no lowering"


def test_control_flow_is_a_host_step_that_is_no_fallback():
    text = """
graph main(x: f32[2,3], c: bool[]) {
  y = If(c, x)
    then_branch: graph then(p) {
      r = Neg(p)
      return r
    }
    else_branch: graph other(p) {
      r = Exp(p)
      return r
    }
  return y
}
"""
    program = program_of(text)
    (step,) = program.steps
    assert isinstance(step, HostStep)
    assert (step.reason, step.tactic, program.host_steps) == ("control flow", "control", ())


def test_what_reads_a_size_that_depends_on_data_goes_to_the_host():
    text = "  z = NonZero(x)\n  t = Transpose(z) {perm=[1, 0]}\n  y = GatherND(x, t)\n  n = Neg(x)\n  return y, n\n"
    program = program_of(f"graph main(x: f32[2,3]) {{\n{text}}}")
    assert kinds(program) == ["NonZero", "host Transpose", "host GatherND", "Neg"]
    assert {s.reason for s in program.host_steps} == {"its inputs' sizes depend on data, or they are no tensors"}
    bounded = next(s for s in program.slots if s.bound is not None)
    assert (bounded.type.shape, bounded.bound.axis, str(program.slots[bounded.count].type)) == ((2, 6), 1, "i64[1]")


def test_a_bounded_output_lies_beside_its_count():
    program = program_of("graph main(x: f32[2,3]) {\n  z = NonZero(x)\n  return z, again=z\n}")
    (z, again) = program.output_slots
    assert z == again
    assert dict(program.io.outputs) == {z: 0, program.slots[z].count: 256}


def region(*, lowered: bool) -> Graph:
    body = typed_graph("graph body(p: f32[2,3]) {\n  a = Neg(p)\n  b = Erf(a)\n  c = Exp(b)\n  return c\n}")
    graph = Graph("main")
    x = graph.add_input("x", TensorType(F32, (2, 3)))
    y = graph.new_value("y", TensorType(F32, (2, 3)))
    graph.add_node("Pointwise" if lowered else "Nobody", [x], [y], domain="miniinfer", body=body)
    graph.set_outputs([y])
    return graph


def test_regions_are_opened_when_nobody_lowers_them(monkeypatch):
    keep_from_device(monkeypatch, "Erf", "Nobody")
    program = make_program(region(lowered=False), [TensorType(F32, (2, 3))], Target())
    assert kinds(program) == ["Neg", "host Erf", "Exp"]


def test_an_operation_is_expanded_when_nobody_lowers_it(monkeypatch):
    keep_from_device(monkeypatch, "Softsign")
    program = program_of("graph main(x: f32[2,3]) {\n  b = Softsign(x)\n  return b\n}")
    assert program.host_steps == ()
    assert len(program.steps) > 1


def test_values_that_are_no_tensors_stay_on_the_host():
    program = program_of(
        "graph main(x: f32[2,3], i: i64[]) {\n  s = SequenceConstruct(x, x)\n  y = SequenceAt(s, i)\n  return y, s\n}"
    )
    assert kinds(program) == ["host SequenceConstruct", "host SequenceAt"]
    assert isinstance(program.slots[program.output_slots[1]].type, SequenceType)
    assert (program.io.output_nbytes, program.arena_nbytes) == (0, 0)


def test_making_is_deterministic():
    text = random_graph(np.random.default_rng(5), 30)
    first, second = (program_of(text) for _ in range(2))
    assert [repr(s) for s in first.steps] == [repr(s) for s in second.steps]
    assert (first.layout, first.io, first.uploads) == (second.layout, second.io, second.uploads)


def random_graph(rng: np.random.Generator, n_nodes: int) -> str:
    """A graph of pointwise operations, views, copies, sizes that depend on data, and whatever is kept from the device."""
    lines, dense, flat = ["  f: i64[1] = const [-1]", "  s: i64[2] = const [4, 33]"], ["x"], []
    outputs: list[str] = []
    for number in range(n_nodes):
        name, a, b = f"v{number}", *rng.choice(dense, 2)
        kind = rng.choice(["Neg", "Abs", "Tanh", "Add", "Mul", "Erf", "Sinh", "flat", "back", "NonZero", "Transpose", "Softmax"])
        match kind:
            case "Add" | "Mul":
                lines.append(f"  {name} = {kind}({a}, {b})")
            case "flat":
                lines.append(f"  {name} = Reshape({a}, f)")
                flat.append(name)
                continue
            case "back":
                if not flat:
                    continue
                lines.append(f"  {name} = Reshape({rng.choice(flat)}, s)")
            case "NonZero":
                lines += [f"  {name} = NonZero({a})", f"  t{number} = Shape({name})"]
                outputs += [name, f"t{number}"][: rng.integers(1, 3)]
                continue
            case "Transpose":
                lines += [f"  t{number} = Transpose({a}) {{perm=[1, 0]}}", f"  {name} = Transpose(t{number}) {{perm=[1, 0]}}"]
            case _:
                lines.append(f"  {name} = {kind}({a})")
        dense.append(name)
    outputs += [*rng.choice(dense, 3), *rng.choice(flat or ["x"], 1), dense[-1]]
    returned = ", ".join(f"o{i}={name}" for i, name in enumerate(outputs))
    return "graph main(x: f32[4,33]) {\n" + "\n".join(lines) + f"\n  return {returned}\n}}\n"


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(monkeypatch, seed: int):
    """No live values share memory, and results are the processor's, run after run."""
    device = EmulatedDevice(schedule=Schedule(("at once", "late", "random")[seed % 3], seed))
    keep_from_device(monkeypatch, "Erf", "Sinh")
    rng = np.random.default_rng(seed)
    text = random_graph(rng, 25)
    program_of(text)
    plan = plan_of(text)
    with load(plan, "cpu") as cpu, open_emulated(plan, device) as engine, engine.create_context() as context:
        inputs = [{"x": np.round(rng.standard_normal((4, 33)) * 0.3, 1).astype(np.float32)} for _ in range(3)]
        wanted = [cpu.run(i) for i in inputs]
        for _ in range(2):
            futures = [context.enqueue(i) for i in inputs]
            for future, want in zip(futures, wanted, strict=True):
                assert_same(future.result(), want)
    assert device.leftovers == {}


@pytest.mark.parametrize("n_outputs", [0, 1, 2])
@pytest.mark.parametrize("op", ["DynamicQuantizeLinear", "TopK"])
def test_outputs_that_a_node_lacks_are_written_nowhere(op: str, n_outputs: int) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (3, 4)))
    operands = [x] if op == "DynamicQuantizeLinear" else [x, graph.add_constant(np.array([2], np.int64))]
    results = [graph.new_value(f"y{i}") for i in range(n_outputs)]
    graph.add_node(op, operands, results)
    graph.set_outputs([x, *results])
    annotate(graph)
    program = make_program(graph, [x.type], Target())
    assert len(program.output_slots) == 1 + n_outputs
    assert {s.kind for s in program.steps} - {"Copy"} or not n_outputs


def test_a_type_that_no_kernel_takes_sends_the_node_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.C64, (2, 3)))
    graph.set_outputs([graph.add("Transpose", x, perm=(1, 0))])
    monkeypatch.setattr(ways, "lower", lambda site, joins: c_type(site.dtype()))
    (step,) = make_program(graph, [x.type], Target()).steps
    assert isinstance(step, HostStep)
