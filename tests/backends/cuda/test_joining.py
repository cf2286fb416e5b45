"""Which joins are taken: forced, recorded, gaining, of those that share nodes one; and which sets of nodes may not be joined."""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine_format import TacticRecord
from miniinfer_cli.backends.choosing import Chooser, Estimate, Found, Joined, Policy
from miniinfer_cli.backends.cuda import joins as folder
from miniinfer_cli.backends.cuda.choice.forcing import expect_forced
from miniinfer_cli.backends.cuda.choice.joining import APART, joins_of, maker_of_join
from miniinfer_cli.backends.cuda.choice.signature import joined_signature
from miniinfer_cli.backends.cuda.contract import join as register
from miniinfer_cli.backends.cuda.contract.join import Join, joins
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.site import find_lowering
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, Graph, Node, TensorType
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.cuda.performing import perform_program
from tests.graph_text import typed_graph

# Each of a, b and c adds to itself what the one before made.
THREE = """
graph main(x: f32[3,5]) {
  a = Add(x, x)
  b = Add(a, a)
  c = Add(b, b)
  d = Neg(c)
  return d
}
"""
Gain = Callable[[Node], float]


def pair(first: Node, second: Node, types: Types, gain_us: float, needs: Any) -> Join:
    """Two nodes that double, as one that multiplies by four."""
    graph = Graph("pair")
    source, end = first.inputs[0], second.output
    assert source is not None
    x, four = graph.add_input("x", types[source]), graph.add_constant(np.array(4, np.float32))
    y = graph.new_value("y", types[end])
    graph.add_node("Mul", [x, four], [y], name=f"{first.name} + {second.name}")
    graph.set_outputs([y])
    return Join("pair", (first, second), graph, Estimate(15, 120), gain_us, needs)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a family of pairs of nodes that double the only family there is; each is worth ``gain`` of its first node."""

    def give(gain: Gain, needs: Any = lambda target: "") -> None:
        def find(graph: Graph, types: Types, target: Target) -> list[Join]:
            doubling = [n for n in graph if n.is_op("Add") and n.inputs[0] is n.inputs[1]]
            pairs = [(n, reader) for n in doubling for reader in n.output.users if reader in doubling]
            return [pair(*nodes, types, gain(nodes[0]), needs) for nodes in pairs]

        monkeypatch.setattr(register, "_FAMILIES", {})
        joins("pair")(find)

    return give


def always(node: Node) -> float:
    return 1.0


def never(node: Node) -> float:
    return -1.0


def made(text: str = THREE, **policy: Any) -> CudaProgram:
    """The program, whose results are right."""
    graph = typed_graph(text)
    target = Target(policy=Policy(**policy))
    program = make_program(graph, [v.type for v in graph.inputs], target)
    given = [np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32) for _ in graph.inputs]
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    expect_forced(program, target.policy)
    return program


def labels(program: CudaProgram) -> list[str]:
    return [s.label for s in program.steps]


def offered(text: str) -> list[str]:
    graph = typed_graph(text)
    return [j.label for j in joins_of(graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())]


def test_what_gains_is_taken_and_told(offer: Any) -> None:
    offer(lambda node: {"a": 1.0, "b": -1.0}[node.name])
    program = made()
    assert labels(program) == ["a + b", "c", "d"]
    step, other, _ = program.steps
    assert isinstance(step, DeviceStep) and isinstance(other, DeviceStep)
    assert step.choice.join == Joined("pair", Chooser.HEURISTIC, ("a", "b")) and step.choice.how == "pair: pointwise"
    assert other.choice.join is None and other.choice.how == "pointwise"
    offer(never)
    assert labels(made()) == ["a", "b", "c", "d"]


def test_of_joins_that_share_a_node_the_one_that_gains_most(offer: Any) -> None:
    offer(lambda node: {"a": 1.0, "b": 2.0}[node.name])
    assert labels(made()) == ["a", "b + c", "d"]
    offer(always)  # the first one where they gain the same
    assert labels(made()) == ["a + b", "c", "d"]
    four = THREE.replace("d = Neg(c)", "d = Add(c, c)")
    offer(lambda node: {"a": 2.0, "b": 3.0, "c": 2.0}[node.name])  # greedy: not the two that gain four together
    assert labels(made(four)) == ["a", "b + c", "d"]


def test_a_forced_join_comes_first(offer: Any) -> None:
    offer(lambda node: {"a": -1.0, "b": 2.0}[node.name])
    for forced in ({"a": "pair"}, {"a": "pair", "b": "pair"}):
        program = made(forced=forced)
        assert labels(program) == ["a + b", "c", "d"]
        (step, *_) = program.steps
        assert step.choice is not None and step.choice.join == Joined("pair", Chooser.FORCED, ("a", "b"))
    with pytest.raises(UsageError) as caught:  # of b and c, which would share b
        made(forced={"a": "pair", "c": "pair"})
    assert caught.value.message == "tactic 'pair' cannot be taken: b + c are joined"
    assert caught.value.hint == "what would do: pointwise"


def test_a_node_that_is_to_be_done_otherwise_is_not_joined(offer: Any) -> None:
    offer(always)
    program = made(forced={"b": "pointwise"})
    assert labels(program) == ["a", "b", "c", "d"]
    assert [s.choice.chosen_by for s in program.steps if s.label == "b" and s.choice is not None] == [Chooser.FORCED]
    with pytest.raises(UsageError) as caught:
        made(forced={"a": "pair", "b": "pointwise"})
    assert caught.value.message == "tactic 'pair' cannot be taken: b is to be done by 'pointwise'"
    with pytest.raises(UsageError) as caught:
        made(forced={"a": "pairs"})
    assert (caught.value.message, caught.value.hint) == ("there is no tactic 'pairs'", "what would do: pointwise, pair")


def test_the_nodes_of_a_join_s_graph_have_tactics_of_their_own(offer: Any) -> None:
    offer(always)
    (step, *_) = made(forced={"a + b": "pointwise"}).steps
    assert isinstance(step, DeviceStep)
    assert (step.choice.chosen_by, step.choice.join) == (Chooser.FORCED, Joined("pair", Chooser.HEURISTIC, ("a", "b")))
    with pytest.raises(UsageError, match=r"a \+ b.*there is no tactic 'none'"):
        made(forced={"a + b": "none"})


def test_a_disabled_join_and_one_whose_needs_are_not_met(offer: Any) -> None:
    offer(always)
    assert labels(made(disabled=frozenset({"pair"}))) == ["a", "b", "c", "d"]
    with pytest.raises(UsageError, match="tactic 'pair' cannot be taken: disabled"):
        made(disabled=frozenset({"pair"}), forced={"a": "pair"})
    offer(always, needs=lambda target: "it begins with sm_100" if target.arch < 100 else "")
    assert labels(made()) == ["a", "b", "c", "d"]
    with pytest.raises(UsageError, match="tactic 'pair' cannot be taken: it begins with sm_100"):
        made(forced={"b": "pair"})


def test_nodes_whose_results_others_want_are_not_joined(offer: Any) -> None:
    offer(always)
    assert offered(THREE) == ["a + b", "b + c"]
    assert offered(THREE.replace("return d", "return d, b")) == ["a + b"]  # the graph's own
    assert offered(THREE.replace("d = Neg(c)", "d = Mul(c, a)")) == ["b + c"]
    assert labels(made(THREE.replace("d = Neg(c)", "d = Mul(c, a)"))) == ["a", "b + c", "d"]


def test_the_work_is_done_where_the_last_node_stands(offer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two results of a join, one of which is read between its nodes: where it is read there is none yet."""
    text = """
    graph main(x: f32[3,5]) {
      a = Add(x, x)
      BETWEEN
      b = Add(a, a)
      d = Neg(a)
      return b, d
    }
    """

    def both(graph: Graph, types: Types, target: Target) -> list[Join]:
        nodes = [n for n in graph if n.name in ("a", "b")]
        inner = Graph("both")
        x = inner.add_input("x", types[graph.inputs[0]])
        two, four = (inner.add_constant(np.array(n, np.float32)) for n in (2, 4))
        values = [inner.add("Mul", x, n, type=x.type) for n in (two, four)]
        inner.set_outputs(values)
        return [Join("both", tuple(nodes), inner, Estimate(30, 180), 1.0)]

    monkeypatch.setattr(register, "_FAMILIES", {"both": both})
    behind = made(text.replace("BETWEEN", ""))
    assert [s.choice.join is not None for s in behind.steps if s.choice is not None] == [True, True, False]
    between = made(text.replace("BETWEEN", "e = Sin(a)").replace("return b, d", "return b, d, e"))
    assert labels(between) == ["a", "e", "b", "d"]


