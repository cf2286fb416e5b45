"""import_model: an ONNX model as a typed graph of today's operations, or everything that is wrong with it in one error."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import onnx

from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Constant, Graph, TensorType, Type, Value
from miniinfer_cli.limits import Budget, Limits
from miniinfer_cli.onnx_import.asked_names import expect_names, refusal
from miniinfer_cli.onnx_import.converter import Converter, title_of_node
from miniinfer_cli.onnx_import.cutting import cut
from miniinfer_cli.onnx_import.faults import Faults
from miniinfer_cli.onnx_import.frame import FAILED, Frame, Named
from miniinfer_cli.onnx_import.functions import Functions, plain_domain
from miniinfer_cli.onnx_import.names import as_text
from miniinfer_cli.onnx_import.notes import Notes
from miniinfer_cli.onnx_import.schemas import expect_known_opset
from miniinfer_cli.onnx_import.source import Model, Source, read_source
from miniinfer_cli.onnx_import.types import DimNames, OwnDims, read_type
from miniinfer_cli.wording import Wording

_OVERRIDABLE = Wording("overridable", flags="--overridable")

_FREE_CONSTANTS = 4  # the IR version from which on a constant need not be listed among the inputs


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself; texts are empty where it says nothing.

    ``notes``: what is formally wrong with the model but means one thing, and was taken as meant; one line each.
    ``outputs``: the names of the outputs as the model lists them, where it lists one more than once.
    ``constant_inputs``: inputs that have an initializer and were taken as constants.
    """

    name: str
    producer: str
    producer_version: str
    domain: str
    version: int
    doc: str
    ir_version: int
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    constant_inputs: tuple[str, ...] = ()


def import_model(
    model: Model,
    *,
    name: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    mark_outputs: Sequence[str] = (),
    overridable: Collection[str] = (),
    start_at: Sequence[str] = (),
) -> Graph:
    """The graph of ``model``, a path, the bytes of a file, or a ModelProto (which is not changed), with all types inferred.

    ``name``: of the graph, the model's own when left out. ``folder``: where external data is looked for, by default the
    folder of the file. ``mark_outputs``: nodes or values to return as well. ``overridable``: inputs with an initializer,
    which becomes their default; the others with one become constants. ``start_at``: values that become the inputs, as by ``cut``.
    Large constants stay ranges of the files, which must not change while the graph is in use.

    Raises ModelError, which tells all that is wrong with the model, and UsageError for a file that cannot be opened or a
    name that the model does not have.
    """
    return import_with_info(
        model, name=name, folder=folder, mark_outputs=mark_outputs, overridable=overridable, start_at=start_at
    )[0]


def import_with_info(
    model: Model,
    *,
    name: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    mark_outputs: Sequence[str] = (),
    overridable: Collection[str] = (),
    limits: Limits | None = None,
    own_sizes: bool = False,
    start_at: Sequence[str] = (),
) -> tuple[Graph, ModelInfo]:
    """Like ``import_model``, with what the model says of itself. ``limits``: other than the defaults. ``own_sizes``: each input
    has sizes of its own, whatever the model calls them.
    """
    try:
        source = read_source(model, folder)
        if start_at:
            source = replace(source, model=cut(source.model, start_at, mark_outputs))
        return _imported(source, name, mark_outputs, overridable, limits, own_sizes)
    except RecursionError:  # beyond the limits that the caller set, or in a ModelProto, which no parser has bounded
        raise ModelError("functions or sub-graphs are nested deeper within each other than can be read") from None


def _imported(
    source: Source,
    name: str | None,
    mark_outputs: Sequence[str],
    overridable: Collection[str],
    limits: Limits | None,
    own_sizes: bool,
) -> tuple[Graph, ModelInfo]:
    proto = source.model
    graph = Graph(name or proto.graph.name or "main", Budget(limits))
    faults, notes = Faults(), Notes()
    try:
        _expect_known_opsets(proto, faults)
        _read_model(source, graph, faults, notes, mark_outputs, overridable, own_sizes)
        faults.raise_any()
    except ModelError as error:
        raise error.at(source.label) from None
    return graph, _info_of(proto, notes, graph)


def _read_model(
    source: Source,
    graph: Graph,
    faults: Faults,
    notes: Notes,
    mark_outputs: Sequence[str],
    overridable: Collection[str],
    own_sizes: bool,
) -> None:
    proto = source.model
    stored = _initializers(source)
    _expect_overridable(overridable, [v.name for v in proto.graph.input], stored)
    formal = [v for v in proto.graph.input if v.name not in stored or v.name in overridable]
    constants = len(proto.graph.input) - len(formal)
    if constants and proto.ir_version >= _FREE_CONSTANTS:
        one, more = "input has an initializer and is taken as a constant", "inputs have initializers and are taken as constants"
        notes.add(
            f"{constants} {one if constants == 1 else more}; --overridable NAME (overridable=) makes one an input with a default"
        )
    dims = OwnDims(formal) if own_sizes else DimNames(formal)
    frame = Frame(graph, _opsets_of(proto))
    for value in formal:
        try:
            type = read_type(value.type, value.name, dims)
            if not value.name or type is None:
                raise ModelError("it has no type" if value.name else "it has no name")
            if value.name in frame.names:
                raise ModelError("there are two inputs of this name")
            frame.names[value.name] = graph.add_input(value.name, type)
            if value.name in stored:
                graph.defaults[value.name] = _default(stored[value.name](), type)
        except MiniinferError as error:
            frame.names.setdefault(value.name, FAILED)
            faults.add(f"input {value.name!r}", error)
    converter = Converter(source.tensors, dims, Functions(proto.functions, graph.budget.limits), faults, notes)
    outputs = converter.read_graph(proto.graph, frame, "the graph")
    _expect_outputs(proto, outputs, faults, notes)
    marked = _marked(proto.graph, frame, mark_outputs)
    returned = {**{v.name: value for v, value in zip(proto.graph.output, outputs, strict=True)}, **marked}
    values = [v for v in returned.values() if isinstance(v, Value)]
    if len(values) == len(returned):
        graph.set_outputs(values, list(returned))


