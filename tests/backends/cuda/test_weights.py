"""Constants on the device: where each is found, once for all, and what a failure leaves."""

import ctypes
import logging
import threading

import ml_dtypes
import numpy as np
import pytest

from engine_format import read_plan, write_plan
from miniinfer_cli.backends.cuda.arrays.transfers import Transfers
from miniinfer_cli.backends.cuda.choice import tactics
from miniinfer_cli.backends.cuda.contract.steps import Copy, Derived, Lowered, Operand, Rewrite
from miniinfer_cli.backends.cuda.loading.weights import DeviceWeights
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, constant
from miniinfer_cli.ops import annotate
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.thaw import thaw
from tests.backends.cuda.checked_runs import keep_from_device
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph

MODEL = """
graph main(x: f32[n,3]) {
  w: f32[3] = const [1.0, 2.0, 3.0]
  b: f32[3] = const [0.5, 0.5, 0.5]
  y = Mul(x, w)
  z = Add(y, b)
  v = Mul(z, w)
  return v
}
"""
DOUBLE = "graph d(x: f32[3]) {\n  y = Add(x, x)\n  return y\n}"
X = np.arange(6, dtype=np.float32).reshape(2, 3)
WANT = ((X * [1, 2, 3] + 0.5) * [1, 2, 3]).tolist()


@pytest.mark.parametrize("written", [False, True])
def test_a_static_model_finds_everything_preloaded(emulated, tmp_path, written: bool):
    plan = plan_of(MODEL, written_to=tmp_path / "m.plan" if written else None)
    with open_emulated(plan, emulated) as engine:
        for _ in range(3):
            with engine.create_context() as context:
                for n in (1, 2):
                    assert context.run({"x": X[:n]})["v"].tolist() == WANT[:n]
        counts = engine.stats()["weights"]
        assert counts.pop("preload_s") > 0
        assert counts == {
            "tensors": 2,
            "nbytes": 512 if written else 24,
            "preloaded_hits": 4,  # two programs with two constants each
            "derived_hits": 0,
            "derived_nbytes": 0,
            "late_copies": 0,
            "late_nbytes": 0,
            "copied_from": "",
        }
    plan.close()


def test_contexts_share_one_copy(emulated):
    with open_emulated(plan_of(MODEL), emulated) as engine:
        contexts = [engine.create_context() for _ in range(3)]
        contexts[0].run({"x": X})
        before = engine.stats()["weights"]
        for context in contexts:
            assert context.run({"x": X})["v"].tolist() == WANT
        assert engine.stats()["weights"] == before


def test_the_log_tells_how_much_and_how_fast(logged):
    with logged.at_level(logging.INFO), open_emulated(plan_of(MODEL), EmulatedDevice()):
        pass
    assert [m for m in logged.messages if m.startswith("preloaded 2 tensors, 0.0 MiB in ")]


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "uint2", "float4_e2m1fn"])
def test_types_below_a_byte_are_unpacked(emulated, tmp_path, written: bool, dtype: str):
    values = np.array([0, 1, 2, 3, 1, 0, 1], np.float32).astype(getattr(ml_dtypes, dtype))
    graph = Graph("main")
    y = graph.add("Identity", graph.add_constant(values, "w"), out="y")
    wide = graph.add("Cast", y, out="z", to=1)
    graph.set_outputs([wide])
    annotate(graph)
    plan = freeze(graph)
    if written:
        write_plan(plan, tmp_path / "m.plan")
        plan = read_plan(tmp_path / "m.plan")
    thawed = thaw(plan)
    (handle,) = constants(thawed)
    weights = DeviceWeights(emulated, Transfers(emulated), thawed, nothing_derived)
    assert read(weights.address(handle), values).tolist() == values.tolist()
    assert (weights.counts.tensors, weights.counts.late_copies) == (1, 0)
    weights.close()
    weights._transfers.close()
    plan.close()


def nothing_derived(derived: Derived):
    raise AssertionError("nothing is derived")


def constants(graph: Graph) -> list[Constant]:
    return [v.constant for v in graph.values() if v.constant is not None]


def read(address: int, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(address, like.nbytes), np.uint8).view(like.dtype).reshape(like.shape)


