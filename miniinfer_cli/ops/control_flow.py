"""If, Loop and Scan: nodes that run sub-graphs.

Sub-graphs are closed. What a sub-graph reads from the surrounding graph comes in through trailing inputs of the node, its
*captures*, which are the trailing inputs of the sub-graph as well:

    If(cond, *captures)                        then_branch(*captures), else_branch(*captures): the same list for both
    Loop(M, cond, *carried, *captures)         body(iteration, cond, *carried, *captures) -> (cond, *carried, *scanned)
    Scan(*states, *scan_inputs, *captures)     body(*states, *elements, *captures) -> (*states, *scanned)

The attribute ``n_captures`` of Loop and Scan counts them; all inputs of If after the condition are captures.
``scanned_types`` are the types that a body declares for what it scans, None where it declares none: of no rounds at all
nothing else may tell the sizes.
"""

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Graph, OptionalType, SequenceType, Sym, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ir.dims import is_natural, positive_part
from miniinfer_cli.limits import LOOP_ROUNDS
from miniinfer_cli.ops.budget import Kept, check_time
from miniinfer_cli.ops.element_types import BOOL, INTEGERS
from miniinfer_cli.ops.inference import UNKNOWN, infer_fitting
from miniinfer_cli.ops.registry import InferGraph, RunGraph, define
from miniinfer_cli.ops.shapes import normal_axis, same_dim
from miniinfer_cli.ops.type_merging import infer_inner, map_dims, merge_types, same_type, try_inner

Types = tuple[Type | None, ...]


def infer_if(
    cond: Type | None, *captures: Type | None, n_outputs: int, graphs: dict[str, Graph], infer_graph: InferGraph
) -> Types:
    """What both branches have in common; the type of one branch where the condition is known.

    A branch that does not fit its inputs has no say: it fails when it is taken. Exporters guard with an If what only some
    sizes allow. An If of which neither branch fits is refused.
    """
    counts = [len(_branch(graphs, taken).outputs) for taken in (True, False)]
    if counts[0] != counts[1] or counts[0] < n_outputs:
        raise ModelError(f"If has {counts[0]} outputs in then_branch and {counts[1]} in else_branch, expected {n_outputs}")
    if cond is not None:
        known = _expect_one("If", "a condition", BOOL, cond).concrete
        if known is not None:
            return infer_inner(_branch(graphs, bool(known.reshape(-1)[0])), captures, infer_graph)
    fitting: list[Types] = []
    faults: list[ModelError] = []
    for taken in (True, False):
        found, fault = try_inner(_branch(graphs, taken), captures, infer_graph)
        if found is not None:
            fitting.append(found)
        elif fault is not None:
            faults.append(fault)
    if not fitting:
        told = "; ".join(": ".join((name, *f.where, f.message)) for name, f in zip(_BRANCHES, faults, strict=True))
        raise ModelError(f"If has no branch that fits: {told}", hint=faults[0].own_hint)
    return fitting[0] if len(fitting) == 1 else tuple(merge_types("If", a, b) for a, b in zip(*fitting, strict=True))


def if_(cond: Array, *captures: Any, graphs: dict[str, Graph], run_graph: RunGraph) -> tuple[Any, ...]:
    """Runs ``then_branch`` when ``cond`` is true and ``else_branch`` otherwise. Source: ONNX If-25."""
    return run_graph(_branch(graphs, bool(one_item("If", "a condition", cond))), captures)


def one_item(op: str, what: str, value: Array) -> Any:
    """The only item of ``value``. Raises ModelError when it has another number of items."""
    if value.size != 1:
        raise ModelError(f"{op} expects {what} of one item, got {TensorType(dtype_of(value), value.shape)}")
    return value.reshape(-1)[0]


def expect_present(op: str, inputs: Types, first: int, untyped: Container[int]) -> None:
    """Raises ModelError when one of ``inputs``, which begin at input ``first`` of ``op``, is left out: its body reads them all.

    ``untyped`` has the numbers of those that are there, but of no known type.
    """
    for index, type in enumerate(inputs, first):
        if type is None and index not in untyped:
            raise ModelError(f"{op} needs input {index}, which is left out")


