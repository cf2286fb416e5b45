"""The functions of a model, and attributes of a function's call put in the place of the references to them."""

from collections.abc import Iterable, Mapping, Sequence

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import.frame import Frame

Key = tuple[str, str, str]  # domain, name, overload


class Functions:
    """The functions that a model brings along, by domain, name and overload."""

    def __init__(self, functions: Iterable[onnx.FunctionProto] = ()) -> None:
        self._functions: dict[Key, onnx.FunctionProto] = {}
        for function in functions:
            key = (plain_domain(function.domain), function.name, function.overload)
            if key in self._functions:
                raise ModelError(f"the model defines the function {title_of(function)} twice")
            self._functions[key] = function

    def find(self, node: onnx.NodeProto) -> onnx.FunctionProto | None:
        """The function that ``node`` calls; None when it calls none."""
        return self._functions.get((plain_domain(node.domain), node.op_type, node.overload))


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
