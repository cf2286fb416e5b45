"""Plan -> header: the msgpack document that says everything but the weights and the code of kernels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from engine_format.dtypes import DType
from engine_format.errors import PlanError
from engine_format.layout import CHUNK_NBYTES, HEADER_LIMIT, ORIGINS, PREAMBLE, SECTION_ALIGNMENT, SIGNATURES, weights_start
from engine_format.plan import Plan
from engine_format.records import ArrayRecord, GraphRecord, MapSpec, OptionalSpec, SequenceSpec, TensorSpec, TypeSpec
from engine_format.tactic_records import encoded_gpu, encoded_record
from engine_format.targets import Tactic, TargetSection


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the weights and kernels of a plan lie.

    ``index`` maps each tensor of the plan to its number in the file; tensors with the same contents share one.
    ``kept`` are the tensors of the plan that are in the file, in order, and ``offsets`` where each begins.
    ``kernels`` has offset and digest of each kernel, over all target sections in order.
    """

    index: tuple[int, ...]
    kept: tuple[int, ...]
    offsets: tuple[int, ...]
    weights_nbytes: int
    digests: bytes
    kernels: tuple[tuple[int, bytes], ...]


def format_of(plan: Plan) -> int:
    """The oldest format that can hold ``plan``: of format 2 are tactic records, and the smaller or larger of two sizes."""
    if any(t.is_tuned for t in plan.targets):
        return 2
    return 2 if any("min(" in d or "max(" in d for d in _dims_of(plan.graph) if isinstance(d, str)) else 1


def encode_header(plan: Plan, placement: Placement, start: int | None = None) -> bytes:
    """The header of ``plan``. With ``start`` it is filled up so that the weights begin at that byte of the file.

    Raises PlanError when the plan holds what no header can.
    """
    try:
        document = _Encoder(placement).document(plan)
        header: bytes = msgpack.packb(document, use_bin_type=True)
        if start is not None:
            missing = start - SECTION_ALIGNMENT + 1 - PREAMBLE.size - len(header)
            if missing > 0:
                header = msgpack.packb({**document, "pad": bytes(missing)}, use_bin_type=True)
            if weights_start(len(header)) != start:
                raise ValueError(f"a header of {len(header)} bytes cannot put the weights at {start}")
    except RecursionError:
        raise PlanError("the plan is nested too deeply") from None
    except UnicodeEncodeError as error:
        raise PlanError(f"a text in the plan is not Unicode: {error.object[:40]!r}") from None
    except (TypeError, OverflowError) as error:
        raise PlanError(f"the plan holds something that a file cannot: {error}") from None
    if len(header) > HEADER_LIMIT:
        raise PlanError(f"the header takes {len(header)} bytes, and at most {HEADER_LIMIT} are allowed")
    return header


def _dims_of(graph: GraphRecord) -> Iterator[int | str]:
    """Every dimension of a type in ``graph``, in the attributes and inner graphs of its nodes, too."""
    for value in graph.values:
        yield from _dims_in(value.type)
    for node in graph.nodes:
        for attribute in node.attrs.values():
            for item in attribute if isinstance(attribute, tuple) else (attribute,):
                yield from _dims_in(item)
        for inner in (*node.graphs.values(), *(() if node.body is None else (node.body,))):
            yield from _dims_of(inner)


def _dims_in(spec: Any) -> Iterator[int | str]:
    match spec:
        case TensorSpec():
            yield from spec.dims or ()
        case SequenceSpec() | OptionalSpec() | MapSpec():
            yield from _dims_in(spec.element)