def infer_loop(
    m: Type | None,
    cond: Type | None,
    *rest: Type | None,
    n_captures: int = 0,
    scanned_types: Sequence[Type | None] = (),
    n_outputs: int,
    untyped: frozenset[int],
    graphs: dict[str, Graph],
    infer_graph: InferGraph,
) -> Types:
    """The carried values' final types, then each scanned value with the count of rounds as leading dimension.

    A carried value is what holds before the first and after every round: the body is inferred until nothing changes.
    A body that does not fit what it is given is no fault where there may be no round: then what goes in is what comes out.
    """
    body = graphs["body"]
    count = len(rest) - n_captures
    expect_present("Loop", rest, 2, untyped)
    _expect_arity("Loop", body, 2 + len(rest), 1 + count, n_outputs + 1)
    limit = None if m is None else _expect_one("Loop", "a trip count", INTEGERS, m)
    going = TensorType(DType.BOOL, (), None if 1 in untyped else np.array(True))
    if cond is not None:
        going = _scalar(_expect_one("Loop", "a condition", BOOL, cond))
    iteration = TensorType(DType.I64, ())
    may_pass = not (_is_true(going) and (m is None or _at_least_1(_trip_count(limit))))

    def infer_round(types: Types) -> Types | None:
        found = _infer_body(body, (iteration, *types, *rest[count:]), infer_graph, may_pass=may_pass)
        if found is None or found[0] is None:
            return found
        return (_scalar(_expect_one("Loop", "of its body a condition", BOOL, found[0])), *found[1:])

    carried, results = _infer_rounds("Loop", (going, *rest[:count]), infer_round)
    if results is None:
        elements = (None,) * (len(body.outputs) - 1 - count)
        return (*rest[:count], *_types_of_nothing("Loop", elements, scanned_types))
    rounds: Dim = UNKNOWN
    # ``carried`` holds the condition too: known to be true means that only M ends the loop.
    if _is_true(carried[0]):
        rounds = _trip_count(limit)
    return (*carried[1:], *(_stacked("Loop", t, rounds, 0) for t in results[1 + count :]))


def loop(
    m: Array | None,
    cond: Array | None,
    *rest: Any,
    n_captures: int = 0,
    scanned_types: Sequence[Type | None] = (),
    graphs: dict[str, Graph],
    run_graph: RunGraph,
) -> tuple[Any, ...]:
    """Runs ``body`` while its condition holds, at most ``m`` times. Source: ONNX Loop-25.

    The body's condition counts even when the input ``cond`` is left out, as in the runtimes that models are made for.
    """
    body = graphs["body"]
    count = len(rest) - n_captures
    carried, captures = rest[:count], rest[count:]
    limit = None if m is None else int(one_item("Loop", "a trip count", m))
    going = cond is None or bool(one_item("Loop", "a condition", cond))
    scanned: list[list[Array]] = [[] for _ in body.outputs[1 + count :]]
    rounds = 0
    with Kept("what Loop collects") as kept:
        while going and (limit is None or rounds < limit):
            check_time()
            results = run_graph(body, (np.array(rounds, np.int64), np.array(going), *carried, *captures))
            going = bool(one_item("Loop", "of its body a condition", np.asarray(results[0])))
            carried = results[1 : 1 + count]
            for collected, item in zip(scanned, results[1 + count :], strict=True):
                collected.append(item)
                kept.add(item)
            rounds += 1
        if rounds:
            return (*carried, *(np.stack(items) for items in scanned))
    types = [TensorType(DType.I64, ()), TensorType(DType.BOOL, ()), *map(_type_of, rest)]
    return (*carried, *_nothing("Loop", infer_fitting(body, types)[1 + count :], scanned_types))


def infer_scan(
    *inputs: Type | None,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (),
    scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
    n_captures: int = 0,
    scanned_types: Sequence[Type | None] = (),
    n_outputs: int,
    untyped: frozenset[int],
    graphs: dict[str, Graph],
    infer_graph: InferGraph,
) -> Types:
    """The states' final types, then each scanned value with the length of the scan at its output axis.

    A body that does not fit is no fault where the length may be 0, as for ``infer_loop``.
    """
    body = graphs["body"]
    states, scans, captures = _scan_parts(inputs, num_scan_inputs, n_captures)
    expect_present("Scan", inputs, 0, untyped)
    _expect_arity("Scan", body, len(inputs), len(states), n_outputs)
    length: Dim = UNKNOWN
    elements: list[Type | None] = []
    for index, scan in enumerate(scans):
        if scan is not None and not isinstance(scan, TensorType):
            raise ModelError(f"Scan goes through tensors, got {scan}")
        if scan is None or scan.shape is None:
            elements.append(None if scan is None else TensorType(scan.dtype))
            continue
        if not scan.shape:
            raise ModelError(f"Scan goes through tensors of rank 1 or more, got {scan}")
        axis = normal_axis("Scan", _item(scan_input_axes, index), scan)
        size = scan.shape[axis]
        length = size if length == UNKNOWN else same_dim("Scan", "lengths of the scanned inputs differ", length, size)
        elements.append(TensorType(scan.dtype, scan.shape[:axis] + scan.shape[axis + 1 :]))
    may_pass = not _at_least_1(length)
    carried, results = _infer_rounds(
        "Scan", states, lambda types: _infer_body(body, (*types, *elements, *captures), infer_graph, may_pass=may_pass)
    )
    if results is None:
        return (*states, *_types_of_nothing("Scan", (None,) * (len(body.outputs) - len(states)), scanned_types, scan_output_axes))
    scanned = results[len(states) :]
    return (*carried, *(_stacked("Scan", t, length, _item(scan_output_axes, i)) for i, t in enumerate(scanned)))


