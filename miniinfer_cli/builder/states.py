"""What a build is told of states: pairs of an input and an output of the model, whose contents live between inferences."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, StatePair, States, TensorType, Value
from miniinfer_cli.wording import Wording


def checked_states(state: Any) -> None:
    """Raises UsageError for an option of another kind."""
    if isinstance(state, str) or not isinstance(state, Sequence) or not all(isinstance(s, str) for s in state):
        raise UsageError(
            f"state: expected a list of pairs, got {state!r}",
            hint="name an input and the output that it is at the next inference: state=['state:stateN']",
        )


def ask_for_states(graph: Graph, state: Sequence[str]) -> None:
    """Gives ``graph`` the states that ``state`` names, each ``INPUT:OUTPUT``. Raises UsageError for a pair that cannot be one."""
    if not state:
        return
    pairs: list[StatePair] = []
    for text in state:
        pair = _pair(graph, text)
        if any({pair.past, pair.present} & {p.past, p.present} for p in pairs):
            raise UsageError(_of(text, "its input or its output is in another pair"))
        pairs.append(pair)
    graph.states = States(tuple(pairs))


def _pair(graph: Graph, text: str) -> StatePair:
    """The pair that the text names; names may have colons of their own."""
    inputs = {v.name: v for v in graph.inputs}
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    splits = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == ":"]
    found = [(past, present) for past, present in splits if past in inputs and present in outputs]
    if len(found) != 1:
        hint = f"the inputs are {', '.join(inputs)}; the outputs {', '.join(outputs)}"
        raise UsageError(_of(text, "expected INPUT:OUTPUT, an input and an output of the model"), hint=hint)
    past, present = found[0]
    if past in graph.defaults:
        raise UsageError(_of(text, "the input has a default, with which a state would have to begin: states begin with zeros"))
    _expect_alike(text, inputs[past], outputs[present])
    return StatePair(past, present)


def _expect_alike(text: str, past: Value, present: Value) -> None:
    """Raises UsageError where the output can never be the input of the next inference."""
    one, other = past.type, present.type
    if not isinstance(one, TensorType) or not isinstance(other, TensorType) or one.dtype is not other.dtype or one.shape is None:
        raise UsageError(_of(text, f"the input is {one or '?'}, the output {other or '?'}"))
    if other.shape is None:
        return
    if len(one.shape) != len(other.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(one.shape, other.shape, strict=True)
    ):
        hint = Wording("for caches that grow give kv_cache=ROWS", flags="for caches that grow give --kv-cache ROWS")
        raise UsageError(_of(text, f"the input is {one}, the output {other}"), hint=hint)


def _of(text: str, told: str) -> str:
    return Wording(f"state {text!r}: {told}", flags=f"--state {text}: {told}")
