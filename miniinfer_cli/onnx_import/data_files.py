"""Which files beside a model, or a tensor, hold its data: what nothing may be written over while it is read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from miniinfer_cli.onnx_import.names import as_text
from miniinfer_cli.onnx_import.source import read_source


def data_files(model: Path) -> list[Path]:
    """The files of a model's external data, which need not exist. Raises what ``read_source`` raises."""
    return files_of(read_source(model).model, model.parent)


def files_of(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    """The same of a model that is read already, beside a file in ``folder``."""
    nodes = [node for function in proto.functions for node in function.node]
    return _files([*_of_graph(proto.graph), *_of_nodes(nodes)], folder)


def tensor_data_files(path: Path) -> list[Path]:
    """The same for the TensorProto in a file; none where there is no TensorProto that can be read."""
    try:
        return _files([onnx.TensorProto.FromString(path.read_bytes())], path.parent)
    except (DecodeError, OSError):
        return []


def _files(tensors: Iterable[onnx.TensorProto], folder: Path) -> list[Path]:
    entries = [e for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL for e in t.external_data]
    return [folder / name for name in dict.fromkeys(as_text(e.value) for e in entries if e.key == "location") if "\0" not in name]


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (a for node in nodes for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