def scan(
    *inputs: Any,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (),
    scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
    n_captures: int = 0,
    scanned_types: Sequence[Type | None] = (),
    graphs: dict[str, Graph],
    run_graph: RunGraph,
) -> tuple[Any, ...]:
    """Runs ``body`` once per element of the scanned inputs, carrying the states along. Source: ONNX Scan-25.

    A direction of 1 reads an input, or fills an output, from its end.
    """
    body = graphs["body"]
    states, scans, captures = _scan_parts(inputs, num_scan_inputs, n_captures)
    moved = [np.moveaxis(x, _item(scan_input_axes, i), 0) for i, x in enumerate(scans)]
    moved = [x[::-1] if _item(scan_input_directions, i) else x for i, x in enumerate(moved)]
    n_scanned = len(body.outputs) - len(states)
    if not len(moved[0]):
        types = [*map(_type_of, states), *(TensorType(dtype_of(x), x.shape[1:]) for x in moved), *map(_type_of, captures)]
        empty = infer_fitting(body, types)[len(states) :]
        return (*states, *_nothing("Scan", empty, scanned_types, scan_output_axes))
    scanned: list[list[Array]] = [[] for _ in range(n_scanned)]
    with Kept("what Scan collects") as kept:
        for elements in zip(*moved, strict=True):
            check_time()
            results = run_graph(body, (*states, *map(np.asarray, elements), *captures))
            states = results[: len(states)]
            for collected, item in zip(scanned, results[len(states) :], strict=True):
                collected.append(item)
                kept.add(item)
        outputs = [
            np.stack(items[::-1] if _item(scan_output_directions, i) else items, axis=_item(scan_output_axes, i))
            for i, items in enumerate(scanned)
        ]
    return (*states, *outputs)


def _infer_rounds(op: str, carried: Types, infer_round: Callable[[Types], Types | None]) -> tuple[Types, Types | None]:
    """The carried values' types that hold at any round, and all outputs of the body for these; None for a body that has none.

    ``infer_round`` gives the outputs for the carried values, again until no round tells anything new; each
    time a carried value loses what did not hold, so this ends. Values that hand a change on to each other would take a round
    each: after a few rounds nothing is told of any shape.
    """
    rounds = 0
    while True:
        results = infer_round(carried)
        if results is None:
            return carried, None
        merged = tuple(merge_types(op, a, b) for a, b in zip(carried, results[: len(carried)], strict=True))
        if all(same_type(a, b) for a, b in zip(carried, merged, strict=True)):
            return carried, results
        rounds += 1
        carried = tuple(map(_of_any_shape, merged)) if rounds >= LOOP_ROUNDS.value else merged


def _infer_body(body: Graph, inputs: Types, infer_graph: InferGraph, *, may_pass: bool) -> Types | None:
    """The types of the outputs of ``body``; None for one that does not fit these inputs and ``may_pass`` without a round.

    Raises ModelError for one that does not fit and is run.
    """
    return try_inner(body, inputs, infer_graph)[0] if may_pass else infer_inner(body, inputs, infer_graph)


def _types_of_nothing(
    op: str, elements: Sequence[Type | None], declared: Sequence[Type | None], axes: Sequence[int] = ()
) -> Types:
    """The types of what no rounds collect: size 0 along the rounds, and the others as the body declares them in numbers."""
    told = [_more_precise(e, declared[i] if i < len(declared) else None) for i, e in enumerate(elements)]
    stacked = [_stacked(op, t, 0, _item(axes, i)) for i, t in enumerate(told)]
    return tuple(map_dims(t, lambda d: d if isinstance(d, int) else UNKNOWN) for t in stacked)


def _is_true(type: Type | None) -> bool:
    return isinstance(type, TensorType) and type.concrete is not None and bool(type.concrete.all())


def _at_least_1(size: Dim) -> bool:
    """True for a size that is surely not 0."""
    return size != UNKNOWN and is_natural(size - 1)


def _of_any_shape(type: Type | None) -> Type | None:
    if isinstance(type, (SequenceType, OptionalType)):
        return replace(type, element=_of_any_shape(type.element))
    return TensorType(type.dtype) if isinstance(type, TensorType) else type


