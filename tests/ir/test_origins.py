"""Which nodes of the model a node came from, through edits of a graph."""

from miniinfer_cli.ir import Graph, Value
from miniinfer_cli.ir.text_reader import parse_graph
from miniinfer_cli.passes.regions import make_region


def graph_of(text: str) -> Graph:
    """A graph whose nodes come from the model, as an import gives it."""
    graph = parse_graph(text)
    for node in graph:
        graph.add_origins(node, [node.name])
    graph.settle_origins()
    return graph


def origins(graph: Graph) -> dict[str, tuple[str, ...]]:
    graph.settle_origins()
    return {n.name: tuple(sorted(n.known_origins)) for n in graph}


def value(graph: Graph, name: str) -> Value:
    return next(v for v in graph.values() if v.name == name)


CHAIN = "graph main(x: f32[4]) {\n  a = Exp(x)\n  b = Neg(a)\n  c = Abs(b)\n  return c\n}"


def test_what_replaces_a_node_has_its_origins_and_those_of_what_only_it_read():
    graph = graph_of(CHAIN)
    b, c = graph.nodes[1:]
    graph.replace_node(c, [graph.add("Sqrt", value(graph, "a"), out="new", before=c)])
    graph.remove(b)
    assert origins(graph) == {"a": ("a",), "new": ("b", "c")}


def test_what_somebody_else_reads_keeps_its_own():
    graph = graph_of("graph main(x: f32[4]) {\n  a = Exp(x)\n  b = Neg(a)\n  c = Abs(b)\n  return c, b\n}")
    c = graph.nodes[2]
    graph.replace_node(c, [graph.add("Sqrt", value(graph, "a"), out="new", before=c)])
    assert origins(graph) == {"a": ("a",), "b": ("b",), "new": ("c",)}


def test_what_is_made_on_the_way_to_a_replacement_has_its_origins_too():
    graph = graph_of(CHAIN)
    b = graph.nodes[1]
    first = graph.add("Sqrt", value(graph, "a"), out="first", before=b)
    graph.replace_node(b, [graph.add("Floor", first, out="second", before=b)])
    assert origins(graph) == {"a": ("a",), "first": ("b",), "second": ("b",), "c": ("c",)}


def test_glue_that_goes_hands_nothing_on():
    """Two Transposes that each stand for a node that is still there cancel: what they lie between keeps its own."""
    graph = graph_of(CHAIN)
    b, c = graph.nodes[1:]
    inner = graph.add("Neg", value(graph, "a"), out="inner", before=b)
    graph.replace_node(b, [graph.add("Transpose", inner, out="back", before=b)])
    graph.set_inputs(c, [graph.add("Transpose", value(graph, "back"), out="forth", before=c)])
    assert origins(graph) == {"a": ("a",), "inner": ("b",), "back": ("b",), "forth": ("c",), "c": ("c",)}
    forth, back = value(graph, "forth"), value(graph, "back")
    graph.replace_uses(forth, inner)
    for gone in (forth, back):
        assert gone.producer is not None
        graph.remove(gone.producer)
    assert origins(graph) == {"a": ("a",), "inner": ("b",), "c": ("c",)}


def test_a_node_that_does_nothing_is_part_of_what_it_read():
    graph = graph_of(CHAIN)
    b = graph.nodes[1]
    graph.replace_node(b, [value(graph, "a")])
    assert origins(graph) == {"a": ("a", "b"), "c": ("c",)}


def test_what_is_computed_at_the_build_has_no_node():
    graph = graph_of(CHAIN)
    graph.replace_uses(value(graph, "a"), graph.add_constant(1.0))
    graph.remove(graph.nodes[0])
    assert origins(graph) == {"b": ("b",), "c": ("c",)}


def test_a_chain_of_heirs_ends_at_what_is_there():
    graph = graph_of(CHAIN)
    for name in ("one", "two", "three"):
        last = graph.nodes[-1]
        graph.replace_node(last, [graph.add("Abs", value(graph, "b"), out=name, before=last)])
    assert origins(graph) == {"a": ("a",), "b": ("b",), "three": ("c",)}


def test_regions_and_copies_keep_them():
    graph = graph_of(CHAIN)
    make_region(graph, "FusedPointwise", graph.nodes)
    (region,) = graph.nodes
    assert region.origins == ("a", "b", "c")
    assert region.body is not None and [n.known_origins for n in region.body] == [("a",), ("b",), ("c",)]
    (copied,) = graph.copy().nodes
    assert copied.origins == region.origins
    into = Graph()
    into.set_outputs(into.inline(region.body, [into.add_input("x", None)]))
    assert origins(into) == {"a": ("a",), "b": ("b",), "c": ("c",)}


def test_a_node_nobody_spoke_of_is_its_own():
    graph = Graph()
    y = graph.add("Exp", graph.add_input("x", None), out="y")
    assert y.producer is not None and (y.producer.origins, y.producer.known_origins) == (("y",), ())


def test_they_are_put_in_the_order_of_the_model():
    graph = graph_of(CHAIN)
    (first, *_) = graph.nodes
    graph.add_origins(first, ["z", "c", "b"])
    graph.sort_origins({"a": 2, "b": 0, "c": 1})
    assert first.origins == ("b", "c", "a", "z")
