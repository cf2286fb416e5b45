"""Header -> the records of a plan. Every rule of the format that a header alone can break is checked here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine_format import fields
from engine_format.decode_graph import GraphDecoder, strings
from engine_format.dtypes import DType
from engine_format.errors import PlanError
from engine_format.layout import (
    CHUNK_NBYTES,
    DIGEST_NBYTES,
    FORMAT_VERSION,
    ITEM_ALIGNMENT,
    MAX_INT,
    OP_SETS,
    ORIGINS,
    SIGNATURES,
    align,
    chunk_count,
)
from engine_format.records import BuildReport, DimensionRange, GraphRecord, TensorSpec
from engine_format.strict import Fault, NotMsgpack, locate, parse
from engine_format.tactic_records import decoded_gpu, decoded_record
from engine_format.targets import Tactic, TacticKind, TacticRecord, TargetGpu

_KEYS = (
    "producer", "op_sets", "types", "tensors", "weights", "graph", "ranges", "options", "metadata", "passes", "targets", "pad",
)  # fmt: skip
_KINDS = {k.value: k for k in TacticKind}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the file. ``offset`` counts from the start of the weights; ``strings`` is set for ``str`` only."""

    dtype: DType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    strings: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """The code of a kernel. ``offset`` counts from the end of the weights."""

    name: str
    source: str
    offset: int
    nbytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """A target section whose kernels are places in the file."""

    arch: str
    libraries: Mapping[str, str]
    tactics: tuple[Tactic, ...]
    kernels: tuple[KernelEntry, ...]
    signature: str = ""
    gpu: TargetGpu | None = None
    records: tuple[TacticRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says, sound in itself. ``kernels_nbytes`` counts the zeros that fill up each kernel."""

    op_sets: Mapping[str, int]
    tensors: tuple[TensorEntry, ...]
    weights_nbytes: int
    digests: bytes
    graph: GraphRecord
    ranges: tuple[DimensionRange, ...]
    report: BuildReport
    targets: tuple[TargetEntry, ...]
    kernels_nbytes: int


def decode_header(header: Any, offset: int = 0, version: int = FORMAT_VERSION) -> Header:
    """The records in the bytes of a header that begins at byte ``offset`` of a file of format ``version``. Raises PlanError."""
    try:
        return _document(parse(header), version)
    except NotMsgpack as error:
        raise PlanError(error.message, offset=offset + error.offset) from None
    except Fault as fault:
        raise PlanError(fault.message, offset=offset + locate(header, fault.path), hint=fault.hint) from None


def _document(document: Any, version: int) -> Header:
    if type(document) is not dict:
        raise fields.unexpected("a map", document)
    for key in document:
        if key not in _KEYS:
            raise Fault(f"unknown key {key[:40]!r}", key)
    for key in _KEYS:
        if key not in document:
            raise Fault(f"the key {key!r} is missing")
    op_sets = _op_sets(document["op_sets"])
    types = fields.sequence(document["types"], fields.type_spec, "types")
    tensors, end = _tensors(document["tensors"])
    weights_nbytes, digests = _weights(document["weights"], end)
    origins = _origins(document["options"])
    decoder = GraphDecoder(types, [TensorSpec(t.dtype, t.shape) for t in tensors], origins)
    try:
        graph = decoder.graph(document["graph"])
    except Fault as fault:
        fault.under("graph")
        raise
    for domain in sorted(decoder.domains):
        if (domain or "ai.onnx") not in op_sets:
            raise Fault(f"nodes of domain {domain or 'ai.onnx'!r} have no operator set", "op_sets")
    if origins and decoder.listed != len(origins):
        raise Fault(f"{len(origins)} origins for {decoder.listed} nodes", "options", ORIGINS)
    ranges = fields.sequence(document["ranges"], _range, "ranges")
    if len({r.name for r in ranges}) != len(ranges):
        raise Fault("two ranges have the same name", "ranges")
    options = dict(fields.plain_mapping(document["options"], "options"))
    options.pop(ORIGINS, None)
    signatures = _signatures(document) if options.pop(SIGNATURES, None) is not None else ()
    report = BuildReport(
        fields.text(document["producer"], "producer"),
        options,
        fields.plain_mapping(document["metadata"], "metadata"),
        fields.mapping(document["passes"], fields.size, "passes"),
    )
    kernels = SectionDecoder(version)
    targets = fields.sequence(document["targets"], kernels.target, "targets")
    if signatures:
        targets = tuple(replace(t, signature=s) for t, s in zip(targets, signatures, strict=True))
    pad = fields.binary(document["pad"], None, "pad")
    if pad.count(0) != len(pad):
        raise Fault("the padding must be zeros", "pad")
    return Header(op_sets, tensors, weights_nbytes, digests, graph, ranges, report, targets, kernels.end)


def _op_sets(raw: Any) -> dict[str, int]:
    versions = fields.mapping(raw, lambda v: fields.integer(v, 1, MAX_INT), "op_sets")
    newer = [f"{d} {v} (this release reads up to {OP_SETS[d]})" for d, v in versions.items() if v > OP_SETS.get(d, v)]
    if newer:
        raise Fault(
            f"the plan uses newer operator sets: {', '.join(newer)}", "op_sets", hint="upgrade miniinfer, or build the plan again"
        )
    return versions


def _tensors(raw: Any) -> tuple[tuple[TensorEntry, ...], int]:
    end = 0

    def entry(item: Any) -> TensorEntry:
        nonlocal end
        raw_dtype, raw_shape, offset, items = fields.fields(item, "a tensor", 4)
        dtype = fields.dtype(raw_dtype, 0)
        shape = fields.shape(raw_shape, dtype, 1)
        if dtype is not DType.STR and items is not None:
            raise fields.unexpected("nil, as only a tensor of strings has its contents here", items, 3)
        count = 1
        for dim in shape:
            count *= dim
        nbytes = dtype.nbytes(count)
        if fields.integer(offset, 0, MAX_INT, 2) != end:
            raise Fault(f"the tensor begins at {offset} of the weights, the one before it ends at {end}", 2)
        end = align(end + nbytes, ITEM_ALIGNMENT)
        return TensorEntry(dtype, shape, offset, nbytes, strings(items, shape, 3) if dtype is DType.STR else None)

    return fields.sequence(raw, entry, "tensors"), end


def _weights(raw: Any, end: int) -> tuple[int, bytes]:
    try:
        nbytes, chunk_nbytes, digests = fields.fields(raw, "weights", 3)
        if fields.integer(nbytes, 0, MAX_INT, 0) != end:
            raise Fault(f"the weights take {nbytes} bytes, their tensors {end}", 0)
        if fields.integer(chunk_nbytes, 0, MAX_INT, 1) != CHUNK_NBYTES:
            raise Fault(f"a digest stands for {chunk_nbytes} bytes, not {CHUNK_NBYTES}", 1)
        return nbytes, fields.binary(digests, chunk_count(end) * DIGEST_NBYTES, 2)
    except Fault as fault:
        fault.under("weights")
        raise


def _signatures(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the target sections, in order."""
    found = fields.sequence(document["options"][SIGNATURES], fields.text, "options", SIGNATURES)
    targets = document["targets"]
    if type(targets) is list and len(found) != len(targets):
        raise Fault(f"{len(found)} signatures for {len(targets)} target sections", "options", SIGNATURES)
    return found


def _origins(options: Any) -> tuple[tuple[str, ...], ...]:
    """Those of each node; none where the file does not tell."""
    if type(options) is not dict or options.get(ORIGINS) is None:
        return ()
    return fields.sequence(options[ORIGINS], _names, "options", ORIGINS)


def _names(raw: Any) -> tuple[str, ...]:
    return () if raw is None else fields.sequence(raw, fields.text)


def _range(raw: Any) -> DimensionRange:
    name, low, best, high = fields.fields(raw, "a range", 4)
    for i, bound in enumerate((low, best, high), 1):
        fields.integer(bound, 0, MAX_INT, i)
    if not low <= best <= high:
        raise Fault(f"{low} (min), {best} (opt), {high} (max) are not in order")
    return DimensionRange(fields.text(name, 0), low, best, high)


class SectionDecoder:
    """Decodes the target sections of a file of format ``version``; ``end`` is where the next kernel must begin."""

    def __init__(self, version: int) -> None:
        self.end = 0
        self._version = version

    def target(self, raw: Any) -> TargetEntry:
        """One section, behind those that were decoded before. Raises Fault."""
        tuned = self._version >= 2 and type(raw) is list and len(raw) > 4  # of format 2 there are both kinds
        section = fields.fields(raw, "a target section", 6 if tuned else 4)
        arch, libraries, raw_tactics, raw_kernels = section[:4]
        kernels = fields.sequence(raw_kernels, self._kernel, 3)
        tactics = fields.sequence(raw_tactics, lambda t: _tactic(t, len(kernels)), 2)
        entry = TargetEntry(fields.text(arch, 0), fields.mapping(libraries, fields.text, 1), tactics, kernels)
        return self._tuned(entry, *section[4:]) if tuned else entry

    def _tuned(self, entry: TargetEntry, raw_gpu: Any, raw_records: Any) -> TargetEntry:
        try:
            gpu = decoded_gpu(raw_gpu)
        except Fault as fault:
            fault.under(4)
            raise
        records = fields.sequence(raw_records, lambda r: decoded_record(r, len(entry.kernels)), 5)
        if len({r.signature for r in records}) != len(records):
            raise Fault("two tactic records have the same signature", 5)
        if records and gpu is None:
            raise Fault("there are tactic records, and no GPU that they are for", 4)
        return replace(entry, gpu=gpu, records=records)

    def _kernel(self, raw: Any) -> KernelEntry:
        name, source, offset, nbytes, digest = fields.fields(raw, "a kernel", 5)
        if fields.integer(offset, 0, MAX_INT, 2) != self.end:
            raise Fault(f"the kernel begins at {offset} of the kernels, the one before it ends at {self.end}", 2)
        self.end = align(offset + fields.integer(nbytes, 0, MAX_INT, 3), ITEM_ALIGNMENT)
        return KernelEntry(fields.text(name, 0), fields.text(source, 1), offset, nbytes, fields.binary(digest, DIGEST_NBYTES, 4))


def _tactic(raw: Any, kernels: int) -> Tactic:
    signature, shapes, kind, name, kernel, parameters, algorithm, engine, knobs, workspace, time = fields.fields(
        raw, "a tactic", 11
    )
    if type(kind) is not str or kind not in _KINDS:
        raise fields.unexpected(f"one of {', '.join(_KINDS)}", kind, 2)
    if time is not None and (type(time) is not float or not 0 <= time < float("inf")):
        raise fields.unexpected("a time in microseconds", time, 10)
    return Tactic(
        fields.text(signature, 0),
        fields.sequence(shapes, lambda s: fields.sequence(s, fields.size), 1),
        _KINDS[kind],
        fields.text(name, 3),
        None if kernel is None else fields.integer(kernel, 0, kernels - 1, 4),
        fields.mapping(parameters, fields.number, 5),
        fields.binary(algorithm, None, 6),
        None if engine is None else fields.integer(engine, 0, MAX_INT, 7),
        fields.mapping(knobs, fields.number, 8),
        fields.integer(workspace, 0, MAX_INT, 9),
        time,
    )