def _stacked(op: str, element: Type | None, length: Dim, axis: int) -> Type | None:
    if element is None:
        return None
    if not isinstance(element, TensorType):
        raise ModelError(f"{op} collects tensors, its body gives {element}")
    if element.shape is None:
        return TensorType(element.dtype)
    at = normal_axis(op, axis, TensorType(element.dtype, (length, *element.shape)))
    return TensorType(element.dtype, (*element.shape[:at], length, *element.shape[at:]))


def _nothing(
    op: str, elements: Sequence[Type | None], declared: Sequence[Type | None], axes: Sequence[int] = ()
) -> tuple[Array, ...]:
    """What no rounds collect: size 0 along the rounds, and where neither the body's nodes nor its declaration tell a size."""
    out = []
    for number, stacked in enumerate(_types_of_nothing(op, elements, declared, axes)):
        if not isinstance(stacked, TensorType):
            raise ModelError(
                f"{op} of no rounds: its body leaves the type of scanned output {number} open", hint="declare it in the model"
            )
        shape = tuple(d if isinstance(d, int) else 0 for d in stacked.shape or (0,))
        out.append(np.empty(shape, numpy_dtype(stacked.dtype)))
    return tuple(out)


def _more_precise(inferred: Type | None, declared: Type | None) -> Type | None:
    """``inferred`` with the sizes of ``declared`` where it leaves them open and the two do not contradict each other."""
    if inferred is None:
        return declared
    if not isinstance(inferred, TensorType) or not isinstance(declared, TensorType) or declared.shape is None:
        return inferred
    if inferred.dtype is not declared.dtype or (inferred.shape is not None and len(inferred.shape) != len(declared.shape)):
        return inferred
    shape = declared.shape if inferred.shape is None else inferred.shape
    return TensorType(
        inferred.dtype, tuple(d if isinstance(d, int) else other for d, other in zip(shape, declared.shape, strict=True))
    )


def _trip_count(m: TensorType | None) -> Dim:
    if m is None or m.known is None:
        return UNKNOWN
    item = m.known.reshape(-1)[0]
    return positive_part(item if isinstance(item, Sym) else int(item))


def _type_of(value: Any) -> Type | None:
    if isinstance(value, np.ndarray):
        return TensorType(dtype_of(value), value.shape)
    if isinstance(value, list):
        return SequenceType(_type_of(value[0]) if value else None)
    return None


_BRANCHES = ("then_branch", "else_branch")


def _branch(graphs: dict[str, Graph], taken: bool) -> Graph:
    return graphs[_BRANCHES[0 if taken else 1]]


def _scan_parts(inputs: Sequence[Any], num_scan_inputs: int, n_captures: int) -> tuple[Any, Any, Any]:
    """States, scanned inputs and captures."""
    n_states = len(inputs) - n_captures - num_scan_inputs
    if num_scan_inputs < 1 or n_states < 0:
        raise ModelError(f"Scan num_scan_inputs is {num_scan_inputs}, expected 1 to {len(inputs) - n_captures}, its inputs")
    return inputs[:n_states], inputs[n_states : n_states + num_scan_inputs], inputs[n_states + num_scan_inputs :]


def _item(items: Sequence[int], index: int) -> int:
    return int(items[index]) if index < len(items) else 0


def _expect_one(op: str, what: str, dtypes: frozenset[DType], type: Type) -> TensorType:
    """``type``, which must be a tensor of one item, whatever its rank, as the runtimes that models are made for take it."""
    if isinstance(type, TensorType) and type.dtype in dtypes and (not type.is_static or math.prod(type.shape or ()) == 1):
        return type
    raise ModelError(f"{op} expects {what} of one {'bool' if dtypes == BOOL else 'integer'}, got {type}")


def _scalar(one: TensorType) -> TensorType:
    """The type of the only item by itself."""
    return TensorType(one.dtype, (), None if one.concrete is None else one.concrete.reshape(()))


def _expect_arity(op: str, body: Graph, n_inputs: int, n_carried: int, n_outputs: int) -> None:
    if len(body.inputs) != n_inputs:
        raise ModelError(f"{op} gives its body {n_inputs} inputs, the body takes {len(body.inputs)}")
    if len(body.outputs) < n_carried:
        raise ModelError(f"{op} carries values into {n_carried} outputs of its body, the body has {len(body.outputs)}")
    if len(body.outputs) < n_outputs:
        raise ModelError(f"{op} has more outputs than its body gives: {n_outputs} against {len(body.outputs)}")


IF = define("If", infer=infer_if, reference=if_, graphs=("then_branch", "else_branch"), control=True)
LOOP = define("Loop", infer=infer_loop, reference=loop, graphs=("body",), control=True)
SCAN = define("Scan", infer=infer_scan, reference=scan, graphs=("body",), control=True)
