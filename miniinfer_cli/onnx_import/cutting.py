"""A model from named values on: they become its inputs, and what only led to them is left out."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx

from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.text_reader import parse_type
from miniinfer_cli.onnx_import.asked_names import expect_names, refusal
from miniinfer_cli.onnx_import.structure import names_read
from miniinfer_cli.onnx_import.types import type_proto
from miniinfer_cli.wording import Wording

_OPTION = Wording("start_at", flags="--start-at")
_GIVE_TYPE = Wording(
    "give it a type: start_at=['NAME:f32[batch,16]']",
    flags="give it a type: --start-at 'NAME:f32[batch,16]'",
)


def load_cut(model: Any, start_at: Sequence[str]) -> onnx.ModelProto:
    """``model`` (a path, bytes or a ModelProto) with all its data in memory, cut as by ``cut``."""
    if isinstance(model, onnx.ModelProto):
        return cut(model, start_at)
    return cut(onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model), start_at)


def cut(model: onnx.ModelProto, start_at: Sequence[str], kept: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of ``model`` whose inputs are the values ``start_at``, and those of its inputs that are read all the same.

    Each is a name, or ``NAME:TYPE`` (``ids:i64[batch,seq]``) where the model does not tell its type. ``kept``: names of nodes and
    values that are wanted besides the outputs. Raises UsageError for a name that nothing makes, that nothing reads which is left,
    or whose type is not known.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output if name}
    known = {v.name: v.type for v in (*graph.value_info, *graph.output, *graph.input)}
    starts = dict(_start(text, [*made, *(v.name for v in graph.input)], known) for text in start_at)
    nodes = _needed(graph, starts, kept)
    read = {name for node in nodes for name in names_read(node)} | {v.name for v in graph.output}
    for name in starts:
        if name not in read:
            raise refusal(_OPTION, f"no output depends on the value {name!r}")
    found = onnx.ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version,
        domain=model.domain, model_version=model.model_version, doc_string=model.doc_string,
    )  # fmt: skip
    found.opset_import.extend(model.opset_import)
    found.functions.extend(model.functions)
    found.metadata_props.extend(model.metadata_props)
    whole = found.graph
    whole.name, whole.doc_string = graph.name, graph.doc_string
    whole.node.extend(_without(node, starts) for node in nodes)
    whole.initializer.extend(t for t in graph.initializer if t.name in read and t.name not in starts)
    whole.sparse_initializer.extend(s for s in graph.sparse_initializer if s.values.name in read)
    whole.input.extend(v for v in graph.input if v.name in read and v.name not in starts)
    whole.input.extend(onnx.ValueInfoProto(name=name, type=type) for name, type in starts.items())
    whole.output.extend(graph.output)
    whole.value_info.extend(v for v in graph.value_info if v.name not in starts)
    return found


def _start(text: str, names: Sequence[str], known: Mapping[str, onnx.TypeProto]) -> tuple[str, onnx.TypeProto]:
    """The name and the type of a value to start at."""
    name, written = (text, "") if text in names else (text.rpartition(":")[0] or text, text.rpartition(":")[2])
    expect_names(_OPTION, [name], names)
    if written:
        try:
            type = parse_type(written)
        except ValueError:
            type = None
        if not isinstance(type, TensorType):
            raise refusal(_OPTION, f"{written!r} is no type of a tensor", _GIVE_TYPE)
        return name, type_proto(type)
    if name not in known or known[name].WhichOneof("value") is None:
        raise refusal(_OPTION, f"the model does not tell the type of {name!r}", _GIVE_TYPE)
    return name, known[name]


def _needed(graph: onnx.GraphProto, starts: Collection[str], kept: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs, and what is ``kept``, need, with the values ``starts`` given; in the order of the graph."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name and name not in starts}
    wanted = [makers[v.name] for v in graph.output if v.name in makers]
    wanted += [i for i, node in enumerate(graph.node) if node.name in kept or any(name in kept for name in node.output)]
    needed = set(wanted)
    while wanted:
        for name in names_read(graph.node[wanted.pop()]):
            if name in makers and makers[name] not in needed:
                needed.add(makers[name])
                wanted.append(makers[name])
    return [graph.node[i] for i in sorted(needed)]


def _without(node: onnx.NodeProto, starts: Collection[str]) -> onnx.NodeProto:
    """``node``, which no longer makes the values ``starts``: what it makes in their place, nothing reads."""
    if not any(name in starts for name in node.output):
        return node
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.output[:] = [f"{name} (cut)" if name in starts else name for name in node.output]
    return other
