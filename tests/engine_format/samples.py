"""A small plan that uses every part of the format, and tools to take its file apart and put it together again, broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack

from engine_format import (
    ArrayRecord,
    BuildReport,
    DimensionRange,
    DType,
    GraphRecord,
    MapSpec,
    NodeRecord,
    OptionalSpec,
    Plan,
    RecordChooser,
    SequenceSpec,
    StoredKernel,
    Tactic,
    TacticKind,
    TacticRecord,
    TargetGpu,
    TargetSection,
    TensorSpec,
    ValueRecord,
    write_plan,
)
from engine_format.layout import PREAMBLE, digest, weights_start

F32 = TensorSpec(DType.F32, ("batch", 4))


@dataclass(frozen=True)
class Generated:
    """A tensor of bytes that are made when they are asked for, in pieces of ``piece``; never all at once."""

    nbytes: int
    piece: int = 1 << 20
    first: int = 0

    @property
    def dtype(self) -> DType:
        return DType.U8

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.nbytes,)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self.nbytes, self.piece):
            yield bytes([(self.first + start // self.piece) % 251]) * min(self.piece, self.nbytes - start)


def tensor(values: bytes, *shape: int, dtype: DType = DType.U8) -> ArrayRecord:
    return ArrayRecord(dtype, shape, values)


def constants_plan(*tensors: Any) -> Plan:
    """A plan that returns its tensors, each once."""
    values = tuple(ValueRecord(f"c{i}", TensorSpec(t.dtype, t.shape), i) for i, t in enumerate(tensors))
    indices = tuple(range(len(values)))
    return Plan(GraphRecord("main", values, (), indices, tuple(v.name for v in values), ()), tensors)


def inner_graph(name: str) -> GraphRecord:
    values = (ValueRecord("a", F32), ValueRecord("w", TensorSpec(DType.F32, (4,)), 0), ValueRecord("b", F32))
    nodes = (NodeRecord("Add", "", "add", (0, 1), (2,)),)
    return GraphRecord(name, values, (0,), (2,), ("b",), nodes)


def rich_plan() -> Plan:
    """Every kind of type, attribute, constant and section; two target sections with three kernels."""
    strings = ArrayRecord(DType.STR, (2, 1), ("käse", ""))
    values = (
        ValueRecord("x", F32),
        ValueRecord("flag", TensorSpec(DType.BOOL, ())),
        ValueRecord("list", SequenceSpec(OptionalSpec(TensorSpec(DType.I64, None)))),
        ValueRecord("dictionary", MapSpec(DType.STR, SequenceSpec(None))),
        ValueRecord("w", TensorSpec(DType.F32, (4,)), 0),
        ValueRecord("packed", TensorSpec(DType.I4, (3,)), 1),
        ValueRecord("words", TensorSpec(DType.STR, (2, 1)), 2),
        ValueRecord("none", TensorSpec(DType.F16, (0, 7)), 3),
        ValueRecord("r", F32),
        ValueRecord("y", F32),
        ValueRecord("z", TensorSpec(DType.F32, ("2*batch+1", "?z.1"))),
        ValueRecord("untyped", None),
    )
    attrs: dict[str, Any] = {
        "axis": -1, "big": 2**63 - 1, "small": -(2**63), "epsilon": 1e-5, "infinite": float("inf"), "mode": "linear",
        "raw": b"\x00\xff", "on": True, "absent": None, "perm": (1, 0), "scales": (0.5, 2.0), "names": ("a", "b"), "empty": (),
        "value": ArrayRecord(DType.BF16, (2,), b"\x80\x3f\x00\x40"), "words": ArrayRecord(DType.STR, (1,), ("w",)),
        "type": OptionalSpec(F32), "mixed": (ArrayRecord(DType.BOOL, (), b"\x01"), TensorSpec(DType.U8, (1,))),
    }  # fmt: skip
    nodes = (
        NodeRecord("FusedPointwise", "miniinfer", "region", (0,), (8,), body=inner_graph("body")),
        NodeRecord(
            "If",
            "",
            "choice",
            (1, None, 8, 4),
            (9, 10),
            graphs={"then_branch": inner_graph("t"), "else_branch": inner_graph("e")},
        ),
        NodeRecord("Custom", "acme", "node", (9, 2, 3, 5, 6, 7), (11,), attrs),
    )
    graph = GraphRecord("main", values, (0, 1, 2, 3), (9, 9, 10, 11), ("y", "again", "z", "u"), nodes)
    section = TargetSection(
        "sm_90a",
        {"cublaslt": "13.1.0", "cudnn": "9.19.0"},
        (
            Tactic("Add f32", ((2, 4), (4,)), TacticKind.KERNEL, "add_v4", 1, {"tile": 64}, time_us=2.5),
            Tactic("MatMul f16", ((2, 4), (4, 8)), TacticKind.CUBLASLT, algorithm=bytes(range(64)), workspace_nbytes=1 << 20),
            Tactic("Conv f16", (), TacticKind.CUDNN, "eng34", engine=34, knobs={"TILE_SIZE": 3, "SPLIT_K": -1}),
        ),
        (StoredKernel("mul", "0123", b"\x7fELF" * 100), StoredKernel("add", "4567", b"")),
    )
    return Plan(
        graph,
        (tensor(bytes(range(16)), 4, dtype=DType.F32), tensor(b"\x21\x03", 3, dtype=DType.I4), strings,
         tensor(b"", 0, 7, dtype=DType.F16)),
        {"ai.onnx": 24, "acme": 3, "miniinfer": 1},
        (DimensionRange("batch", 1, 8, 64),),
        BuildReport("miniinfer 9.9", {"opt_level": 2, "shapes": {"x": (1, 2)}}, {"name": "model"}, {"fold_constants": 3}),
        (section, TargetSection("sm_80", kernels=(StoredKernel("k", "89", b"k"),))),
    )  # fmt: skip


def chosen_size_plan() -> Plan:
    """A plan of format 2: the smaller of two sizes in a type, in one of an inner graph, and in an attribute."""
    plan = rich_plan()
    least = TensorSpec(DType.F32, ("min(batch,8)", "max(0,batch-2)+1"))
    graph = replace(plan.graph, values=(*plan.graph.values[:-2], ValueRecord("z", least), plan.graph.values[-1]))
    return replace(plan, graph=graph, ranges=(DimensionRange("batch", 1, 1, 2**63 - 1),))


def tuned_section() -> TargetSection:
    """Records of every kind for one GPU."""
    return TargetSection(
        "sm_90",
        {"cublaslt": "13.1.0"},
        kernels=(StoredKernel("mul", "0123", b"\x7fELF"), StoredKernel("add", "4567", b"")),
        gpu=TargetGpu("NVIDIA H200", 132, 60 << 20),
        records=(
            TacticRecord("Add f32", "rows", "0123", kernels=(1, 0), time_us=2.5, claims=2),
            TacticRecord("MatMul f16", "cublaslt", "cublaslt 13.1.0", {"algorithm": bytes(range(64))}, 1 << 20, time_us=0.0),
            TacticRecord(
                "Conv f16", "cudnn", "cudnn 9.19", {"engine": 34, "knobs": {"TILE_SIZE": 3, "SPLIT_K": -1}, "name": "e"}
            ),
            TacticRecord("Conv f32", "direct", "ab", chosen_by=RecordChooser.HEURISTIC),
        ),
    )


def tuned_plan() -> Plan:
    """A plan of format 2: a section with tactic records before others."""
    plan = rich_plan()
    return replace(plan, targets=(tuned_section(), *plan.targets))


def file_bytes(plan: Plan, folder: Path) -> bytes:
    """The bytes that ``plan`` is written as."""
    write_plan(plan, folder / "sample.plan")
    return (folder / "sample.plan").read_bytes()


def header_of(data: bytes) -> bytes:
    length = PREAMBLE.unpack_from(data)[3]
    return data[PREAMBLE.size : PREAMBLE.size + length]


def document_of(data: bytes) -> dict[str, Any]:
    """The header of a sound file as plain lists and dicts."""
    return msgpack.unpackb(header_of(data))


def with_header(data: bytes, header: bytes) -> bytes:
    """The file with another header: length and digest are right, and everything behind it is where it has to be."""
    magic, version, zero, length, _ = PREAMBLE.unpack_from(data)
    preamble = PREAMBLE.pack(magic, version, zero, len(header), digest(header))
    return (preamble + header).ljust(weights_start(len(header)), b"\0") + data[weights_start(length) :]


def edited(data: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with a header that ``edit`` has changed in place."""
    document = document_of(data)
    edit(document)
    return with_header(data, msgpack.packb(document))
