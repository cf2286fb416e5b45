"""What onnx.defs says of an operator at an opset: its version, and whether a node keeps to its form."""

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.defs

from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import.attributes import kind_of

_TYPE_NAME = onnx.AttributeProto.AttributeType.Name
_SINGLE = onnx.defs.OpSchema.FormalParameterOption.Single


@dataclass(frozen=True)
class Form:
    """An operator's form: version, attributes with their types, required ones, counts of inputs and outputs, required inputs."""

    version: int
    attributes: dict[str, int]
    required: frozenset[str]
    n_inputs: tuple[int, int]
    n_outputs: tuple[int, int]
    single: tuple[int, ...]
    schema: Any

    @property
    def defaults(self) -> dict[str, onnx.AttributeProto]:
        """The attributes that have a default."""
        return {n: a.default_value for n, a in self.schema.attributes.items() if a.default_value.type}


def own_form(version: int, attributes: Mapping[str, int], n_inputs: tuple[int, int], n_outputs: tuple[int, int]) -> Form:
    """The form of an operator that onnx.defs does not have: its attributes with their types, and least and most operands."""
    return Form(version, dict(attributes), frozenset(), n_inputs, n_outputs, (), None)


_MOST = (1 << 31) - 1  # a version in onnx.defs is an int of C


@functools.cache
def form_of(domain: str, op: str, opset: int) -> Form | None:
    """The form of ``op`` in force at ``opset``; None when the domain has no such operator then."""
    if abs(opset) > _MOST:
        return None
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None
    attributes: Any = schema.attributes
    return Form(
        schema.since_version,
        {name: int(a.type) for name, a in attributes.items()},
        frozenset(name for name, a in attributes.items() if a.required),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        tuple(i for i, p in enumerate(schema.inputs) if p.option == _SINGLE),
        schema,
    )


def expect_form(node: onnx.NodeProto, form: Form) -> None:
    """Raises ModelError unless the node's attributes, inputs and outputs are what the operator takes."""
    title = f"{node.op_type}-{form.version}"
    for attribute in node.attribute:
        wanted = form.attributes.get(attribute.name)
        if wanted is None:
            known = ", ".join(sorted(form.attributes)) or "none"
            raise ModelError(f"{title} has no attribute {attribute.name!r}; its attributes: {known}")
        if not attribute.ref_attr_name and kind_of(attribute) != wanted:
            kinds = [_TYPE_NAME(kind) for kind in (wanted, kind_of(attribute))]
            raise ModelError(f"attribute {attribute.name!r} of {title} is of type {kinds[0]}, got {kinds[1]}")
    for name in sorted(form.required.difference(a.name for a in node.attribute)):
        raise ModelError(f"{title} needs the attribute {name!r}")
    for what, names, (low, high) in (("inputs", node.input, form.n_inputs), ("outputs", node.output, form.n_outputs)):
        if not low <= len(names) <= high:
            count = f"{low}" if low == high else f"{low} or more" if high > 1000 else f"{low} to {high}"
            raise ModelError(f"{title} takes {count} {what}, got {len(names)}")
    for index in form.single:
        if not node.input[index]:
            raise ModelError(f"{title} needs input {index} ({form.schema.inputs[index].name})")


@functools.cache
def newest_opset(domain: str) -> int | None:
    """The newest opset of ``domain`` that the onnx package knows; None for a domain that it does not know."""
    if not domain:
        return onnx.defs.onnx_opset_version()
    return max((s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain), default=None)


def expect_known_opset(domain: str, version: int) -> None:
    """Raises ModelError for a version of ``domain`` that is newer than the onnx package knows."""
    newest = newest_opset(domain)
    if newest is not None and version > newest:
        raise ModelError(
            f"opset {version} of {domain or 'ai.onnx'} is newer than {newest}, the newest of onnx",
            hint="upgrade the onnx package, or re-export the model with an older opset",
        )


def unknown(domain: str, op: str, opset: int) -> ModelError:
    """Why ``op`` is not an operator of ``domain`` at ``opset``."""
    title = domain or "ai.onnx"
    try:
        later = onnx.defs.get_schema(op, domain)
    except onnx.defs.SchemaError:
        names = {s.name for s in onnx.defs.get_all_schemas() if s.domain == domain}
        close = difflib.get_close_matches(op, names, 1)
        return ModelError(f"{title} has no operator {op!r}", hint=f"did you mean {close[0]!r}?" if close else "")
    return ModelError(
        f"{op} does not exist in opset {opset} of {title}",
        hint=f"{op} was last changed in opset {later.since_version}: re-export the model with that opset or later",
    )
