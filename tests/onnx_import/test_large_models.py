"""Models larger than protobuf takes and larger than memory: nothing large is read. The files are sparse."""

import re
import time
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from miniinfer_cli.ir import Graph
from miniinfer_cli.ir.constants import MappedConstant
from miniinfer_cli.onnx_import import import_model
from tests.onnx_import.models import F32, model

N = 8192
NBYTES = 4 * N * N  # 256 MiB each


def _anonymous_mib() -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) >> 10


def _layers(count: int) -> bytes:
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(count)]
    proto = model(nodes, {"h0": (F32, ["batch", N])}, {f"h{count}": (F32, ["batch", N])})
    return proto.SerializeToString()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _expect_cheap_import(path: Path, count: int) -> Graph:
    before, start = _anonymous_mib(), time.perf_counter()
    graph = import_model(path)
    assert time.perf_counter() - start < 1
    assert _anonymous_mib() - before < 64
    handles = [node.inputs[1].constant for node in graph]
    assert [h.nbytes for h in handles if isinstance(h, MappedConstant)] == [NBYTES] * count
    return graph


def test_three_gigabytes_of_external_data(tmp_path: Path) -> None:
    proto = onnx.ModelProto.FromString(_layers(12))
    for i in range(12):
        tensor = proto.graph.initializer.add(name=f"w{i}", data_type=1, dims=[N, N], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights.bin")
        tensor.external_data.add(key="offset", value=str(i * NBYTES))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(12 * NBYTES)
    _expect_cheap_import(path, 12)


def test_a_file_beyond_two_gigabytes(tmp_path: Path) -> None:
    # Written by hand, field by field: protobuf cannot hold it.
    proto = onnx.ModelProto.FromString(_layers(9))
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    heads = []
    for i in range(9):
        fields = TensorProto(name=f"w{i}", data_type=1, dims=[N, N]).SerializeToString()
        raw = b"\x4a" + _varint(NBYTES)  # raw_data
        heads.append(b"\x2a" + _varint(len(fields) + len(raw) + NBYTES) + fields + raw)  # initializer
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.write(proto.SerializeToString())
        file.write(b"\x3a" + _varint(len(graph) + sum(len(h) + NBYTES for h in heads)) + graph)  # graph
        for i, head in enumerate(heads):
            file.write(head)
            file.seek(NBYTES - 4, 1)
            file.write(bytes([0, 0, 0x80 + i, 0x3F]))  # the last element: 1 and something
    assert path.stat().st_size > 2 << 30
    imported = _expect_cheap_import(path, 9)
    last = [float(node.inputs[1].constant.block((slice(N - 1, N), slice(N - 1, N)))[0, 0]) for node in imported]
    assert last == [1 + i / 128 for i in range(9)]
