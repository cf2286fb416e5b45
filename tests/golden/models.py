"""The models of the golden record, optimized, without the memory that their weights would take."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from miniinfer_cli.builder.building import read_model
from miniinfer_cli.ir import Graph, TensorType
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.passes.pipeline import optimize
from sample_models.catalogue import FAMILIES, Family
from sample_models.graph_writer import FLOATS, GraphWriter
from sample_models.request import Request
from tests.golden import refiner

DTYPES = ("f32", "f16")
BATCHES = (1, 8)
SEQUENCE = {"bert_base": 128, "gpt2": 128, "lstm_tagger": 12}
"""How long the sequences are, by model."""
MODELS: dict[str, Family] = {
    **{name: family for name, family in FAMILIES.items() if family.in_all},
    "refiner": Family(refiner.write, refiner.OPSET),
}
_LARGE_NBYTES = 64 << 10
_RANDOM_NBYTES = 1 << 20
_WEIGHTS = "weights.bin"


@dataclass(frozen=True)
class Model:
    """One model in one element type, optimized as ``build`` does it by default. ``graph`` has an open batch."""

    name: str
    dtype: str
    graph: Graph

    def inputs(self, batch: int) -> list[TensorType]:
        """The types of its inputs at this batch size."""
        sizes = {"batch": batch, "seq": SEQUENCE.get(self.name, 1)}
        return [_sized(v.tensor, sizes) for v in self.graph.inputs]


def build(name: str, dtype: str, *, real_weights: bool = False) -> Model:
    """The model, with stand-ins for its large weights unless ``real_weights``; both give the same programs."""
    family = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        if real_weights:
            writer = GraphWriter(name, opset=family.opset, dtype=FLOATS[dtype])
        else:
            writer = _StandIns(name, family.opset, FLOATS[dtype], Path(folder) / _WEIGHTS)
        family.write(writer, Request())
        onnx.save(writer.model(), path)
        graph, _ = read_model(path)
        optimize(graph)
    return Model(name, dtype, graph)


def _sized(type: TensorType, sizes: Mapping[str, int]) -> TensorType:
    shape = [evaluate(d, sizes) for d in type.shape or ()]
    assert None not in shape, f"{type} has a dimension of another name than {', '.join(sizes)}"
    return TensorType(type.dtype, tuple(d for d in shape if d is not None))


class _StandIns(GraphWriter):
    """Writes large weights as ranges of one sparse file: random numbers at first, then zeros, each from a place of its own.

    What passes ask of a large weight is whether it can be scaled without loss, and its bytes may be compared with others'.
    """

    def __init__(self, name: str, opset: int, dtype: np.dtype, path: Path) -> None:
        super().__init__(name, opset=opset, dtype=dtype)
        numbers = np.random.default_rng(0).normal(0, 0.02, _RANDOM_NBYTES // dtype.itemsize)
        path.write_bytes(numbers.astype(dtype).tobytes())
        self._path = path
        self._offset = 0

    def normal(self, name: str, shape: Sequence[int], deviation: float) -> str:
        nbytes = math.prod(shape) * self.dtype.itemsize
        if nbytes < _LARGE_NBYTES:
            return super().normal(name, shape, deviation)
        tensor = TensorProto(name=".".join((*self._scopes, name)), data_type=self.code, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": _WEIGHTS, "offset": self._offset, "length": nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        with self._path.open("r+b") as file:
            file.truncate(max(self._path.stat().st_size, self._offset + nbytes))
        self._offset += 64
        self._graph.initializer.append(tensor)
        return tensor.name
