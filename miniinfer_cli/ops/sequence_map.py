"""SequenceMap: a sub-graph applied to each element of a sequence.

    SequenceMap(sequence, *others, *captures)    body(element, *others' elements or tensors, *captures) -> elements

Captures, counted by ``n_captures``, are as for the operations of ``control_flow``.
"""

from typing import Any

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Graph, SequenceType, TensorType, Type
from miniinfer_cli.ops.budget import Kept, check_time
from miniinfer_cli.ops.control_flow import expect_present
from miniinfer_cli.ops.registry import InferGraph, RunGraph, define
from miniinfer_cli.ops.type_merging import try_inner


def infer_sequence_map(
    input_sequence: SequenceType,
    *others: Type | None,
    n_captures: int = 0,
    untyped: frozenset[int],
    graphs: dict[str, Graph],
    infer_graph: InferGraph,
) -> tuple[Type | None, ...]:
    """A sequence of each output of ``body``. One that does not fit its elements fails when there are any."""
    expect_present("SequenceMap", others, 1, untyped)
    body, given = graphs["body"], (input_sequence, *others)
    if len(body.inputs) != len(given):
        raise ModelError(f"SequenceMap gives its body {len(given)} inputs, the body takes {len(body.inputs)}")
    mapped = len(given) - n_captures
    elements = [t.element if i < mapped and isinstance(t, SequenceType) else t for i, t in enumerate(given)]
    outputs, _ = try_inner(body, elements, infer_graph)
    if outputs is None:
        return tuple(SequenceType(None) for _ in body.outputs)
    return tuple(SequenceType(TensorType(t.dtype, t.shape) if isinstance(t, TensorType) else t) for t in outputs)


def sequence_map(
    input_sequence: list[Any], *others: Any, n_captures: int = 0, graphs: dict[str, Graph], run_graph: RunGraph
) -> tuple[list[Any], ...]:
    """Runs ``body`` on the elements at each position; a tensor goes whole to every one. Source: ONNX SequenceMap-17."""
    body = graphs["body"]
    mapped = len(others) - n_captures
    is_sequence = [i < mapped and isinstance(x, list) for i, x in enumerate(others)]
    lengths = {len(input_sequence), *(len(x) for x, many in zip(others, is_sequence, strict=True) if many)}
    if len(lengths) > 1:
        raise ModelError(f"SequenceMap got sequences of lengths {sorted(lengths)}, expected one length")
    collected: list[list[Any]] = [[] for _ in body.outputs]
    with Kept("what SequenceMap collects", copied=False) as kept:
        for index, element in enumerate(input_sequence):
            check_time()
            rest = [x[index] if many else x for x, many in zip(others, is_sequence, strict=True)]
            for items, item in zip(collected, run_graph(body, (element, *rest)), strict=True):
                items.append(item)
                kept.add(item)
    return tuple(collected)


SEQUENCE_MAP = define("SequenceMap", infer=infer_sequence_map, reference=sequence_map, graphs=("body",))
