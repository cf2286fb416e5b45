"""A network with control flow that data decide: a Loop refines a state until it is large, an If chooses the head, and only
rows of some promise go through a second one."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import layer_norm, linear, tanh_gelu
from sample_models.request import Request

OPSET = 17
WIDTH, TAGS = 256, 12


def write(graph: GraphWriter, request: Request) -> None:
    """x [batch, 256] and a bound on the rounds to logits [batch, 12], the state after each round, and chosen [kept, 12]."""
    shape = [request.batch, WIDTH]
    x = graph.input("x", graph.dtype, shape)
    rounds = graph.input("rounds", "int64", [])
    with graph.scope("embed"):
        x = tanh_gelu(graph, "gelu", linear(graph, "linear", x, WIDTH, WIDTH))
    going = graph.node("Cast", [rounds], to=9)
    state, states = graph.nodes("Loop", [rounds, going, x], outputs=2, body=_round(graph, shape))
    mean = graph.node("ReduceMean", [state], keepdims=0)
    is_positive = graph.node("Greater", [mean, graph.constant(0.0)])
    logits = graph.node(
        "If",
        [is_positive],
        then_branch=_head(graph, "plain", state, normalized=False),
        else_branch=_head(graph, "normalized", state, normalized=True),
    )
    with graph.scope("second"):
        promising = graph.node("Greater", [graph.node("ReduceMax", [state], axes=[1], keepdims=0), graph.constant(0.5)])
        kept = graph.node("Reshape", [graph.node("NonZero", [promising]), graph.constant([-1])])
        chosen = linear(graph, "classifier", graph.node("Gather", [state, kept], axis=0), WIDTH, TAGS)
    graph.output("chosen", chosen, graph.dtype, ["kept", TAGS])
    graph.output("logits", logits, graph.dtype, [request.batch, TAGS])
    graph.output("states", states, graph.dtype, ["rounds", *shape])


def _round(graph: GraphWriter, shape: list[int | str]) -> object:
    body = GraphWriter("round", opset=graph.opset, dtype=graph.dtype, seed=graph.seed)
    with body.scope("round"):
        body.input("round/number", "int64", [])
        body.input("round/going", "bool", [])
        state = body.input("round/state", body.dtype, shape)
        change = body.node("Tanh", [linear(body, "change", layer_norm(body, "norm", state, WIDTH, 1e-5), WIDTH, WIDTH)])
        grown = body.node("Add", [state, change])
        kept = body.node("Identity", [grown])
        goes_on = body.node("Less", [body.node("ReduceMax", [grown], keepdims=0), body.constant(6.0)])
        body.output("round/goes_on", goes_on, "bool", [])
        body.output("round/grown", grown, body.dtype, shape)
        body.output("round/kept", kept, body.dtype, shape)
    return body.model().graph


def _head(graph: GraphWriter, name: str, state: str, *, normalized: bool) -> object:
    branch = GraphWriter(name, opset=graph.opset, dtype=graph.dtype, seed=graph.seed)
    with branch.scope(name):
        x = layer_norm(branch, "norm", state, WIDTH, 1e-5) if normalized else state
        branch.output(f"{name}/logits", linear(branch, "classifier", x, WIDTH, TAGS), branch.dtype, ["batch", TAGS])
    return branch.model().graph
