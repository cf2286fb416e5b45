"""What ONNX Runtime says of a model that was accepted, on the same inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

import miniinfer_cli
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.verification.comparison import OutputError, compare
from miniinfer_cli.verification.oracles import OracleGone, OracleRefused
from miniinfer_cli.verification.origins import origins
from miniinfer_cli.verification.steadiness import unsteady
from miniinfer_cli.verification.verify import _allowed
from tests.fuzz.semantic.runtime_server import RuntimeServer

_TIME_S, _NBYTES = 5.0, 1 << 30
_ROUNDING = 1e-6
"""An absolute difference of less is the rounding of terms that cancel: what is drawn is below 1."""
_OPTIMIZED = "ONNX Runtime's optimizations change what the graph gives: without them it answers as here"
_INTEGERS = ((0, 1), (1, 1), (0, 0))
"""The least and the greatest of the integers drawn, by seed."""


@dataclass(frozen=True)
class Answer:
    """``compared``: whether both ran the model. ``difference``: in words, and the ``outputs`` that differ for these ``feeds``.

    ``reason``: why the difference is ONNX Runtime's, where its own answers show that.
    """

    compared: bool = False
    difference: str = ""
    outputs: tuple[str, ...] = ()
    reason: str = ""
    feeds: Mapping[str, Any] = field(default_factory=dict, compare=False)


NOTHING = Answer()
"""Where one of them does not take the model, or these inputs."""


def ask(server: RuntimeServer, model: Path, plan: Path, seed: int) -> Answer:
    """How the plan's outputs differ from ONNX Runtime's on random inputs.

    Outputs that random numbers decide are left out, tolerances follow from the types that an output is computed in, and what
    leaps in ONNX Runtime itself when its inputs are nudged is no difference, as under ``build --verify``. A difference that is
    gone where ONNX Runtime runs the graph as it is written is one that its optimizations make: it has that ``reason``.
    """
    try:
        graph, _ = read_model(model, (), ())
        remove_dead_nodes(graph)
        found = origins(graph)
        types = dict(zip(graph.output_names, [v.type for v in graph.outputs], strict=True))
        allowed = {name: _allowed(types[name], origin, False) for name, origin in found.items() if not origin.random}
        if not allowed:
            return NOTHING
        with miniinfer_cli.load(plan, device="cpu", time_limit=_TIME_S, memory_limit=_NBYTES) as engine:
            feeds = random_inputs(engine.inputs, engine.ranges, {}, {}, seed, _INTEGERS[seed % len(_INTEGERS)])
            got = engine.run(feeds)
    except MiniinferError:
        return NOTHING
    try:
        runtime = server.load(model, list(allowed))
        expected = runtime.run(feeds)
        compared = [compare(n, got[n], expected[n], t) for n, t in allowed.items()]
        wrong = [o for o in compared if not o.ok and o.absolute > _ROUNDING]
        chance = unsteady(runtime, feeds, expected, wrong, allowed, seed) if wrong else set()
    except (OracleGone, OracleRefused):
        return NOTHING
    wrong = [o for o in wrong if o.name not in chance]
    if not wrong:
        return Answer(True)
    left = _as_written(server, model, feeds, got, {o.name: allowed[o.name] for o in wrong})
    if not left:
        return Answer(True, _told(wrong), tuple(o.name for o in wrong), _OPTIMIZED, feeds)
    return Answer(True, _told(left), tuple(o.name for o in left), feeds=feeds)


def _as_written(
    server: RuntimeServer, model: Path, feeds: Mapping[str, Any], got: Mapping[str, Any], allowed: Mapping[str, float]
) -> list[OutputError]:
    """The outputs of ``allowed`` that are off from ONNX Runtime without its optimizations; all where that does not run it."""
    try:
        expected = server.load(model, list(allowed), optimized=False).run(feeds)
    except (OracleGone, OracleRefused) as error:
        return [OutputError(n, float("inf"), float("inf"), t, False, f"only optimized: {error}") for n, t in allowed.items()]
    compared = [compare(n, got[n], expected[n], t) for n, t in allowed.items()]
    return [o for o in compared if not o.ok and o.absolute > _ROUNDING]


def _told(wrong: Collection[OutputError]) -> str:
    return "; ".join(f"output {o.name!r}: {o.reason or f'off by {o.relative:.2g}'}" for o in wrong)


def nodes_behind(model: onnx.ModelProto, outputs: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that ``outputs`` of the model are computed from; of a node with sub-graphs and of a call all that is inside."""
    made = {name: node for node in model.graph.node for name in node.output if name}
    functions = {(f.domain, f.name): f for f in model.functions}
    found: dict[int, onnx.NodeProto] = {}
    todo = [made[name] for name in outputs if name in made]
    while todo:
        node = todo.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        todo += [made[name] for name in node.input if name in made]
        inside = [n for a in node.attribute for g in (a.g, *a.graphs) for n in g.node]
        todo += [*inside, *(functions[node.domain, node.op_type].node if (node.domain, node.op_type) in functions else ())]
    return list(found.values())
