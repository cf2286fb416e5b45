"""ONNX Runtime in a process of its own, which may crash or run out of memory without taking ours along.

    python -m miniinfer_cli.onnxruntime_process MODEL [plain]

With ``plain`` it optimizes nothing: each node is computed as it stands.

It answers by one line of JSON when the model is loaded, then by one for each line that it reads, and ends when its standard
input does. A line that it reads is ``{"feeds": [NAME, ...], "inputs": FILE, "names": [NAME, ...], "outputs": FILE}``: inputs, a
file of their values, outputs, and the file to write those to. In its answers stand ``version``, its own, and where something
failed ``of``, which says what (``package``, ``model`` or ``run``), and ``error``, in one line.

A file of values holds a tree, in JSON, and the bytes of its tensors:

    {"tensor": NUMBER, "code": ONNX'S NUMBER OF THE ELEMENT TYPE, "shape": [...]}      densely packed bytes, little-endian
    {"strings": [...], "shape": [...]}      {"list": [...]}      {"map": [[key, value], ...]}      {"plain": number, text or null}

Nothing of ours is imported here: neither what it costs to start nor what it may break is more than ONNX Runtime's own.
"""

import contextlib
import ctypes
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NATIVE: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip
"""The element types that numpy has, by ONNX's number."""
_CODES = {name: code for code, name in NATIVE.items()}
_HALVES = (16,)  # the other types of two bytes; those that are neither here nor in NATIVE have one, or share one
_OOM_SCORE = Path("/proc/self/oom_score_adj")


class Packed(NamedTuple):
    """A tensor as its bytes: ONNX's number of the element type, sizes, and the elements densely packed."""

    code: int
    shape: tuple[int, ...]
    data: Any


def write_values(path: Path, values: Sequence[Any]) -> None:
    """Writes values (Packed, arrays of numpy's own types or of str, lists, dicts, numbers, None) to ``path``."""
    tensors: list[Any] = []

    def described(value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray) and value.dtype == object:
            return {"strings": [str(item) for item in value.reshape(-1)], "shape": value.shape}
        if isinstance(value, np.ndarray):
            value = Packed(_CODES[value.dtype.name], value.shape, value.tobytes())
        if isinstance(value, Packed):
            tensors.append(np.frombuffer(value.data, np.uint8))
            return {"tensor": len(tensors) - 1, "code": value.code, "shape": value.shape}
        if isinstance(value, (list, tuple)):
            return {"list": [described(item) for item in value]}
        if isinstance(value, Mapping):
            return {"map": [[key, described(item)] for key, item in value.items()]}
        return {"plain": value.item() if isinstance(value, np.generic) else value}

    tree = json.dumps([described(value) for value in values]).encode()
    np.savez(path, allow_pickle=False, tree=np.frombuffer(tree, np.uint8), **{f"t{i}": t for i, t in enumerate(tensors)})


def read_values(path: Path) -> list[Any]:
    """What ``write_values`` wrote; every tensor as Packed."""
    with np.load(path, allow_pickle=False) as file:

        def made(node: dict[str, Any]) -> Any:
            if "tensor" in node:
                return Packed(node["code"], tuple(node["shape"]), file[f"t{node['tensor']}"].tobytes())
            if "strings" in node:
                array = np.empty(len(node["strings"]), object)
                array[:] = node["strings"]
                return array.reshape(node["shape"])
            if "list" in node:
                return [made(item) for item in node["list"]]
            return {key: made(item) for key, item in node["map"]} if "map" in node else node["plain"]

        return [made(node) for node in json.loads(file["tree"].tobytes())]


def serve(model: str, requests: Any, answers: Any, *, plain: bool = False) -> None:
    """Loads ``model`` and answers ``requests``, a stream of lines, on ``answers``, another. ``plain``: without optimizations."""

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    try:
        import onnxruntime
    except Exception as error:  # whatever a broken installation raises, it is not there
        answer(of="package", error=f"onnxruntime cannot be imported: {_line(error)}")
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base class of their own
        answer(version=onnxruntime.__version__, of="model", error=_line(error))
        return
    answer(version=onnxruntime.__version__)
    for line in requests:
        request = json.loads(line)
        try:
            given = read_values(Path(request["inputs"]))
            feeds = dict(zip(request["feeds"], given, strict=True))
            results = _run(onnxruntime, session, request["names"], feeds)
            write_values(Path(request["outputs"]), results)
        except Exception as error:
            answer(of="run", error=_line(error))
        else:
            answer()


def _run(onnxruntime: Any, session: Any, names: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs; a tensor whose type numpy lacks goes in and comes out as its bytes."""
    declared = {output.name: output.type for output in session.get_outputs()}
    plain = {f"tensor({name})" for name in ("float", "double", "string", *NATIVE.values())}
    if all(_is_native(v) for v in feeds.values()) and all(
        declared[n] in plain or not declared[n].startswith("tensor(") for n in names
    ):
        return list(session.run(list(names), {name: _array(value) for name, value in feeds.items()}))
    given = {name: _ort_value(onnxruntime, value) for name, value in feeds.items()}
    return [_from_ort_value(value) for value in session.run_with_ort_values(list(names), given)]


def _is_native(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_native(item) for item in value)
    return not isinstance(value, Packed) or value.code in NATIVE


def _array(value: Any) -> Any:
    if isinstance(value, list):
        return [_array(item) for item in value]
    if isinstance(value, Mapping):
        return {key: item if not isinstance(item, Packed) else _array(item) for key, item in value.items()}
    if not isinstance(value, Packed):
        return value
    return np.frombuffer(value.data, NATIVE[value.code]).reshape(value.shape)


def _ort_value(onnxruntime: Any, value: Any) -> Any:
    make = onnxruntime.OrtValue
    if not isinstance(value, Packed) or value.code in NATIVE:
        return make.ortvalue_from_numpy(_array(value))
    # It wants an array of as many elements as the tensor has, and reads as many bytes as they take.
    raw = np.zeros(math.prod(value.shape), np.uint16 if value.code in _HALVES else np.uint8)
    raw.view(np.uint8)[: len(value.data)] = np.frombuffer(value.data, np.uint8)
    return make.ortvalue_from_numpy_with_onnx_type(raw.reshape(value.shape), value.code)


def _from_ort_value(value: Any) -> Any:
    code = value.element_type() if value.is_tensor() else 0
    if code in NATIVE or not code or code == 8:  # 8: strings
        return value.numpy()
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()) if math.prod(value.shape()) else b""
    return Packed(code, tuple(value.shape()), data)


def _line(error: BaseException) -> str:
    """The error in one line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text) or type(error).__name__


def main() -> None:
    """Serves the model of the command line. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # where memory runs out, this process ends, and not the build that asks it
    serve(sys.argv[1], sys.stdin, answers, plain="plain" in sys.argv[2:])


if __name__ == "__main__":
    main()
