"""Reads a graph from the text that ``ir.text`` describes and writes."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import Array, numpy_dtype
from miniinfer_cli.ir.constants import ArrayConstant, Constant, Filled, Index
from miniinfer_cli.ir.dim_text import parse_dim, split_dims
from miniinfer_cli.ir.graph import Graph
from miniinfer_cli.ir.node import Value
from miniinfer_cli.ir.types import MapType, OptionalType, SequenceType, TensorType, Type

BARE_NAME = re.compile(r"[\w./$?\-#]+(?::+[\w./$?\-#]+)*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"[+-]?(?:inf|nan|\d+\.?\d*(?:e[+-]?\d+)?)(?:[+-](?:inf|nan|\d+\.?\d*(?:e[+-]?\d+)?)j)?")
_SPACE = re.compile(r"\s*")
_DTYPES = {d.value: d for d in DType}


def parse_graph(text: str) -> Graph:
    """The graph that ``text`` describes. Raises ValueError with the line number on text that ``print_graph`` cannot write."""
    reader = _Reader(text)
    graph = _read_graph(reader)
    if not reader.done:
        raise reader.error("text after the end of the graph")
    return graph


def parse_type(text: str) -> Type | None:
    """The type written as ``str(type)`` writes it; None for ``?``. Raises ValueError on anything else."""
    reader = _Reader(text)
    type = _read_type(reader)
    if not reader.done:
        raise reader.error("text after the end of the type")
    return type


@dataclass(frozen=True, slots=True, eq=False)
class NamedConstant(Constant):
    """A constant known by its description only, as parsed text gives it; reading the contents raises ValueError."""

    tag: str = ""

    @property
    def is_small(self) -> bool:
        """False whatever the size: there is nothing to hold in memory."""
        return False

    def block(self, index: Index) -> Array:
        """Raises ValueError: text does not carry the contents of a large constant."""
        raise ValueError(f"constant {self.tag!r} was read from text, which carries no contents for it")


class _Reader:
    """The text and how far it has been read; white space between tokens does not count."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._skip()

    @property
    def done(self) -> bool:
        return self.at == len(self.text)

    def error(self, message: str) -> ValueError:
        line = self.text.count("\n", 0, self.at) + 1
        return ValueError(f"line {line}: {message}, at {self.text[self.at : self.at + 30]!r}")

    def found(self, token: str) -> bool:
        """Reads ``token`` if it comes next."""
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        self._skip()
        return True

    def expect(self, token: str) -> None:
        if not self.found(token):
            raise self.error(f"expected {token!r}")

    def ahead(self, pattern: str) -> re.Match[str] | None:
        """What ``pattern`` finds right here, without reading it."""
        return re.compile(pattern).match(self.text, self.at)

    def match(self, pattern: str | re.Pattern[str], what: str) -> str:
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            raise self.error(f"expected {what}")
        self.at = match.end()
        self._skip()
        return match[0]

    def name(self) -> str:
        if self.text.startswith('"', self.at):
            return str(json.loads(self.match(_STRING, "a name")))
        return self.match(BARE_NAME, "a name")

    def items(self, end: str) -> Iterator[None]:
        """One turn per item of a comma-separated list, up to and with ``end``."""
        if self.found(end):
            return
        yield
        while self.found(","):
            yield
        self.expect(end)

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at


def _read_graph(reader: _Reader) -> Graph:
    reader.expect("graph")
    graph = Graph(reader.name())
    values: dict[str, Value] = {}
    reader.expect("(")
    for _ in reader.items(")"):
        name, type = _read_typed(reader)
        values[name] = graph.add_input(name, type)
    reader.expect("{")
    while not _at_return(reader):
        _read_statement(reader, graph, values)
    outputs, names = [], []
    if not reader.found("}"):
        for _ in reader.items("}"):
            name = reader.name()
            value = reader.name() if reader.found("=") else name
            outputs.append(_value(reader, values, value))
            names.append(name)
    graph.set_outputs(outputs, names)
    return graph


def _at_return(reader: _Reader) -> bool:
    return reader.ahead(r"return\b") is not None and reader.found("return")