class _Encoder:
    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._types: dict[TypeSpec, int] = {}

    def document(self, plan: Plan) -> dict[str, Any]:
        place = self._placement
        graph = self.graph(plan.graph)
        kernels = iter(place.kernels)
        return {
            "producer": plan.report.producer,
            "op_sets": dict(plan.op_sets),
            "types": [self.type(t) for t in self._types],
            "tensors": [self.tensor(plan.tensors[t], o) for t, o in zip(place.kept, place.offsets, strict=True)],
            "weights": [place.weights_nbytes, CHUNK_NBYTES, place.digests],
            "graph": graph,
            "ranges": [[r.name, r.minimum, r.optimum, r.maximum] for r in plan.ranges],
            "options": _plain({**plan.report.options, **_signatures(plan.targets), **_origins(plan.graph)}),
            "metadata": _plain(plan.report.metadata),
            "passes": dict(plan.report.passes),
            "targets": [section_record(t, kernels) for t in plan.targets],
            "pad": b"",
        }

    def graph(self, graph: GraphRecord) -> list[Any]:
        types, index = self._types, self._placement.index
        values: list[list[Any]] = []
        for value in graph.values:
            if value.tensor is not None:
                values.append([value.name, None, index[value.tensor] if 0 <= value.tensor < len(index) else value.tensor])
            else:
                values.append([value.name, None if value.type is None else types.setdefault(value.type, len(types)), None])
        nodes: list[list[Any]] = [
            [
                node.op, node.domain, node.name, list(node.inputs), list(node.outputs),
                {k: self.attribute(v) for k, v in node.attrs.items()},
                {k: self.graph(g) for k, g in node.graphs.items()},
                None if node.body is None else self.graph(node.body),
            ]
            for node in graph.nodes
        ]  # fmt: skip
        return [graph.name, values, list(graph.inputs), list(graph.outputs), list(graph.output_names), nodes]

    def type(self, spec: TypeSpec | None) -> list[Any] | None:
        match spec:
            case None:
                return None
            case TensorSpec():
                return ["tensor", spec.dtype.value, None if spec.dims is None else list(spec.dims)]
            case SequenceSpec():
                return ["sequence", self.type(spec.element)]
            case OptionalSpec():
                return ["optional", self.type(spec.element)]
            case MapSpec():
                return ["map", spec.key.value, self.type(spec.element)]

    def attribute(self, value: Any) -> Any:
        match value:
            case tuple():
                return [self.attribute(v) for v in value]
            case ArrayRecord():
                data = list(value.data) if value.dtype is DType.STR else value.data
                return {"array": [value.dtype.value, list(value.shape), data]}
            case TensorSpec() | SequenceSpec() | OptionalSpec() | MapSpec():
                return {"type": self.type(value)}
        return value

    def tensor(self, tensor: Any, offset: int) -> list[Any]:
        if tensor.dtype is DType.STR:
            return ["str", list(tensor.shape), offset, list(tensor.data)]
        return [tensor.dtype.value, list(tensor.shape), offset, None]


def section_record(section: TargetSection, places: Iterable[tuple[int, bytes]]) -> list[Any]:
    """A target section as files have it; ``places`` has offset and digest of each of its kernels."""
    kernels = [[k.name, k.source, offset, k.nbytes, digest] for k, (offset, digest) in zip(section.kernels, places, strict=False)]
    record: list[Any] = [section.arch, dict(section.libraries), [tactic_record(t) for t in section.tactics], kernels]
    if section.is_tuned:
        record += [encoded_gpu(section.gpu), [encoded_record(r) for r in section.records]]
    return record


def tactic_record(tactic: Tactic) -> list[Any]:
    """A tactic as the header has it."""
    t = tactic
    return [
        t.signature, [list(s) for s in t.shapes], t.kind.value, t.name, t.kernel, dict(t.parameters), t.algorithm,
        t.engine, dict(t.knobs), t.workspace_nbytes, t.time_us,
    ]  # fmt: skip


def _signatures(targets: Sequence[TargetSection]) -> dict[str, Any]:
    """They stand among the options, where releases that do not know them pass over them."""
    return {SIGNATURES: [t.signature for t in targets]} if any(t.signature for t in targets) else {}


def _origins(graph: GraphRecord) -> dict[str, Any]:
    """They stand there, too; nowhere, where each node is called as the one that it came from."""
    found = [list(origins) or None for origins in _origins_within(graph)]
    return {ORIGINS: found} if any(found) else {}


def _origins_within(graph: GraphRecord) -> Iterator[tuple[str, ...]]:
    """Those of each node, and behind it those of the graphs in it; not of bodies."""
    for node in graph.nodes:
        yield node.origins
        for inner in node.graphs.values():
            yield from _origins_within(inner)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