def test_three_levels(emulated):
    graph = thaw(plan_of(MODEL))
    made: list[str] = []

    def evaluate(derived: Derived):
        made.append(derived.key)
        return emulated.allocate(128, "a derived form")

    emulated.make_current()
    transfers = Transfers(emulated)
    weights = DeviceWeights(emulated, transfers, graph, evaluate)
    w, b = constants(graph)
    assert weights.address(w) == weights.address(w) != weights.address(b)
    doubled = typed_graph("graph d(x: f32[3]) {\n  y = Add(x, x)\n  return y\n}")
    forms = [Derived((w,), "doubled", doubled), Derived((w,), "doubled", doubled), Derived((b,), "doubled", doubled)]
    addresses = [weights.derived(d) for d in forms]
    assert addresses[0] == addresses[1] != addresses[2]
    assert made == ["doubled", "doubled"]
    stranger = thaw(plan_of(MODEL))
    late = constants(stranger)[0]
    assert weights.address(late) is None
    with weights.late(late) as memory:
        assert read(memory.address, np.zeros(3, np.float32)).tolist() == [1, 2, 3]
    counts = weights.counts
    assert (counts.preloaded_hits, counts.derived_hits, counts.derived_nbytes) == (3, 1, 256)
    assert (counts.late_copies, counts.late_nbytes) == (1, 12)
    for _ in range(2):
        weights.close()
    transfers.close()


def test_threads_make_a_derived_form_once(emulated):
    graph = thaw(plan_of(MODEL))
    made: list[int] = []

    def evaluate(derived: Derived):
        made.append(threading.get_ident())
        return emulated.allocate(64, "a derived form")

    transfers = Transfers(emulated)
    weights = DeviceWeights(emulated, transfers, graph, evaluate)
    w = constants(graph)[0]
    form = Derived((w,), "same", typed_graph("graph d(x: f32[3]) {\n  y = Neg(x)\n  return y\n}"))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(weights.derived(form))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(found))) == (1, 1)
    weights.close()
    transfers.close()


def exponential_of_negative(engine) -> Derived:
    """A form of the model's first constant."""
    text = "graph d(x: f32[3]) {\n  y = Neg(x)\n  z = Exp(y)\n  return z\n}"
    return Derived((constants(engine.graph)[0],), "negated", typed_graph(text))


def test_a_derived_form_is_computed_on_the_device(emulated):
    with open_emulated(plan_of(MODEL), emulated) as engine:
        model = engine.model
        form = exponential_of_negative(engine)
        streams = dict(emulated.alive)
        address = model.weights.derived(form)
        np.testing.assert_allclose(read(address, np.zeros(3, np.float32)), np.exp([-1, -2, -3]), rtol=1e-6)
        assert emulated.alive == streams  # its context is gone
        before = emulated.allocations
        assert model.weights.derived(form) == address
        assert emulated.allocations == before


@pytest.mark.parametrize("lacking", range(8))
def test_memory_may_run_out_at_any_moment_of_loading(lacking: int, tmp_path):
    plan = plan_of(MODEL, written_to=tmp_path / "m.plan") if lacking % 2 else plan_of(MODEL)
    device = EmulatedDevice()
    device.allowed = lacking // 2
    try:
        engine = open_emulated(plan, device)
    except OutOfMemoryError:
        assert device.leftovers == {}
        assert lacking // 2 < 2
    else:
        assert lacking // 2 >= 2
        engine.close()
    device = EmulatedDevice()
    with open_emulated(plan, device) as engine:  # nothing is left that hinders
        assert engine.run({"x": X})["v"].tolist() == WANT
    plan.close()


def test_a_program_whose_form_cannot_be_made_leaves_nothing(emulated):
    with open_emulated(plan_of(MODEL), emulated) as engine:
        model = engine.model
        form = exponential_of_negative(engine)
        held = emulated.used
        for allowed in range(4):  # the arena, the output on both sides, and the form itself
            emulated.allowed = allowed
            with pytest.raises(OutOfMemoryError):
                model.weights.derived(form)
            assert emulated.used == held
        emulated.allowed = None
        assert model.weights.derived(form)


