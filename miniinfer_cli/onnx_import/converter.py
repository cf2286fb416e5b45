"""From the nodes of an ONNX graph to the nodes of ours: names, sub-graphs, functions, and what is wrong.

Each node goes through the handler of its version, which adds typed nodes to the graph. A node that cannot be built is a
fault; what reads its outputs is passed over, so that each fault is told once.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import TensorType, Value
from miniinfer_cli.limits import SUGGESTIONS, worth_comparing
from miniinfer_cli.onnx_import.attributes import is_graph, read_attribute
from miniinfer_cli.onnx_import.call import Call, Origin
from miniinfer_cli.onnx_import.constant_node import constant_of, is_constant
from miniinfer_cli.onnx_import.expansion import function_of
from miniinfer_cli.onnx_import.faults import SHOWN, Faults
from miniinfer_cli.onnx_import.frame import FAILED, Failed, Frame, Named
from miniinfer_cli.onnx_import.functions import Functions, bindings_of, bound_attributes, plain_domain, title_of
from miniinfer_cli.onnx_import.meaning import meaning_of
from miniinfer_cli.onnx_import.notes import Notes
from miniinfer_cli.onnx_import.schemas import expect_known_opset
from miniinfer_cli.onnx_import.structure import in_order, subgraphs_of
from miniinfer_cli.onnx_import.subgraphs import read_subgraphs
from miniinfer_cli.onnx_import.tensors import TensorReader
from miniinfer_cli.onnx_import.types import DimNames


class Converter:
    """Reads the nodes of one model. ``faults`` gathers what is wrong with it, ``notes`` what is taken as meant all the same."""

    def __init__(self, tensors: TensorReader, dims: DimNames, functions: Functions, faults: Faults, notes: Notes) -> None:
        self.tensors = tensors
        self.dims = dims
        self.functions = functions
        self.faults = faults
        self.notes = notes
        self._node_names: set[str] = set()
        self._suggested = 0

    def read_graph(self, graph: onnx.GraphProto, frame: Frame, owner: str) -> list[Named]:
        """Adds the nodes of ``graph``, whose inputs the frame has, and returns the values of its outputs.

        ``owner`` is what a fault of the graph itself is told of.
        """
        self._read_initializers(graph, frame, owner)
        frame.declared = {v.name: v.type for v in (*graph.value_info, *graph.output)}
        self._read_nodes(graph.node, frame)
        return self._read_outputs([v.name for v in graph.output], frame, owner)

    def _read_initializers(self, graph: onnx.GraphProto, frame: Frame, owner: str) -> None:
        read: dict[str, Any] = {}
        for tensor in graph.initializer:
            read.setdefault(tensor.name, []).append(lambda t=tensor: self.tensors.read(t))
        for sparse in graph.sparse_initializer:
            read.setdefault(sparse.values.name, []).append(lambda s=sparse: self.tensors.read_sparse(s))
        for name, readers in read.items():
            if len(readers) > 1:
                self.faults.add(owner, ModelError(f"has {len(readers)} initializers named {name!r}"))
            if name not in frame.names:  # else an input that the caller wants to stay one
                frame.pending[name] = readers[0]

    def _read_nodes(self, nodes: Sequence[onnx.NodeProto], frame: Frame) -> None:
        ordered, stuck = in_order(nodes, frame.has_own, lambda n: _place(n, frame), self.faults)
        for node in stuck:
            frame.names.update((name, FAILED) for name in node.output)
        for node in ordered:
            for name, value in zip(node.output, self._read_node(node, frame), strict=False):
                if name:
                    frame.names.setdefault(name, value)

    def _read_outputs(self, names: Sequence[str], frame: Frame, owner: str) -> list[Named]:
        values: list[Named] = []
        for number, name in enumerate(names):
            try:
                if not name:
                    raise ModelError(f"output {number} has no name")
                values += self._find_all([name], frame)
            except MiniinferError as error:
                self.faults.add(owner, error)
                values.append(FAILED)
        return values

    def _find_all(self, names: Sequence[str], frame: Frame) -> list[Named]:
        """The values called ``names``, None for one left out. Raises ModelError that tells all that nothing makes."""
        unknown = [name for name in dict.fromkeys(names) if name and not frame.has(name)]
        if unknown:
            looked_up = self._worth_a_look(unknown)
            known = worth_comparing(frame.all_names()) if looked_up else []
            close = [c for name in looked_up for c in difflib.get_close_matches(name, known, 1)]
            hint = f"did you mean {' and '.join(map(repr, close))}?" if close else ""
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise ModelError(f"reads {' and '.join(map(repr, unknown[:SHOWN]))}{more}, which nothing makes", hint=hint)
        return [frame.find(name) if name else None for name in names]

    def _worth_a_look(self, unknown: Sequence[str]) -> Sequence[str]:
        """Those of the names that a suggestion is looked for: each takes a look at all names, and there may be thousands."""
        left = SUGGESTIONS.value - self._suggested
        self._suggested += len(unknown)
        return worth_comparing(unknown[: max(left, 0)])

    # -- one node --------------------------------------------------------------------------------------------------

    def _read_node(self, node: onnx.NodeProto, frame: Frame) -> Sequence[Named]:
        """The values of the node's outputs, FAILED where a fault keeps them from being made."""
        failed = [FAILED] * len(node.output)
        try:
            attributes = bound_attributes(node, frame)
            if is_constant(node):
                return [frame.graph.add_constant(constant_of(attributes, self.tensors), frame.prefix + node.output[0])]
            meaning = meaning_of(node, frame, self.functions)
            for note in meaning.notes:
                self.notes.add(note, frame.prefix + title_of_node(node))
            inputs = self._find_all(node.input, frame)
            if meaning.is_onnx and node.op_type == "If":
                taken = _taken_branch(attributes, inputs[0])
                if taken is not None and len(taken.output) == len(node.output):
                    return self.read_graph(taken, frame.branch(), _place(node, frame))
            if meaning.function is not None:
                if not frame.functions:
                    self.functions.expect_modest(node)
                return self._read_function(meaning.function, {}, attributes, inputs, node, frame)
            before = len(self.faults)
            owner = _place(node, frame)
            closed = read_subgraphs(list(subgraphs_of(node)), node.op_type, inputs, frame, self.dims, self.read_graph, owner)
            for note in closed.notes:
                self.notes.add(note, frame.prefix + title_of_node(node))
            operands = [v for v in inputs if not isinstance(v, Failed)]
            if closed.failed or len(self.faults) > before or len(operands) < len(inputs):
                return failed
            if meaning.expands is not None:
                types = [v.type for v in operands if v is not None]
                body = function_of(meaning.expands, node, meaning.opset, types)
                if body is None:
                    raise ModelError(f"{node.op_type}-{meaning.version} is not supported for these inputs and attributes")
                return self._read_function(body, meaning.expands.defaults, attributes, inputs, node, frame)
            outputs = _trimmed(node.output)
            call = Call(
                op=node.op_type,
                domain=meaning.domain,
                version=meaning.version,
                name=self._node_name(node, frame),
                graph=frame.graph,
                inputs=_trimmed(operands),
                outputs=tuple(frame.prefix + name if name else "" for name in outputs),
                attrs={a.name: read_attribute(a, self.tensors, self.dims) for a in attributes if not is_graph(a)},
                graphs=closed.graphs,
                captures=closed.captures,
                lenient=frame.lenient,
                notes=self.notes,
                origin=Origin(node, attributes, {**frame.opsets, meaning.domain: meaning.opset}, frame.declared, self.tensors),
            )
            return meaning.handler(call) if meaning.handler is not None else failed
        except MiniinferError as error:
            self.faults.add_at_node(frame.prefix + title_of_node(node), _operator(node, frame), error)
            return failed

    def _read_function(
        self,
        function: onnx.FunctionProto,
        defaults: Mapping[str, onnx.AttributeProto],
        attributes: Sequence[onnx.AttributeProto],
        inputs: Sequence[Named],
        node: onnx.NodeProto,
        frame: Frame,
    ) -> Sequence[Named]:
        """The nodes of a function's body in the place of a call of it."""
        title = title_of(function)
        if title in frame.functions:
            raise ModelError(f"the function {title} calls itself: {' -> '.join((*frame.functions, title))}")
        if len(inputs) > len(function.input) or len(node.output) > len(function.output):
            got, wanted = (len(inputs), len(node.output)), (len(function.input), len(function.output))
            raise ModelError(f"the function {title} takes {wanted[0]} inputs for {wanted[1]} outputs, got {got[0]} for {got[1]}")
        self.functions.count(function, 1 + len(frame.functions))
        imported = {plain_domain(o.domain): o.version for o in function.opset_import}
        for domain, version in imported.items():
            expect_known_opset(domain, version)
        inner = Frame(
            graph=frame.graph,
            opsets={**frame.opsets, **imported},
            names={**dict.fromkeys(function.input), **dict(zip(function.input, inputs, strict=False))},
            bindings=bindings_of(function, attributes, defaults),
            functions=(*frame.functions, title),
            prefix=f"{self._node_name(node, frame)}/",
            lenient=frame.lenient,
            declared={v.name: v.type for v in function.value_info},
        )
        self._read_nodes(function.node, inner)
        return self._read_outputs(function.output[: len(node.output)], inner, f"function {title}")

    def _node_name(self, node: onnx.NodeProto, frame: Frame) -> str:
        """A name for the node that no other node of the model has."""
        base = name = frame.prefix + title_of_node(node)
        number = 0
        while name in self._node_names:
            number += 1
            name = f"{base}_{number}"
        self._node_names.add(name)
        return name