def _read_statement(reader: _Reader, graph: Graph, values: dict[str, Value]) -> None:
    head = reader.ahead(r"[\w.]+\(")
    declared = [] if head else [_read_typed(reader)]
    while declared and reader.found(","):
        declared.append(_read_typed(reader))
    if declared:
        reader.expect("=")
    outputs = [graph.new_value(name, type) for name, type in declared]
    for (name, _), value in zip(declared, outputs, strict=True):
        if name in values or value.name != name:
            raise reader.error(f"{name!r} is defined twice")
    if reader.ahead(r"const\s"):
        reader.expect("const")
        graph.set_constant(outputs[0], _read_constant(reader, declared[0][1]))
        values[outputs[0].name] = outputs[0]
        return
    domain, _, op = reader.match(r"[\w.]+", "an operation").rpartition(".")
    inputs: list[Value | None] = []
    reader.expect("(")
    for _ in reader.items(")"):
        inputs.append(None if reader.ahead(r"-\s*[,)]") and reader.found("-") else _value(reader, values, reader.name()))
    attrs: dict[str, Any] = {}
    if reader.found("{"):
        for _ in reader.items("}"):
            key = reader.name()
            reader.expect("=")
            attrs[key] = _read_attribute(reader)
    name = reader.name() if reader.found("@") else ""
    graphs: dict[str, Graph] = {}
    while (inner := reader.ahead(r"(\w+): graph\s")) is not None:
        reader.expect(f"{inner[1]}:")
        graphs[inner[1]] = _read_graph(reader)
    body = graphs.pop("body", None) if domain else None
    graph.add_node(
        op, inputs, outputs, domain=domain, name=name or ("" if outputs else op), attrs=attrs, graphs=graphs, body=body
    )
    values.update((v.name, v) for v in outputs)


def _value(reader: _Reader, values: dict[str, Value], name: str) -> Value:
    if name not in values:
        raise reader.error(f"{name!r} is not defined before it is read")
    return values[name]


def _read_typed(reader: _Reader) -> tuple[str, Type | None]:
    name = reader.name()
    return name, _read_type(reader) if reader.found(":") else None


def _read_type(reader: _Reader) -> Type | None:
    if reader.found("?"):
        return None
    if reader.found("seq("):
        element = _read_type(reader)
        reader.expect(")")
        return SequenceType(element)
    if reader.found("optional("):
        element = _read_type(reader)
        reader.expect(")")
        return OptionalType(element)
    if reader.found("map("):
        key = reader.name()
        reader.expect(",")
        element = _read_type(reader)
        reader.expect(")")
        return MapType(_DTYPES[key], element)
    word = reader.match(r"\w+", "a type")
    if word not in _DTYPES:
        raise reader.error(f"{word!r} is not an element type")
    dims = reader.match(r"\[[^\]]*\]", "dimensions")[1:-1]
    if dims == "?":
        return TensorType(_DTYPES[word])
    return TensorType(_DTYPES[word], tuple(map(parse_dim, split_dims(dims))))


def _read_constant(reader: _Reader, type: Type | None) -> Constant:
    if not isinstance(type, TensorType) or not type.is_static or type.shape is None:
        raise reader.error("a constant needs a tensor type with static dimensions")
    shape = tuple(d for d in type.shape if isinstance(d, int))
    if reader.found("large "):
        return NamedConstant(type.dtype, shape, json.loads(reader.match(_STRING, "a description")))
    if reader.found("fill "):
        return Filled(type.dtype, shape, np.array(_read_item(reader, type.dtype), numpy_dtype(type.dtype))[()])
    return ArrayConstant(type.dtype, shape, _read_literal(reader, type.dtype, shape))


def _read_literal(reader: _Reader, dtype: DType, shape: tuple[int, ...]) -> Array:
    if not shape:
        return np.array(_read_item(reader, dtype), numpy_dtype(dtype))
    reader.expect("[")
    items = [_read_item(reader, dtype) for _ in reader.items("]")]
    array = np.array(items, object)
    if array.size != int(np.prod(shape)):
        raise reader.error(f"{array.size} items do not fill {list(shape)}")
    return array.astype(numpy_dtype(dtype)).reshape(shape)


def _read_item(reader: _Reader, dtype: DType) -> Any:
    if dtype is DType.STR:
        return json.loads(reader.match(_STRING, "a string"))
    if dtype is DType.BOOL:
        return reader.match("true|false", "true or false") == "true"
    text = reader.match(_NUMBER, "a number")
    if dtype in (DType.C64, DType.C128):
        return complex(text)
    return int(text) if dtype.is_integer else float(text)


def _read_attribute(reader: _Reader) -> Any:
    if reader.found("["):
        return [_read_attribute(reader) for _ in reader.items("]")]
    if reader.text.startswith('"', reader.at):
        return json.loads(reader.match(_STRING, "a string"))
    if reader.found("type "):
        return _read_type(reader)
    if reader.ahead(r"\w+\["):
        type = _read_type(reader)
        if not isinstance(type, TensorType) or type.shape is None:
            raise reader.error("an array attribute needs a static type")
        return _read_literal(reader, type.dtype, tuple(d for d in type.shape if isinstance(d, int)))
    if (word := reader.ahead(r"(True|False|None)\b")) is not None:
        reader.expect(word[0])
        return {"True": True, "False": False, "None": None}[word[0]]
    text = reader.match(_NUMBER, "a number")
    return float(text) if re.search(r"[.en]", text) else int(text)