def _initializers(source: Source) -> dict[str, Callable[[], Constant]]:
    """What reads the initializer of each name."""
    tensors, graph = source.tensors, source.model.graph
    dense = {t.name: functools.partial(tensors.read, t) for t in graph.initializer}
    return dense | {s.values.name: functools.partial(tensors.read_sparse, s) for s in graph.sparse_initializer}


def _expect_overridable(wanted: Collection[str], inputs: Sequence[str], stored: Collection[str]) -> None:
    for name in wanted:
        if name not in inputs and name in stored:
            raise refusal(_OVERRIDABLE, f"{name!r} is an initializer and no input of the model", "list it among the inputs")
    expect_names(_OVERRIDABLE, wanted, inputs)
    for name in wanted:
        if name not in stored:
            raise refusal(_OVERRIDABLE, f"the input {name!r} has no initializer, so it has to be given at every run")


def _default(default: Constant, declared: Type) -> Constant:
    """``default``, which must be of the type that the input is declared of."""
    if isinstance(declared, TensorType) and declared.dtype is default.dtype:
        shape = default.shape if declared.shape is None else declared.shape
        sizes = [n if isinstance(d, int) else d for d, n in zip(shape, default.shape, strict=False)]
        if len(shape) == len(default.shape) and all(d == n for d, n in zip(shape, sizes, strict=True)):
            return default
    raise ModelError(f"it is declared as {declared}, its initializer is {TensorType(default.dtype, default.shape)}")


def _expect_known_opsets(proto: onnx.ModelProto, faults: Faults) -> None:
    for imported in proto.opset_import:
        try:
            expect_known_opset(plain_domain(imported.domain), imported.version)
        except ModelError as error:
            faults.add("", error)
    faults.raise_any()


def _expect_outputs(proto: onnx.ModelProto, outputs: Sequence[Named], faults: Faults, notes: Notes) -> None:
    """Notes outputs that are missing altogether, are there twice, or have another element type than declared."""
    if not proto.graph.output:
        faults.add("the graph", ModelError("it has no outputs"))
    for name, count in Counter(v.name for v in proto.graph.output).items():
        if count > 1:
            notes.add(f"output {name!r} is listed {count} times: a run returns it once")
    for declared, value in zip(proto.graph.output, outputs, strict=True):
        type = _declared_type(declared, faults)
        found = value.type if isinstance(value, Value) else None
        if isinstance(type, TensorType) and isinstance(found, TensorType) and type.dtype is not found.dtype:
            notes.add(
                f"output {declared.name!r} is declared as {type.dtype}, its nodes make {found}: it is taken as they make it"
            )


def _declared_type(declared: onnx.ValueInfoProto, faults: Faults) -> Type | None:
    try:
        return read_type(declared.type, declared.name, DimNames())
    except MiniinferError as error:
        faults.add(f"output {declared.name!r}", error)
        return None


def _marked(graph: onnx.GraphProto, frame: Frame, wanted: Sequence[str]) -> dict[str, Named]:
    """The values to return beside the outputs: those that the nodes of these names make, or that have these names."""
    by_node = {title_of_node(n): [name for name in n.output if name] for n in graph.node}
    values = {name for node in graph.node for name in node.output if name} | {v.name for v in graph.input}
    expect_names("output to mark", wanted, [*by_node, *values])
    names = [name for w in wanted for name in ([w] if w in values else by_node[w])]
    returned = {v.name for v in graph.output}
    return {name: frame.find(name) for name in dict.fromkeys(names) if name not in returned}


def _opsets_of(proto: onnx.ModelProto) -> dict[str, int]:
    """The version of each domain; models from before operator sets had version 1 of ai.onnx."""
    return {plain_domain(o.domain): o.version for o in proto.opset_import} or {"": 1}


def _info_of(proto: onnx.ModelProto, notes: Notes, graph: Graph) -> ModelInfo:
    names = tuple(v.name for v in proto.graph.output)
    return ModelInfo(
        name=proto.graph.name,
        producer=as_text(proto.producer_name),
        producer_version=as_text(proto.producer_version),
        domain=as_text(proto.domain),
        version=proto.model_version,
        doc=as_text(proto.doc_string),
        ir_version=proto.ir_version,
        opsets=_opsets_of(proto),
        metadata={as_text(p.key): as_text(p.value) for p in proto.metadata_props},
        notes=notes.lines(),
        constant_inputs=tuple(v.name for v in proto.graph.input if v.name not in {i.name for i in graph.inputs}),
        outputs=names if len(set(names)) < len(names) else (),
    )
