"""The output types of operators that run on the host: by onnx's own rule, and by one here where onnx has none.

What the model declares is a claim. It stands for an element type where nothing else tells one, never for a size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.shape_inference

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Shape, TensorType, Type
from miniinfer_cli.onnx_import.call import Origin
from miniinfer_cli.onnx_import.schemas import Form, form_of
from miniinfer_cli.onnx_import.types import InferredDims, read_type, type_proto
from miniinfer_cli.ops import UNKNOWN

_ShapeRule = Callable[[Sequence[TensorType], Mapping[str, Any]], Shape | None]


def host_output_types(
    node: onnx.NodeProto, domain: str, origin: Origin, attrs: Mapping[str, Any], input_types: Sequence[Type | None]
) -> list[Type | None]:
    """The types of the outputs of ``node``, whose tensors are all there. Raises ModelError for what onnx refuses."""
    form = form_of(domain, node.op_type, origin.opsets[domain])
    given = [(name, t) for name, t in zip(node.input, input_types, strict=False) if name]
    found: dict[str, Type | None] = {}
    if form is not None and all(t is not None for _, t in given):
        found = _by_onnx(node, form, given, origin.opsets)
    shape_rule = _SHAPES.get((domain, node.op_type))
    tensors = [t for _, t in given if isinstance(t, TensorType)]
    if shape_rule is not None and len(tensors) == len(given):
        first = node.output[0]
        type = found.get(first) or _declared(first, origin) or tensors[0]
        if isinstance(type, TensorType) and type.shape is None:
            found[first] = TensorType(type.dtype, _named(shape_rule(tensors, attrs), first))
    return [found.get(name) or _declared(name, origin) for name in node.output]


def _by_onnx(
    node: onnx.NodeProto, form: Form, given: Sequence[tuple[str, Type | None]], opsets: Mapping[str, int]
) -> dict[str, Type | None]:
    whole = onnx.NodeProto()
    whole.CopyFrom(node)
    if not node.domain:  # onnx's rule of STFT takes an absent attribute for 0, whatever its default is
        whole.attribute.extend(d for name, d in form.defaults.items() if name not in {a.name for a in node.attribute})
    contents = {name: t.concrete for name, t in given if isinstance(t, TensorType)}
    # No rule looks into strings, and those that are no UTF-8 cannot be told.
    data = {n: onnx.numpy_helper.from_array(c) for n, c in contents.items() if c is not None and c.dtype != object}
    imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]

    def infer(types: Mapping[str, Type | None]) -> dict[str, Type | None]:
        protos = {name: type_proto(t) for name, t in types.items()}
        found = onnx.shape_inference.infer_node_outputs(form.schema, whole, protos, data, opset_imports=imports)
        return {name: read_type(proto, name, InferredDims()) for name, proto in found.items()}

    try:
        try:
            return infer(dict(given))
        except onnx.shape_inference.InferenceError:
            # A rule may want an axis to be 1 and object to one with a name.
            if all(t.is_static for _, t in given if isinstance(t, TensorType)):
                raise
            return infer({n: t if isinstance(t, TensorType) and t.is_static else _without_shape(t) for n, t in given})
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        # RuntimeError: more outputs than the schema has, and whatever else a rule's own code throws
        raise ModelError(" ".join(str(error).split())) from None
    except (IndexError, OverflowError):  # of containers and numbers in that code, which say nothing of the node
        told = ", ".join("nothing known" if t is None else str(t) for _, t in given)
        raise ModelError(f"{node.op_type} cannot take inputs of these shapes: {told}") from None


def _declared(name: str, origin: Origin) -> Type | None:
    """The type that the model declares for a value, with no shape."""
    proto = origin.declared.get(name)
    return None if proto is None else _without_shape(read_type(proto, name, InferredDims()))


def _without_shape(type: Type | None) -> Type | None:
    if isinstance(type, TensorType):
        return TensorType(type.dtype)
    return type if type is None else replace(type, element=_without_shape(type.element))


# -- shapes that onnx does not tell --------------------------------------------------------------------------------------


def _named(shape: Shape | None, name: str) -> Shape | None:
    """``shape`` with a name for each size that cannot be told."""
    dims = InferredDims()
    return None if shape is None else tuple(dims.missing(name, i) if d == UNKNOWN else d for i, d in enumerate(shape))


def _as_input(inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Shape | None:
    return inputs[0].shape


def _scaler(inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Shape | None:
    """That of the input, whose last axis offset and scale broadcast along: they may make it longer."""
    shape = inputs[0].shape
    fits = shape and all(len(attrs.get(name, (0,))) in (1, shape[-1]) for name in ("offset", "scale"))
    return shape if fits else None


def _rows_of(columns: Callable[[Mapping[str, Any]], int]) -> _ShapeRule:
    """One row of so many columns for each row of a matrix."""

    def rule(inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Shape | None:
        shape = inputs[0].shape
        return (shape[0], columns(attrs)) if shape is not None and len(shape) == 2 else None

    return rule


def _of_rank(rank: int) -> _ShapeRule:
    return lambda inputs, attrs: (UNKNOWN,) * rank


def _spectrum(inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Shape | None:
    shape = inputs[0].shape
    return None if shape is None else (UNKNOWN,) * len(shape)


_SHAPES: dict[tuple[str, str], _ShapeRule] = {
    ("", "BlackmanWindow"): _of_rank(1),
    ("", "DFT"): _spectrum,
    ("", "HammingWindow"): _of_rank(1),
    ("", "HannWindow"): _of_rank(1),
    ("", "MelWeightMatrix"): _of_rank(2),
    ("", "STFT"): _of_rank(4),
    ("ai.onnx.ml", "FeatureVectorizer"): _rows_of(lambda attrs: sum(attrs.get("inputdimensions", ()))),
    ("ai.onnx.ml", "Imputer"): _as_input,
    ("ai.onnx.ml", "LinearRegressor"): _rows_of(lambda attrs: int(attrs.get("targets", 1))),
    ("ai.onnx.ml", "Normalizer"): _as_input,
    ("ai.onnx.ml", "SVMRegressor"): _rows_of(lambda attrs: 1),
    ("ai.onnx.ml", "Scaler"): _scaler,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): _rows_of(lambda attrs: int(attrs.get("n_targets", 1))),
}
