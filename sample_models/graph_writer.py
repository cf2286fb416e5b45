"""GraphWriter: builds an ONNX graph node by node, named as PyTorch's older exporter names things, with seeded weights."""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Element types of the floating-point part of a model, by the names that the command line takes.
FLOATS = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
EXTERNAL_FROM = 1024
ALIGNMENT = 64


class GraphWriter:
    """One graph under construction.

    A value is known by its name (str). Nodes are named by scope and op ("/layer1/conv/Conv_1"), weights by scope
    ("layer1.conv.weight"). ``dtype`` is the type of weights and float constants; ``seed`` and a weight's own name
    decide its values, whatever was drawn before it. With ``data`` (a path beside the model's) every weight of at
    least EXTERNAL_FROM bytes goes there as soon as it is made, so that no more than one is in memory.
    """

    def __init__(
        self, name: str, *, opset: int, dtype: np.dtype = FLOATS["f32"], seed: int = 0, data: Path | None = None
    ) -> None:
        self.opset, self.dtype, self.seed = opset, dtype, seed
        self._graph = onnx.GraphProto(name=name)
        self._scopes: list[str] = []
        self._counts: Counter[str] = Counter()
        self._data_path = data
        self._data: BinaryIO | None = data.open("wb") if data else None

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put what is made inside under ``name``."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    @property
    def code(self) -> int:
        """ONNX's number of the graph's float type."""
        return _code(self.dtype)

    def input(self, name: str, dtype: str | np.dtype, shape: Sequence[int | str], *, high: int = 0) -> str:
        """Declare an input of the graph; a dimension that is a string is dynamic.

        ``high`` notes on the input, for whoever makes up data, that its integers have to be below it.
        """
        info = helper.make_tensor_value_info(name, _code(dtype), shape)
        if high:
            info.metadata_props.add(key="high", value=str(high))
        self._graph.input.append(info)
        return name

    def output(self, name: str, value: str, dtype: str | np.dtype, shape: Sequence[int | str]) -> None:
        """Declare ``value`` an output called ``name``: as exporters do, the value itself is renamed."""
        for node in self._graph.node:
            for names in (node.input, node.output):
                names[:] = [name if item == value else item for item in names]
        self._graph.output.append(helper.make_tensor_value_info(name, _code(dtype), shape))

    def node(self, op: str, inputs: Sequence[str | None], *, outputs: int = 1, **attributes: object) -> str:
        """Add a node; the name of its first output. None is an input left out."""
        return self.nodes(op, inputs, outputs=outputs, **attributes)[0]

    def nodes(self, op: str, inputs: Sequence[str | None], *, outputs: int, **attributes: object) -> list[str]:
        """Add a node; the names of all its outputs."""
        name = self._name(op)
        names = [f"{name}_output_{index}" for index in range(outputs)]
        self._graph.node.append(helper.make_node(op, [item or "" for item in inputs], names, name=name, **attributes))
        return names

    def constant(self, value: float | Sequence[int] | np.ndarray) -> str:
        """A Constant node: integers become int64, floats the graph's float type; an array keeps its type."""
        if not isinstance(value, np.ndarray):
            value = np.array(value, self.dtype if isinstance(value, float) else np.int64)
        return self.node("Constant", [], value=numpy_helper.from_array(value))

    def weight(self, name: str, values: np.ndarray) -> str:
        """A weight of the current scope with these values; floats are cast to the graph's float type."""
        full = ".".join((*self._scopes, name))
        if values.dtype.kind == "f":
            values = values.astype(self.dtype)
        tensor = TensorProto(name=full, data_type=_code(values.dtype), dims=values.shape)
        if self._data is None or values.nbytes < EXTERNAL_FROM:
            tensor.raw_data = values.tobytes()
        else:
            self._store(tensor, values)
        self._graph.initializer.append(tensor)
        return full

    def normal(self, name: str, shape: Sequence[int], deviation: float) -> str:
        """A weight drawn from a normal distribution of mean 0."""
        values = self.random(name).standard_normal(tuple(shape), dtype=np.float32)
        values *= np.float32(deviation)
        return self.weight(name, values)

    def uniform(self, name: str, shape: Sequence[int], low: float, high: float) -> str:
        """A weight drawn uniformly from [low, high)."""
        return self.weight(name, self.random(name).uniform(low, high, tuple(shape)).astype(np.float32))

    def random(self, name: str) -> np.random.Generator:
        """The generator of the weight ``name`` of the current scope."""
        return np.random.default_rng([self.seed, zlib.crc32(".".join((*self._scopes, name)).encode())])

    def size(self, value: str, axis: int, known: int | str) -> int | str:
        """The size of an axis: ``known`` itself when it is a number, else the Shape and Gather that find it."""
        if isinstance(known, int):
            return known
        return self.node("Gather", [self.node("Shape", [value]), self.constant(axis)], axis=0)

    def reshape(self, value: str, sizes: Sequence[int | str]) -> str:
        """Reshape to ``sizes``, each a number or what size() gave: a constant, or a chain of Unsqueeze and Concat."""
        return self.node("Reshape", [value, self.shape(sizes)])

    def shape(self, sizes: Sequence[int | str]) -> str:
        """``sizes`` as one int64 vector."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(sizes)
        parts = [
            self.constant([size]) if isinstance(size, int) else self.node("Unsqueeze", [size, self.constant([0])])
            for size in sizes
        ]
        return self.node("Concat", parts, axis=0)

    def reduce(self, op: str, value: str, axes: Sequence[int], keepdims: int = 1) -> str:
        """ReduceMean and its like: ``axes`` as an attribute before opset 18, as an input from then on."""
        if self.opset < 18:
            return self.node(op, [value], axes=list(axes), keepdims=keepdims)
        return self.node(op, [value, self.constant(axes)], keepdims=keepdims)

    def model(self) -> onnx.ModelProto:
        """The finished model; closes the data file."""
        if self._data is not None:
            self._data.close()
        opsets = [helper.make_opsetid("", self.opset)]
        # Released runtimes lag behind the package's newest IR version; nothing here needs more than this one.
        return helper.make_model(self._graph, opset_imports=opsets, ir_version=10, producer_name="miniinfer sample_models")

    def _name(self, op: str) -> str:
        path = "/" + "/".join((*self._scopes, op))
        count = self._counts[path]
        self._counts[path] += 1
        return f"{path}_{count}" if count else path

    def _store(self, tensor: TensorProto, values: np.ndarray) -> None:
        file = self._data
        file.write(bytes(-file.tell() % ALIGNMENT))
        entries = {"location": self._data_path.name, "offset": file.tell(), "length": values.nbytes}
        file.write(np.ascontiguousarray(values).view(np.uint8).data)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))


def _code(dtype: str | np.dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