def test_nodes_of_unknown_sizes_and_of_late_parts_are_not_joined(offer: Any) -> None:
    offer(always)
    text = """
    graph main(x: f32[3,5]) {
      z = NonZero(x)
      f = Cast(z) {to=1}
      a = Add(f, f)
      b = Add(a, a)
      return b
    }
    """
    assert offered(text) == []


def test_what_is_known_from_sizes_is_not_joined(offer: Any) -> None:
    offer(always)
    text = """
    graph main(x: f32[3,5]) {
      s = Shape(x)
      a = Add(s, s)
      b = Add(a, a)
      return b
    }
    """
    assert offered(text) == [] and labels(made(text)) == ["output"]  # a copy of what is known


# -- records -----------------------------------------------------------------------------------------------------------


class Table:
    """Records by signature, and what was passed over."""

    def __init__(self, *records: TacticRecord) -> None:
        self._records = records
        self.passed: list[str] = []

    def find(self, signature: str) -> Sequence[Found]:
        return [Found(r, Chooser.PLAN) for r in self._records if r.signature == signature]

    def pass_over(self, found: Found, reason: str) -> None:
        self.passed.append(reason)


def record_of(key: str, first: str) -> TacticRecord:
    """A record of the nodes that the join which begins with this node is of."""
    graph = typed_graph(THREE)
    types = infer_graph(graph, [v.type for v in graph.inputs])
    (join,) = (j for j in joins_of(graph, types, Target()) if j.nodes[0].name == first)
    text = joined_signature(graph, join.nodes, types, tf32=True)
    return TacticRecord(text, key, maker_of_join(join, Target()), time_us=3.5)


