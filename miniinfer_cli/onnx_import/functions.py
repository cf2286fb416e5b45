"""The functions of a model, and attributes of a function's call put in the place of the references to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.limits import FUNCTION_DEPTH, FUNCTION_NODES, Limits
from miniinfer_cli.onnx_import.frame import Frame
from miniinfer_cli.onnx_import.structure import nodes_within

Key = tuple[str, str, str]  # domain, name, overload


class Functions:
    """The functions that a model brings along, by domain, name and overload."""

    def __init__(self, functions: Iterable[onnx.FunctionProto] = (), limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._extents: dict[Key, _Extent] = {}
        self._nodes = 0
        self._functions: dict[Key, onnx.FunctionProto] = {}
        for function in functions:
            key = (plain_domain(function.domain), function.name, function.overload)
            if key in self._functions:
                raise ModelError(f"the model defines the function {title_of(function)} twice")
            self._functions[key] = function

    def find(self, node: onnx.NodeProto) -> onnx.FunctionProto | None:
        """The function that ``node`` calls; None when it calls none."""
        return self._functions.get(_called(node))

    def expect_modest(self, node: onnx.NodeProto) -> None:
        """Looks at all that the call ``node`` of a function stands for, with the calls within it, before anything of it is read.

        Raises ModelError when that is more nodes, or calls deeper within each other, than the limits allow. A function that
        calls itself is left for who reads it.
        """
        extent = self._extent(_called(node))
        self._check(self._nodes + extent.nodes, extent.depth)

    def count(self, function: onnx.FunctionProto, depth: int) -> None:
        """Counts the nodes of a function that is read, ``depth`` calls deep. Raises ModelError beyond the limits."""
        self._nodes += len(function.node)
        self._check(self._nodes, depth)

    def _check(self, nodes: int, depth: int) -> None:
        if depth > self._limits.of(FUNCTION_DEPTH):
            raise self._limits.refusal(FUNCTION_DEPTH, "functions call each other", depth)
        if nodes > self._limits.of(FUNCTION_NODES):
            raise self._limits.refusal(FUNCTION_NODES, "calls of functions stand for", nodes)

    def _extent(self, key: Key) -> "_Extent":
        """What a call comes to. Not by recursion, which would be as deep as the calls are."""
        pending, begun = [key], set[Key]()
        while pending:
            current = pending[-1]
            if current in self._extents:
                pending.pop()
                continue
            nodes = list(nodes_within(self._functions[current].node))
            called = [k for k in map(_called, nodes) if k in self._functions]
            if current not in begun:
                begun.add(current)
                pending += [k for k in dict.fromkeys(called) if k not in self._extents and k not in begun]
            else:
                inner = [self._extents.get(k, _Extent(0, 0)) for k in called]
                total = len(nodes) + sum(e.nodes for e in inner)
                self._extents[current] = _Extent(total, 1 + max((e.depth for e in inner), default=0))
        return self._extents[key]


@dataclass(frozen=True, slots=True)
class _Extent:
    """What a call of a function comes to: so many nodes, and calls so deep within each other."""

    nodes: int
    depth: int


def _called(node: onnx.NodeProto) -> Key:
    return (plain_domain(node.domain), node.op_type, node.overload)


def plain_domain(domain: str) -> str:
    """``domain`` with ai.onnx under its other name, the empty one."""
    return "" if domain == "ai.onnx" else domain


def title_of(function: onnx.FunctionProto) -> str:
    """A function's name for messages."""
    return f"{plain_domain(function.domain) or 'ai.onnx'}::{function.name}"


def bound_attributes(node: onnx.NodeProto, frame: Frame) -> list[onnx.AttributeProto]:
    """The node's attributes with references to the surrounding function's attributes resolved.

    A reference to an attribute that the call does not give is left out.
    """
    out = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            out.append(attribute)
            continue
        if frame.bindings is None:
            raise ModelError(f"attribute {attribute.name!r} refers to a function's attribute, and no function is around")
        given = frame.bindings.get(attribute.ref_attr_name)
        if given is not None:
            own = onnx.AttributeProto()
            own.CopyFrom(given)
            own.name = attribute.name
            out.append(own)
    return out


def bindings_of(
    function: onnx.FunctionProto, given: Sequence[onnx.AttributeProto], defaults: Mapping[str, onnx.AttributeProto]
) -> dict[str, onnx.AttributeProto]:
    """The attributes of one call by name. Raises ModelError for one that the function does not have."""
    bindings = {**defaults, **{a.name: a for a in function.attribute_proto}}
    known = {*function.attribute, *bindings}
    for attribute in given:
        if attribute.name not in known:
            raise ModelError(f"the function {title_of(function)} has no attribute {attribute.name!r}")
        bindings[attribute.name] = attribute
    return bindings
