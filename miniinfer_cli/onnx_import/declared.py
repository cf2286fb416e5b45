"""What a model declares of its inputs and outputs, in ONNX's own words, before anything is inferred."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from miniinfer_cli.onnx_import.data_files import files_of
from miniinfer_cli.onnx_import.names import as_text
from miniinfer_cli.onnx_import.source import Model, read_source

_FREE_CONSTANTS = 4  # the IR version from which on an input with an initializer may be given at a run


@dataclass(frozen=True, slots=True)
class Declared:
    """An input or output. ``type`` is as ``tensor(float)``, empty where the model has none.

    ``shape`` has sizes, names, and None for a dimension that has neither; it is None where not even the rank is declared.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class Declaration:
    """The inputs that a run has to be given, those that it may be, since an initializer stands for them, and the outputs.

    ``files``: what external data lies in, which need not exist.
    """

    inputs: tuple[Declared, ...]
    overridable: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    files: tuple[Path, ...]
    graph_doc: str


def read_declaration(model: Model) -> Declaration:
    """The declaration of ``model``. Raises UsageError when it cannot be opened, ModelError when it is no ONNX model."""
    proto = read_source(model).model
    graph = proto.graph
    stored = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    given = [_declared(v) for v in graph.input if v.name not in stored]
    initialized = [_declared(v) for v in graph.input if v.name in stored]
    free = proto.ir_version >= _FREE_CONSTANTS
    return Declaration(
        inputs=tuple(given),
        overridable=tuple(initialized) if free else (),
        outputs=tuple(_declared(v) for v in graph.output),
        files=tuple(files_of(proto, Path(model).parent if isinstance(model, (str, Path)) else Path())),
        graph_doc=as_text(graph.doc_string),
    )


def _declared(value: onnx.ValueInfoProto) -> Declared:
    return Declared(value.name, _text(value.type), _shape(value.type))


def _text(type: onnx.TypeProto) -> str:
    match type.WhichOneof("value"):
        case "tensor_type":
            return f"tensor({_element(type.tensor_type.elem_type)})"
        case "sparse_tensor_type":
            return f"sparse_tensor({_element(type.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"seq({_text(type.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_text(type.optional_type.elem_type)})"
        case "map_type":
            return f"map({_element(type.map_type.key_type)},{_text(type.map_type.value_type)})"
        case _:
            return ""


def _element(code: int) -> str:
    known = onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(code)).lower() if code in known else f"type {code}"


def _shape(type: onnx.TypeProto) -> tuple[int | str | None, ...] | None:
    kind = type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return None
    tensor = getattr(type, kind)
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else as_text(d.dim_param) or None for d in tensor.shape.dim)