def title_of_node(node: onnx.NodeProto) -> str:
    """The node's name; that of its first output where it has none."""
    return node.name or next((name for name in node.output if name), "") or node.op_type


def _place(node: onnx.NodeProto, frame: Frame) -> str:
    """Where a fault is, as the user's model has it: ``node 'head/softmax' (Softmax, opset 12)``."""
    return f"node {frame.prefix + title_of_node(node)!r} ({_operator(node, frame)})"


def _operator(node: onnx.NodeProto, frame: Frame) -> str:
    domain = plain_domain(node.domain)
    op = f"{domain}.{node.op_type}" if domain else node.op_type
    opset = frame.opsets.get(domain)
    return f"{op}, opset {opset}" if opset is not None else op


def _taken_branch(attributes: Sequence[onnx.AttributeProto], cond: Named) -> onnx.GraphProto | None:
    """The branch that an If takes whose condition is known already, None when it is not.

    Exporters guard with an If what would not fit the other case, so the branch not taken must not even be looked at.
    """
    known = cond.type.concrete if isinstance(cond, Value) and isinstance(cond.type, TensorType) else None
    if known is None or known.size != 1:
        return None
    name = "then_branch" if known.reshape(-1)[0] else "else_branch"
    return next((a.g for a in attributes if a.name == name), None)


def _trimmed(items: Sequence[Any]) -> tuple[Any, ...]:
    """``items`` without those at the end that are left out ("" or None)."""
    count = len(items)
    while count and not items[count - 1]:
        count -= 1
    return tuple(items[:count])