def test_an_empty_constant_has_an_address(emulated):
    text = "graph main(x: f32[n]) {\n  w: f32[0] = const []\n  y = Concat(x, w) {axis=0}\n  return y\n}"
    with open_emulated(plan_of(text), emulated) as engine:
        assert engine.run({"x": X[0]})["y"].tolist() == [0, 1, 2]


EXPANDED = ["Softsign(x)", "Celu(x)", "Hardmax(x) {axis=1}", "ThresholdedRelu(x)", "MeanVarianceNormalization(x)"]


@pytest.mark.parametrize("operation", EXPANDED)
def test_constants_of_a_rewrite_come_and_go_with_the_program(emulated, monkeypatch, operation: str):
    keep_from_device(monkeypatch, operation.partition("(")[0])  # so that it is expanded
    with open_emulated(plan_of(f"graph main(x: f32[n,3,2,2]) {{\n  y = {operation}\n  return y\n}}"), emulated) as engine:
        with engine.create_context() as context:
            for n in range(1, 5):
                context.run({"x": np.ones((n, 3, 2, 2), np.float32)})
            counts = engine.stats()["weights"]
        assert (counts["late_copies"], len(engine.model.weights._held)) == (0, 0)


def test_a_large_constant_of_a_rewrite_is_a_late_copy_of_the_program(emulated, monkeypatch):
    def lowering(site):
        graph = Graph("rewritten")
        x = graph.add_input("x", site.types[0])
        graph.set_outputs([graph.add("Add", x, graph.add_constant(np.full(1 << 15, 2, np.float32), "large"), out="y")])
        return Rewrite(graph)

    find = tactics.find_lowering
    monkeypatch.setattr(tactics, "find_lowering", lambda node: lowering if node.op == "Erf" else find(node))
    with open_emulated(plan_of("graph main(x: f32[n,32768]) {\n  y = Erf(x)\n  return y\n}"), emulated) as engine:
        for n in (1, 2):
            assert (engine.run({"x": np.ones((n, 1 << 15), np.float32)})["y"] == 3).all()
        counts = engine.stats()["weights"]
        assert (counts["late_copies"], counts["late_nbytes"]) == (2, 2 << 17)


def test_a_form_of_a_rewrites_constant_goes_with_the_program(emulated, monkeypatch):
    def lowering(site):
        doubled = Derived((constant(np.full(3, 4, np.float32)),), "doubled", typed_graph(DOUBLE))
        copy = Copy(Operand.output(0), Operand.derived(0), 12)
        return Lowered((copy,), derived=(doubled,))

    find = tactics.find_lowering
    monkeypatch.setattr(tactics, "find_lowering", lambda node: lowering if node.op == "Erf" else find(node))
    with open_emulated(plan_of("graph main(x: f32[3]) {\n  y = Erf(x)\n  return y\n}"), emulated) as engine:
        assert engine.run({"x": np.ones(3, np.float32)})["y"].tolist() == [8, 8, 8]
        assert engine.model.weights._derived == {}


def test_what_a_form_is_made_from_is_no_late_copy(emulated, monkeypatch):
    """It is copied once, when the form is made, and not for each program."""
    graph = Graph("more")
    x = graph.add_input("x", TensorType(DType.F32, (1,)))
    graph.set_outputs([graph.add("Add", x, graph.add_constant(np.full(1 << 15, 2, np.float32), "large"), out="y")])
    annotate(graph)

    def lowering(site):
        more = Derived((site.handles[1],), "more", graph)
        return Lowered((Copy(Operand.output(0), Operand.derived(0), 4 << 15),), derived=(more,))

    find = tactics.find_lowering
    monkeypatch.setattr(tactics, "find_lowering", lambda node: lowering if node.op == "PRelu" else find(node))
    text = "graph main(x: f32[32768]) {\n  s: f32[1] = const [0.5]\n  y = PRelu(x, s)\n  return y\n}"
    with open_emulated(plan_of(text), emulated) as engine:
        assert (engine.run({"x": np.ones(1 << 15, np.float32)})["y"] == 2.5).all()
        assert engine.stats()["weights"]["late_copies"] == 0
