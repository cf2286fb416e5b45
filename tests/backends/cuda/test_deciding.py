"""Which tactic does a node: the first of its list that may be taken, or the one that is forced; and what stays on record."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import HEURISTIC, Choice, Chooser, Estimate, Policy, Refused
from miniinfer_cli.backends.cuda.choice import tactics
from miniinfer_cli.backends.cuda.choice.deciding import decide, lower
from miniinfer_cli.backends.cuda.contract.problems import MatmulProblem
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Copy, Derived, Lowered, Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, Graph, Node, TensorType
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.engine import open_emulated
from tests.emulation.libraries import EmulatedLibraries
from tests.graph_text import typed_graph

X = TensorType(DType.F32, (4, 6))
PROBLEM = MatmulProblem(8, 16, 32, DType.F16, DType.F16, DType.F16, "f32")
NOTHING = Estimate(0, 0)


def erf() -> tuple[Graph, Node]:
    graph = Graph("main")
    y = graph.new_value("y", X)
    graph.add_node("Erf", [graph.add_input("x", X)], [y], name="curve")
    graph.set_outputs([y])
    return graph, graph.nodes[0]


def site(**target: Any) -> Site:
    return Site(erf()[1], (X,), (X,), (None,), Target(**target))


def tactic(key: str, **fields: Any) -> Tactic:
    return Tactic(key, fields.pop("emit", lambda work: None), NOTHING, **fields)


def lacking(target: Target) -> str:
    return "the target is too small"


def chosen(offered: Sequence[Tactic], policy: Policy = HEURISTIC, **target: Any) -> Choice | None:
    decision = decide(site(policy=policy, **target), offered, policy)
    return None if decision is None else decision.choice


def test_the_first_that_may_be_taken() -> None:
    offered = [tactic("large", needs=lacking), tactic("library", problems=(PROBLEM,)), tactic("own"), tactic("other")]
    refused = (Refused("large", "the target is too small"), Refused("library", "the library refuses it"))
    assert chosen(offered) == Choice("own", Chooser.HEURISTIC, refused)
    assert chosen(offered, supports=lambda problem: True) == Choice("library", Chooser.HEURISTIC, refused[:1])
    assert chosen(offered[:2]) is None
    assert chosen([]) is None


def test_libraries_are_asked_about_what_is_chosen_alone() -> None:
    asked = []

    def supports(problem: Any) -> bool:
        asked.append(problem)
        return True

    chosen([tactic("own"), tactic("library", problems=(PROBLEM,))], supports=supports)
    chosen([tactic("library", needs=lacking, problems=(PROBLEM,)), tactic("own")], supports=supports)
    assert asked == []
    chosen([tactic("library", problems=(PROBLEM,))], supports=supports)
    assert asked == [PROBLEM]


def test_what_a_library_refused_is_not_asked_again() -> None:
    asked = []

    def supports(problem: Any) -> bool:
        asked.append(problem)
        return False

    target = Target(supports=supports)
    offered = [tactic("library", problems=(PROBLEM,)), tactic("library", problems=(PROBLEM,), claims=2), tactic("own")]
    for _ in range(2):
        decision = decide(Site(erf()[1], (X,), (X,), (None,), target), offered, HEURISTIC)
        assert decision is not None and decision.choice.key == "own" and len(decision.choice.refused) == 2
        assert asked == [PROBLEM, PROBLEM]  # of each claim once
    other = TensorType(DType.F32, (4, 7))
    decide(Site(erf()[1], (other,), (other,), (None,), target), offered[:1], HEURISTIC)
    assert len(asked) == 3


def region_plan() -> Any:
    graph = typed_graph("""
      graph main(x: f32[20,64], w: f32[64,24], b: f32[24]) {
        t = MatMul(x, w)
        y = Add(t, b)
        return y
      }
    """)
    fuse_matmul(graph)
    return freeze(graph)


@pytest.mark.parametrize(
    ("refuses", "steps"),
    [
        (lambda p: False, [("FusedMatMul", "cublaslt")]),
        (lambda p: p.bias, [("MatMul", "cublaslt"), ("FusedPointwise", "pointwise")]),
        (lambda p: True, [("FusedMatMul", "gemm 64x64")]),
    ],
    ids=["nothing", "a bias", "everything"],
)
def test_an_engine_chooses_again_where_its_library_refuses(refuses: Any, steps: Any) -> None:
    libraries, random = EmulatedLibraries(refuses), np.random.default_rng(3)
    x, w, b = (random.standard_normal(s).astype(np.float32) for s in ((20, 64), (64, 24), (24,)))
    with open_emulated(region_plan(), libraries=libraries) as engine:
        for _ in range(3):  # launched, captured, replayed
            (got,) = engine.run({"x": x, "w": w, "b": b}).values()
            np.testing.assert_allclose(got, x @ w + b, rtol=1e-5, atol=1e-4)
        assert [(s.kind.removeprefix("miniinfer."), s.tactic) for s in engine.program([x, w, b]).steps] == steps
        (first, *_) = engine.program([x, w, b]).steps
        assert first.choice is not None and {r.reason for r in first.choice.refused} <= {"the library refuses it"}
    refused = [p for p in libraries.asked if refuses(p)]
    assert len(set(refused)) == len(refused) and bool(refused) == (steps != [("FusedMatMul", "cublaslt")])


def test_disabled_keys_and_words() -> None:
    offered = [tactic("gemm 64x64 in 4 parts"), tactic("gemm 64x64"), tactic("gemmy")]
    first = Refused("gemm 64x64 in 4 parts", "disabled")
    assert chosen(offered, Policy(disabled=frozenset({first.key}))) == Choice("gemm 64x64", refused=(first,))
    both = (first, Refused("gemm 64x64", "disabled"))
    assert chosen(offered, Policy(disabled=frozenset({"gemm"}))) == Choice("gemmy", refused=both)
    assert chosen(offered, Policy(disabled=frozenset({"gemm", "gemmy"}))) is None


def test_a_forced_tactic_is_taken_wherever_it_stands() -> None:
    offered = [tactic("own"), tactic("other", claims=3, needs=lacking), tactic("other", claims=2)]
    policy = Policy(forced={"curve": "other"})
    assert chosen(offered, policy) == Choice("other", Chooser.FORCED, (Refused("other", "the target is too small"),))
    assert chosen(offered, Policy(forced={"line": "other"})) == Choice("own")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("none", "there is no tactic 'none'"),
        ("large", "tactic 'large' cannot be taken: the target is too small"),
        ("library", "tactic 'library' cannot be taken: the library refuses it"),
        ("off", "tactic 'off' cannot be taken: disabled"),
    ],
)
def test_a_forced_tactic_that_cannot_be_taken(key: str, message: str) -> None:
    offered = [
        tactic("own"),
        tactic("large", needs=lacking),
        tactic("off"),
        tactic("library", problems=(PROBLEM,)),
        tactic("two"),
    ]
    with pytest.raises(UsageError) as caught:
        chosen(offered, Policy(forced={"curve": key}, disabled=frozenset({"off"})))
    assert caught.value.message == message
    assert caught.value.hint == "what would do: own, two"


def test_a_lowering_with_one_way_gives_one_tactic() -> None:
    (only,) = tactics.tactics(site())
    assert (only.key, only.claims, only.problems) == ("pointwise", None, ())
    assert only.estimate == Estimate(24, 2 * 24 * 4)
    made = lower(site())
    assert made is not None and isinstance(made.work, Lowered) and made.work.tactic == "pointwise"


def test_the_step_keeps_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def offers(site: Site) -> tuple[Tactic, ...]:
        copy = Copy(Operand.output(0), Operand.input(0), 96)
        return (tactic("large", needs=lacking), Tactic("copied", lambda work: work.add(copy), Estimate(7, 9)))

    graph, _ = erf()
    monkeypatch.setattr(tactics, "find_lowering", lambda node: offers)
    (step,) = make_program(graph, [X], Target()).steps
    assert isinstance(step, DeviceStep)
    assert step.choice == Choice("copied", Chooser.HEURISTIC, (Refused("large", "the target is too small"),))
    assert (step.tactic, step.estimate) == ("copied", Estimate(7, 9))
    with pytest.raises(UsageError, match="curve") as caught:
        make_program(graph, [X], Target(policy=Policy(forced={"curve": "large"})))
    assert caught.value.hint == "what would do: copied"


def test_work_numbers_buffers_as_they_come() -> None:
    work = Work()
    assert (work.scratch(8), work.scratch(16)) == (Operand.scratch(0), Operand.scratch(1))
    assert work.table(np.arange(2)) == Operand.table(0)
    derived = Derived((), "key", Graph("derived"))
    assert work.derive(derived) == Operand.derived(0)
    more = Copy(Operand.scratch(0, 4), Operand.derived(0), 8)
    work.take(Lowered((more, Copy(Operand.output(0), Operand.table(0), 8)), (32,), (derived,), (np.arange(3),), {0: (0,)}))
    made = work.finished("key")
    assert isinstance(made, Lowered)
    assert made.actions == (Copy(Operand.scratch(2, 4), Operand.derived(1), 8), Copy(Operand.output(0), Operand.table(1), 8))
    assert (made.scratch, made.derived, len(made.tables)) == ((8, 16, 32), (derived, derived), 2)
    assert (made.in_place, made.tactic) == ({0: (0,)}, "key")


def test_other_nodes_in_the_place_of_one() -> None:
    work, graph = Work(), Graph("other")
    work.replace_by(graph)
    made = work.finished("key")
    assert isinstance(made, Rewrite) and made.graph is graph