def test_the_signature_is_of_the_set_of_nodes(offer: Any) -> None:
    offer(always)
    record = record_of("pair", "a")
    assert record.signature == "joined {Add(0,0) Add(1,1) return 2} f32[3,5] -> f32[3,5] tf32"
    assert record.signature == record_of("pair", "b").signature


def test_a_record_says_whether_nodes_are_joined(offer: Any) -> None:
    offer(never)
    table = Table(record_of("pair", "a"))
    program = made(table=table)
    assert labels(program) == ["a + b", "c", "d"]
    assert program.steps[0].choice is not None
    assert program.steps[0].choice.join == Joined("pair", Chooser.PLAN, ("a", "b"), 3.5)
    offer(always)
    assert labels(made(table=Table(record_of(APART, "a")))) == ["a", "b", "c", "d"]
    assert table.passed == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"maker": "another"}, "they were made by another, and here is "),
        ({"key": "triple"}, "this release has no such joins there"),
    ],
)
def test_a_record_that_does_not_fit_is_passed_over(offer: Any, changes: Any, reason: str) -> None:
    offer(always)
    table = Table(replace(record_of(APART, "a"), **changes))
    assert labels(made(table=table)) == ["a + b", "c", "d"]
    assert len(table.passed) == 2 and all(p.startswith(reason) for p in table.passed)


def test_every_file_of_families_is_imported_by_an_operation() -> None:
    names = [name for files in register._FILES.values() for name in files]
    assert sorted(set(names)) == sorted(m.name for m in pkgutil.iter_modules(folder.__path__))
    assert set(names) == set(register.families())
    assert all(any(find_lowering(Node(op, domain, "")) for domain in ("", OURS)) for op in register._FILES)


def test_two_families_of_one_name_are_a_mistake() -> None:
    register.families()
    with pytest.raises(ValueError, match="two families of joins called excitation"):
        joins("excitation")(lambda graph, types, target: ())


def test_what_a_join_reads_may_lie_apart(offer: Any) -> None:
    """A part of something, which the nodes of the join cannot read through its strides."""
    offer(always)
    text = """
    graph main(x: f32[3,5]) {
      t = Transpose(x) {perm=[1, 0]}
      a = Add(t, t)
      b = Add(a, a)
      return b
    }
    """
    program = made(text)
    assert labels(program)[-1] == "a + b"
    assert TensorType(DType.F32, (5, 3)) in [s.type for s in program.slots]
