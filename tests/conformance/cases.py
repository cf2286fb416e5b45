"""The cases of onnx.backend.test: every kind that needs no download, with inputs, expected outputs and tolerances.

onnx computes the cases of one operator whenever they are asked for, in 10 s; what it computed is kept in ``build/conformance``.
"""

import fcntl
import functools
import pickle
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
_SITE = Path(onnx.__file__).parent.parent
_KEPT = Path(__file__).parents[2] / "build" / "conformance"


@dataclass(frozen=True)
class Case:
    """One model; ``model`` is a ModelProto or the path of a file. ``source`` is onnx's own record of the case."""

    kind: str
    name: str
    rtol: float
    atol: float
    model: Any
    source: Any

    def runs(self) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """Inputs by name with the outputs that they must give."""
        model = self.model if isinstance(self.model, onnx.ModelProto) else onnx.load(self.model)
        stored = {t.name for t in model.graph.initializer}
        formal = [v for v in model.graph.input if v.name not in stored]
        for inputs, outputs in self._data(model, formal):
            yield {v.name: _plain(x) for v, x in zip(formal, inputs, strict=False)}, [_plain(x) for x in outputs]

    def _data(self, model: onnx.ModelProto, formal: list[onnx.ValueInfoProto]) -> Iterator[tuple[list[Any], list[Any]]]:
        if self.kind == "node":
            yield from self.source.data_sets
        elif self.kind == "real":  # the inputs are generated; the outputs lie beside the model
            path = Path(self.model)
            outputs = [path.with_name(f"{path.stem}_output_{i}.pb") for i in range(len(model.graph.output))]
            inputs = [Runner.generate_dummy_data(v) for v in formal]
            yield inputs, [_read(p, v.type) for p, v in zip(outputs, model.graph.output, strict=True)]
        else:
            for folder in sorted(Path(self.model).parent.glob("test_data_set*")):
                yield _read_all(folder, "input", model.graph.input), _read_all(folder, "output", model.graph.output)


@functools.cache
def all_cases() -> list[Case]:
    """Every case, in onnx's order."""
    return [_case(kind, source) for kind in KINDS for source in (_computed() if kind == "node" else load_model_tests(kind=kind))]


def _computed() -> list[Any]:
    """The cases of one operator, computed by one process while others that want them wait."""
    versions = (onnx.__version__, np.__version__, ml_dtypes.__version__, platform.python_version(), platform.machine())
    _KEPT.mkdir(parents=True, exist_ok=True)
    kept = _KEPT / f"{'-'.join(versions)}.pickle"
    with kept.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.exists():
            return list(pickle.loads(kept.read_bytes()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # infinities and all
            found = load_model_tests(kind="node")
        written = kept.with_suffix(".part")
        written.write_bytes(pickle.dumps(found))
        written.replace(kept)
        return list(found)


def assert_equal_outputs(expected: list[Any], got: list[Any], rtol: float, atol: float, *, values: bool = True) -> None:
    """Same count, structure, shapes and element types, and ``values`` as near as onnx's own runner asks for."""
    assert len(got) == len(expected)
    for want, value in zip(expected, got, strict=True):
        if isinstance(want, list):
            assert isinstance(value, list)
            assert_equal_outputs(want, value, rtol, atol, values=values)
        elif isinstance(want, np.ndarray):
            assert (value.shape, value.dtype) == (want.shape, want.dtype)
            if values:
                _assert_equal_arrays(want, value, rtol, atol)
        else:
            assert value == want


def _assert_equal_arrays(want: Any, value: Any, rtol: float, atol: float) -> None:
    name = want.dtype.name
    if want.dtype == object:
        np.testing.assert_array_equal(value, want)
        return
    # Two units in the last place of a half: onnx's runner asks for that of bfloat16.
    rtol = max(rtol, {"bfloat16": 2**-6, "float16": 2**-9}.get(name, 0))
    if "float" in name and want.dtype.itemsize < 4:
        want, value = want.astype(np.float32), value.astype(np.float32)
    elif "int" in name:
        want, value = want.astype(np.int64), value.astype(np.int64)
    np.testing.assert_allclose(value, want, rtol=rtol, atol=atol)


def _case(kind: str, source: Any) -> Case:
    if kind == "node":
        model: Any = source.model
    elif kind == "real":
        model = _SITE / source.url
    else:
        model = Path(source.model_dir) / "model.onnx"
    return Case(kind, source.name, source.rtol, source.atol, model, source)


def _plain(value: Any) -> Any:
    """A value as the public API takes and gives it."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, int, float)):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return value.astype(object)
    return value


def _read_all(folder: Path, what: str, formal: Any) -> list[Any]:
    count = len(list(folder.glob(f"{what}_*.pb")))
    return [_read(folder / f"{what}_{i}.pb", v.type) for i, v in zip(range(count), formal, strict=False)]


def _read(path: Path, type: onnx.TypeProto) -> Any:
    data = path.read_bytes()
    if type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))
