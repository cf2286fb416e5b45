"""What a build is told of states: pairs of an input and an output of the model, whose contents live between inferences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.builder.caching.caches import fix_cache_branch, keep_caches
from miniinfer_cli.builder.caching.pairs import agree_on_sizes, pairs_by_name
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, Graph, StatePair, States, TensorType, Value
from miniinfer_cli.passes.precision.binding_types import retype_bindings
from miniinfer_cli.wording import Wording


def checked_states(state: Any, kv_cache: Any) -> None:
    """Raises UsageError for options of another kind."""
    if kv_cache is not None and (isinstance(kv_cache, bool) or not isinstance(kv_cache, int) or not 0 < kv_cache < 1 << 31):
        raise UsageError(f"kv_cache: expected a number of rows, got {kv_cache!r}")
    if isinstance(state, str) or not isinstance(state, Sequence) or not all(isinstance(s, str) for s in state):
        raise UsageError(
            f"state: expected a list of pairs, got {state!r}",
            hint="name an input and the output that it is at the next inference: state=['state:stateN']",
        )


@dataclass(frozen=True, slots=True)
class AskedCaches:
    """Caches of ``capacity`` rows for ``pairs`` of an input and an output, beside states that are replaced ``whole``."""

    capacity: int
    pairs: tuple[tuple[str, str], ...]
    whole: tuple[StatePair, ...]


def ask_for_states(graph: Graph, state: Sequence[str], kv_cache: int | None) -> AskedCaches | None:
    """Gives ``graph`` the states that ``state`` names, each ``INPUT:OUTPUT``; what of them is for ``keep_asked`` to make.

    Raises UsageError for a pair that cannot be one, and where ``kv_cache`` finds no caches.
    """
    if kv_cache is None and not state:
        return None
    if kv_cache is not None:
        fix_cache_branch(graph)
    pairs = _pairs(graph, state, grows=kv_cache is not None)
    growing = [p for p in pairs if _grows(graph, p)] if kv_cache is not None else []
    whole = tuple(p for p in pairs if p not in growing)
    if kv_cache is None:
        graph.states = States(whole)
        return None
    named = tuple((p.past, p.present) for p in growing) or pairs_by_name(graph)
    agree_on_sizes(graph, named)
    return AskedCaches(kv_cache, named, whole)


def keep_asked(graph: Graph, asked: AskedCaches, half: DType | None) -> tuple[str, ...]:
    """Makes what was ``asked`` of a ``graph`` that is optimized up to where its floats are narrowed to ``half``, as caches are.

    Gives notes on inputs that callers no longer give. Raises ModelError naming the node that does not go with a cache.
    """
    derived = keep_caches(graph, asked.capacity, asked.pairs, asked.whole)
    if half is not None:
        floats = {v.name for v in graph.inputs if isinstance(v.type, TensorType) and v.type.dtype is DType.F32}
        inputs = {past: half for past, _ in asked.pairs if past in floats}
        retype_bindings(graph, inputs, {present: half for past, present in asked.pairs if past in floats})
    return tuple(f"input {name!r} follows from the lengths of the caches: callers do not give it" for name in derived)


def _grows(graph: Graph, pair: StatePair) -> bool:
    """True for a pair whose types say that the output has more rows than the input, or whose output is made by writing rows."""
    past = next(v for v in graph.inputs if v.name == pair.past)
    present = graph.outputs[graph.output_names.index(pair.present)]
    written = present.producer is not None and present.producer.is_op("TensorScatter")
    return past.type != present.type or written


def _pairs(graph: Graph, state: Sequence[str], *, grows: bool) -> list[StatePair]:
    pairs: list[StatePair] = []
    for text in state:
        pair = _pair(graph, text, grows=grows)
        if any({pair.past, pair.present} & {p.past, p.present} for p in pairs):
            raise UsageError(_of(text, "its input or its output is in another pair"))
        pairs.append(pair)
    return pairs


def _pair(graph: Graph, text: str, *, grows: bool) -> StatePair:
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
    if not grows:
        _expect_alike(text, inputs[past], outputs[present])
    return StatePair(past, present)


def _expect_alike(text: str, past: Value, present: Value) -> None:
    """Raises UsageError where the output can never be the input of the next inference."""
    one, other = past.type, present.type
    if not isinstance(one, TensorType) or not isinstance(other, TensorType) or one.dtype is not other.dtype:
        raise UsageError(_of(text, f"the input is {one or '?'}, the output {other or '?'}"))
    if one.shape is None:
        raise UsageError(
            _of(text, f"the input is {one}, of unknown rank, and a state begins with zeros of a known one"),
            hint="export the model with a shape for it, whose sizes may be names",
        )
    if other.shape is None:
        return  # whether it fits is looked at when it is there
    if len(one.shape) != len(other.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(one.shape, other.shape, strict=True)
    ):
        hint = Wording("for caches that grow give kv_cache=ROWS", flags="for caches that grow give --kv-cache ROWS")
        raise UsageError(_of(text, f"the input is {one}, the output {other}"), hint=hint)


def _of(text: str, told: str) -> str:
    return Wording(f"state {text!r}: {told}", flags=f"--state {text}: {told}")
