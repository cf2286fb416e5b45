"""The driver: levels, disabled passes, rounds, sub-graphs, and whose name a failure carries."""

import pytest

from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.driver import MAX_ROUNDS, Pass, PassError, Phase, run_phases
from miniinfer_cli.passes.pipeline import PHASES, optimize
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from tests.passes.names import pass_names

CHAIN = "graph main(x: f32[2,4]) { a = Softmax(x) b = Softmax(a) c = Softmax(b) return c }"


def shorten(graph):
    """Takes one node of a chain of Softmax out."""
    for node in graph.nodes:
        inner = node.inputs[0].producer if node.is_op("Softmax") else None
        if inner is not None and inner.is_op("Softmax"):
            graph.set_inputs(node, inner.inputs)
            return 1
    return 0


def never(graph):
    return 0


def run(graph, *passes, **options):
    return run_phases(graph, [Phase("only", tuple(Pass(p, 1) for p in passes))], **({"level": 1} | options))


def test_a_phase_repeats_until_nothing_fires_and_counts(graph_of):
    graph = graph_of(CHAIN)
    report = run(graph, never, shorten, remove_dead_nodes)
    assert print_graph(graph) == print_graph(graph_of("graph main(x: f32[2,4]) { c = Softmax(x) return c }"))
    assert [(p.name, p.fired) for p in report.passes] == [("never", 0), ("shorten", 2), ("remove_dead_nodes", 2)]
    assert (report.rounds, report.fired("shorten"), report.fired("absent")) == (3, 2, 0)
    assert all(p.seconds >= 0 for p in report.passes)
    assert report.seconds >= sum(p.seconds for p in report.passes)


def test_a_settled_pass_runs_again_only_after_a_change(graph_of):
    calls = []
    run(graph_of(CHAIN), lambda g: calls.append("first") or 0)
    assert calls == ["first"]
    calls.clear()
    run(graph_of(CHAIN), shorten, lambda g: calls.append("second") or 0)
    assert calls == ["second", "second"]


def test_level_and_disabled_choose_the_passes(graph_of):
    assert [p.name for p in run(graph_of(CHAIN), shorten, never, level=0).passes] == []
    assert [p.name for p in run(graph_of(CHAIN), shorten, never, disabled=["shorten"]).passes] == ["never"]


def test_an_unknown_disabled_pass_is_a_usage_error_that_lists_the_names(graph_of):
    with pytest.raises(UsageError) as caught:
        run(graph_of(CHAIN), shorten, never, disabled=["shortn"])
    assert str(caught.value) == "there is no pass called 'shortn'\n  hint: did you mean shorten?"


def test_a_failing_pass_is_named_with_those_that_changed_the_graph_before_it(graph_of):
    def fail(graph):
        raise IndexError("tuple index out of range")

    with pytest.raises(
        PassError, match="pass fail failed, after the passes that changed the graph: shorten: tuple index"
    ) as caught:
        run(graph_of(CHAIN), never, shorten, fail)
    assert isinstance(caught.value.__cause__, IndexError)


def test_memory_that_runs_out_in_a_pass_is_no_fault_of_the_pass(graph_of):
    def fold(graph):
        raise MemoryError("of 3 TiB")

    with pytest.raises(MemoryError, match="of 3 TiB"):
        run(graph_of(CHAIN), fold)


def test_a_fault_of_the_model_found_by_a_pass_stays_a_fault_of_the_model(graph_of):
    def fold(graph):
        raise ModelError("5 is not 6").at("node 'add'")

    with pytest.raises(ModelError, match=r"^pass fold: node 'add': 5 is not 6\n"):
        run(graph_of(CHAIN), fold)


def test_checking_finds_a_malformed_graph(graph_of):
    def reverse(graph):
        first, *_, last = graph.nodes
        graph.move_before(last, first)
        return 1

    with pytest.raises(PassError, match=r"pass reverse failed, .*: none: node 'c' \(Softmax\) reads"):
        run(graph_of(CHAIN), reverse, check=True)


def test_checking_finds_a_wrong_type(graph_of):
    def mistype(graph):
        node = graph.nodes[0]
        value = insert(graph, "Transpose", *node.inputs, before=node)
        graph.set_type(value, node.output.type)
        graph.set_inputs(node, [value])
        return 1

    with pytest.raises(PassError, match=r"<transpose: f32\[2,4\]> of <Transpose 'transpose'> should be f32\[4,2\]"):
        run(graph_of(CHAIN), mistype, check=True)


def test_checking_lets_a_type_say_less_than_could_be_known(graph_of):
    def settle(graph):
        reshape = next(n for n in graph if n.op == "Reshape")
        if reshape.inputs[1].constant is not None:
            return 0
        graph.set_inputs(reshape, (reshape.inputs[0], graph.add_constant([4, 2])))
        return 1

    graph = graph_of("graph main(x: f32[2,4], n: i64[2]) { y = Reshape(x, n) z = Softmax(y) return z }")
    assert run(graph, settle, check=True).fired("settle") == 1
    assert str(graph.outputs[0].type) == "f32[4,2]"


def test_checking_finds_a_phase_that_does_not_settle(graph_of):
    def turn(graph):
        graph.set_attribute(graph.nodes[0], "axis", 1 - graph.nodes[0].attrs.get("axis", 1))
        return 1

    with pytest.raises(PassError, match=f"phase 'only' does not settle in {MAX_ROUNDS} rounds; the last to fire: .'turn'"):
        run(graph_of(CHAIN), turn, check=True)
    assert run(graph_of(CHAIN), turn).fired("turn") == MAX_ROUNDS


def test_passes_reach_into_subgraphs(graph_of):
    text = """graph main(c: bool[], x: f32[2,4]) {
      y = If(c, x)
        then_branch: graph then(x: f32[2,4]) { a = Softmax(x) b = Softmax(a) return b }
        else_branch: graph else(x: f32[2,4]) { return x }
      return y
    }"""
    graph = graph_of(text)
    assert run(graph, shorten, remove_dead_nodes, check=True).fired("shorten") == 1
    assert print_graph(graph) == print_graph(graph_of(text.replace("a = Softmax(x) b = Softmax(a)", "b = Softmax(x)")))


def test_the_pipeline_names_every_pass_once_and_takes_plugins(graph_of):
    names = pass_names()
    assert len(set(names)) == len(names) == len({p.run for phase in PHASES for p in phase.passes})
    report = optimize(graph_of(CHAIN), plugins=[Pass(shorten, 2)], check=True)
    assert report.fired("shorten") == 2
    assert optimize(graph_of(CHAIN), level=1, plugins=[Pass(shorten, 2)]).fired("shorten") == 0
