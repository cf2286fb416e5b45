"""The states of a graph as the options of its plan name them, and read again: a reader that does not know them has a function."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine_format import Plan
from miniinfer_cli.errors import PlanFileError
from miniinfer_cli.ir import DType, Graph, StatePair, States, TensorType, Type

STATES = "states"
"""The option of a plan under which the states stand."""


def stored_states(states: States) -> dict[str, Any]:
    """The states in plain values."""
    return {
        "pairs": [[p.past, p.present, p.axis] for p in states.pairs],
        "capacity": states.capacity,
        "length": states.length,
        "tokens": states.tokens,
        "buckets": list(states.buckets),
    }


def read_states(plan: Plan, graph: Graph) -> States | None:
    """What the plan's options say of the states of ``graph``; None where they say nothing.

    Raises PlanFileError for what does not fit the graph.
    """
    told = plan.report.options.get(STATES)
    if told is None:
        return None
    try:
        states = _states(told)
    except (KeyError, TypeError, ValueError):
        raise PlanFileError("the states of the plan cannot be read").at(plan.path) from None
    fault = _misfit(states, graph)
    if fault:
        raise PlanFileError(f"the states of the plan do not fit its graph: {fault}").at(plan.path)
    return states


def _states(told: Any) -> States:
    if not isinstance(told, Mapping):
        raise TypeError(told)
    pairs = tuple(
        StatePair(_text(past), _text(present), None if axis is None else _count(axis)) for past, present, axis in told["pairs"]
    )
    buckets = tuple(map(_count, told["buckets"]))
    return States(pairs, _count(told["capacity"]), _text(told["length"]), _text(told["tokens"]), buckets)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _misfit(states: States, graph: Graph) -> str:
    """What is wrong with the states of a graph; empty where nothing is."""
    inputs = {v.name: v.type for v in graph.inputs}
    outputs = dict(zip(graph.output_names, (v.type for v in graph.outputs), strict=True))
    names = [n for p in states.pairs for n in (p.past, p.present)]
    if len(set(names)) != len(names) or not states.pairs:
        return "an input or output of two pairs, or no pair"
    for pair in states.pairs:
        if pair.past not in inputs or pair.present not in outputs:
            return f"{pair.past} and {pair.present} are no input and output"
        if fault := _misfit_of_types(states, pair, inputs[pair.past], outputs[pair.present]):
            return fault
    grows = any(p.axis is not None for p in states.pairs)
    if grows and (not states.capacity or list(states.buckets) != sorted({*states.buckets} - {0}) or not states.buckets):
        return "a cache with no capacity, or with sizes out of order"
    kind = inputs.get(states.length)
    if grows != bool(states.length) or (
        grows and not (isinstance(kind, TensorType) and kind.dtype is DType.I64 and kind.rank == 1)
    ):
        return "the lengths of its caches are no input of the graph"
    return ""


def _misfit_of_types(states: States, pair: StatePair, past: Type | None, present: Type | None) -> str:
    if not (isinstance(past, TensorType) and isinstance(present, TensorType)) or past.dtype is not present.dtype:
        return f"{pair.past} and {pair.present} are of different types"
    shapes: Sequence[Any] = (past.shape, present.shape)
    if past.shape is None or present.shape is None or len(past.shape) != len(present.shape):
        return f"{pair.past} and {pair.present} have the shapes {shapes[0]} and {shapes[1]}"
    if pair.axis is not None and (not 0 < pair.axis < len(past.shape) or past.shape[pair.axis] != states.capacity):
        return f"{pair.past} has no axis {pair.axis} of {states.capacity}"
    return ""
