"""What a build is asked of element types: 16 bits, but for what is kept, and other types of inputs and outputs.

What was asked for and cannot be done is an error: a node that there is not, a weight that 16 bits cannot hold, a model of no f32.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from miniinfer_cli.errors import ModelError, UsageError, nearest
from miniinfer_cli.ir import DType, Graph, KeptNode, Numerics, TensorType, Value
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.precision.binding_types import retype_bindings
from miniinfer_cli.passes.precision.narrow_floats import ask
from miniinfer_cli.wording import Wording

AUTO = "auto"
ALL = "*"
"""Stands for the inputs and outputs of f32 in ``io_types``."""
HALVES = (DType.F16, DType.BF16)
_IO_TYPES = (DType.F32, DType.F16, DType.BF16)
_WORDS = {"keep_fp32": "keep-fp32", "keep_float": "keep-float", "io_types": "io-dtype"}
_TOLD = 8  # weights that are named in an error


def checked_precision(precision: Any, keep_fp32: Any, io_types: Any) -> None:
    """Raises UsageError for values of another kind, and for what goes with no ``precision`` where there is none."""
    if precision is not None and precision not in HALVES:
        raise UsageError(f"precision: expected 'f16', 'bf16' or None, got {precision!r}")
    if isinstance(keep_fp32, str) or not all(isinstance(w, str) for w in keep_fp32):
        raise UsageError(f"keep_fp32: expected a list of names, got {keep_fp32!r}", hint="give a list: keep_fp32=[...]")
    if keep_fp32 and precision is None:
        raise UsageError(
            _both("keep_fp32", "without a type of 16 bits everything keeps f32"),
            hint=Wording("give precision='f16' or 'bf16'", flags="give --fp16 or --bf16"),
        )
    if AUTO in keep_fp32:
        raise UsageError(
            "keep_fp32: 'auto' has to run the model, which build() does not",
            hint="ask miniinfer_cli.verification.keeping.find_kept(model, options, read_feeds), and give what it finds",
        )
    if not isinstance(io_types, Mapping) or not all(isinstance(n, str) and t in _IO_TYPES for n, t in io_types.items()):
        raise UsageError(f"io_types: expected f32, f16 or bf16 by name, got {io_types!r}", hint='give io_types={"x": "f16"}')


def ask_for(graph: Graph, precision: str | None, keep_fp32: Sequence[str]) -> Numerics | None:
    """Tells ``graph``, as imported, in what to store f32. None: in nothing else. Raises UsageError for names that nothing has."""
    if precision is None:
        return None
    nodes, kept_ops = named(graph, "keep_fp32", keep_fp32)
    # An operation by the nodes of the model, and by itself: a pass may make one of several, or several of one.
    numerics = Numerics(DType(precision), nodes, kept_ops)
    ask(graph, numerics)
    return numerics


def named(graph: Graph, option: str, words: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The nodes that ``words`` name, by their names, by what these begin with, or by operation; and the operations among them.

    ``option`` is what they were given as. Raises UsageError for a word that nothing has.
    """
    op_of = {n.name: n.op for g in with_subgraphs(graph) for n in g}
    nodes: set[str] = set()
    ops: set[str] = set()
    for word in words:
        found = {word} & op_of.keys() or {name for name, op in op_of.items() if op == word or name.startswith(f"{word}/")}
        if not found:
            raise UsageError(
                _both(option, f"the model has no node {word!r}, and no operation"),
                hint=nearest(word, sorted({*op_of, *op_of.values()}))
                or Wording("the names are those of the ONNX model", flags="miniinfer inspect MODEL --graph shows both"),
            )
        nodes |= found
        ops |= {word} - op_of.keys()
    return frozenset(nodes), frozenset(ops)


def expect_done(graph: Graph, numerics: Numerics) -> None:
    """Raises ModelError where an optimized graph is not what was asked for: weights are lost, or nothing is of 16 bits."""
    half = numerics.half
    if numerics.lost:
        first, *more = [f"node {', '.join(map(repr, w.origins))}: weight {w.weight!r} {w.loss}" for w in numerics.lost]
        names = dict.fromkeys(w.origins[0] for w in numerics.lost)
        others = "" if half is DType.BF16 else "; bf16 reaches as far as f32"
        raise ModelError(
            f"{first}{f'; and {len(more)} more' if more else ''}",
            details=more[: _TOLD - 1],
            hint=Wording(
                f"keep them in f32: keep_fp32={list(names)}{others}",
                flags=f"keep them in f32: {' '.join(f'--keep-fp32 {shlex.quote(name)}' for name in names)}{others}",
            ),
        )
    values = [v for g in with_subgraphs(graph) for v in _within(g)]
    if not any(_is_of(v, half) for v in values):
        wide = any(_is_of(v, DType.F32) for v in values)
        reasons = "; ".join(f"{k.node!r} ({k.reason})" for k in numerics.kept[:3])
        what = "holds no f32" if not wide else f"keeps all of its f32{f': {reasons}' if reasons else ''}"
        asked = Wording(
            f"precision: the model {what}", flags=f"--{half.replace('f', 'fp') if half is DType.F16 else half}: the model {what}"
        )
        raise ModelError(asked, hint=Wording("leave precision out", flags="leave the flag out"))


def notes_on(graph: Graph, numerics: Numerics) -> tuple[str, ...]:
    """What a build in 16 bits left as it is, though it may not be meant so."""
    wide = sum(any(_is_of(v, DType.F64) for v in n.outputs) for g in with_subgraphs(graph) for n in g)
    told = f"{wide} node{'s' * (wide != 1)} compute{'s' * (wide == 1)} in f64, which a build in {numerics.half} leaves as it is"
    return (told,) if wide else ()


def retype(graph: Graph, io_types: Mapping[str, str]) -> None:
    """Gives inputs and outputs of ``graph`` these types; see ALL. Raises UsageError for names of none, and for no floats."""
    if not io_types:
        return
    inputs = {v.name: v for v in graph.inputs}
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    known = [*inputs, *outputs]
    for name in io_types:
        values = [v for v in (inputs.get(name), outputs.get(name)) if v is not None]
        if name != ALL and not values:
            hint = nearest(name, known) or f"they are {', '.join(known)}"
            raise UsageError(_both("io_types", f"there is no input or output {name!r}"), hint=hint)
        if any(not isinstance(v.type, TensorType) or v.type.dtype not in _IO_TYPES for v in values):
            found = values[0].type or "of unknown type"
            raise UsageError(_both("io_types", f"{name!r} is {found}, not of f32, f16 or bf16"))
    retype_bindings(graph, _wanted(inputs, io_types), _wanted(outputs, io_types))


def recorded_precision(numerics: Numerics | None, keep_fp32: Sequence[str], io_types: Mapping[str, str]) -> dict[str, Any]:
    """What a plan records of it: nothing, where nothing was asked for."""
    found: dict[str, Any] = {"io_types": {k: str(v) for k, v in sorted(io_types.items())}} if io_types else {}
    if numerics is not None:
        found["precision"] = str(numerics.half)
        found["keep_fp32"] = sorted(keep_fp32)
        found["kept_fp32"] = [_record(k) for k in numerics.kept]
    return found


def _within(graph: Graph) -> Iterator[Value]:
    """The values of a graph, and those within its regions."""
    yield from graph.values()
    for node in graph:
        if node.body is not None:
            yield from _within(node.body)


def _record(kept: KeptNode) -> dict[str, Any]:
    return {"node": kept.node, "op": kept.op, "origins": list(kept.origins), "reason": kept.reason}


def _both(option: str, told: str) -> Wording:
    return Wording(f"{option}: {told}", flags=f"--{_WORDS[option]}: {told}")


def _is_of(value: Value, dtype: DType) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is dtype


def _wanted(bindings: Mapping[str, Value], io_types: Mapping[str, str]) -> dict[str, DType]:
    wanted = {name: DType(io_types[ALL]) for name, v in bindings.items() if ALL in io_types and _is_of(v, DType.F32)}
    return wanted | {name: DType(t) for name, t in io_types.items() if name in bindings}
