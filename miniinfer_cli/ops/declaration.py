"""What a node may hold, as the functions of its operation declare it: inputs, attributes, sub-graphs, outputs.

Models and plans come from anywhere. Whatever a node holds is checked here once, where it enters: when a model is imported,
and when a plan is opened. Rules, references and kernels may then count on the types that they declare; what depends on values
(a stride of 0) and on shapes is theirs to check.
"""

import inspect
import types
import typing
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, MapType, OptionalType, SequenceType, TensorType, Type

CONTEXT = ("n_outputs", "graphs", "run_graph", "infer_graph", "untyped", "for_each", "limits")
"""Keyword parameters of rules and references that are no attributes."""

_TYPES = (TensorType, SequenceType, OptionalType, MapType)
_KINDS: dict[Any, str] = {
    TensorType: "a tensor", SequenceType: "a sequence", OptionalType: "an optional", MapType: "a map",
}  # fmt: skip

Accepts = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: whether it must be given, what it is in words, and whether a value is that."""

    required: bool
    words: str
    accepts: Accepts


@dataclass(frozen=True, slots=True)
class DeclaredInput:
    """One input: its name, the classes of types that it may have (None: any), and whether it may be left out."""

    name: str
    kinds: tuple[type, ...] | None
    optional: bool

    def check(self, op: str, index: int, type: Type | None) -> None:
        """Raises ModelError when an input of this ``type``, None where it is left out, is not what the operation takes."""
        if type is None:
            if not self.optional:
                raise ModelError(f"{op} needs input {index} ({self.name}), which is left out")
        elif self.kinds is not None and not isinstance(type, self.kinds):
            wanted = " or ".join(_KINDS[k] for k in self.kinds)
            raise ModelError(f"{op} input {index} ({self.name}) is {type}, expected {wanted}")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a node of an operation may hold.

    ``required`` counts the inputs that must be there; ``more``: the kind of those behind ``operands``, None when there may be
    none. ``needed`` names the attributes that must be given.
    """

    op: str
    operands: tuple[DeclaredInput, ...]
    required: int
    more: DeclaredInput | None
    attributes: Mapping[str, Attribute]
    needed: tuple[str, ...]
    graphs: tuple[str, ...]
    optional_graphs: tuple[str, ...]

    def check_node(self, n_inputs: int, attrs: Mapping[str, Any], graphs: Mapping[str, Graph]) -> None:
        """Raises ModelError unless a node may have so many inputs, these attributes, and these sub-graphs."""
        if n_inputs < self.required or n_inputs > len(self.operands):
            self.check_count(n_inputs)
        for name, value in attrs.items():
            attribute = self.attributes.get(name)
            if attribute is None:
                known = ", ".join(sorted(self.attributes)) or "none"
                raise ModelError(f"{self.op} has no attribute {name!r}", hint=f"its attributes are: {known}")
            if not attribute.accepts(value):
                raise ModelError(f"{self.op} attribute {name} is {_shown(value)}, expected {attribute.words}")
        for name in self.needed:
            if name not in attrs:
                raise ModelError(f"{self.op} needs the attribute {name}")
        if (graphs or self.graphs) and not set(self.graphs) <= set(graphs) <= {*self.graphs, *self.optional_graphs}:
            wanted = ", ".join((*self.graphs, *self.optional_graphs)) or "none"
            raise ModelError(f"{self.op} has the sub-graphs {', '.join(sorted(graphs)) or 'none'}, expected {wanted}")

    def check_count(self, n_inputs: int) -> None:
        """Raises ModelError unless there may be so many inputs."""
        most = None if self.more is not None else len(self.operands)
        if n_inputs < self.required or (most is not None and n_inputs > most):
            least = str(self.required)
            wanted = f"{least} or more" if most is None else least if self.required == most else f"{least} to {most}"
            raise ModelError(f"{self.op} with {n_inputs} inputs, expected {wanted}")

    def check_operands(self, inputs: Sequence[Type | None], untyped: Container[int] = ()) -> None:
        """Raises ModelError unless the inputs are so many tensors, sequences, ... as the operation takes.

        None stands for an input that is left out, and at the places in ``untyped`` for one of unknown type.
        """
        self.check_count(len(inputs))
        for index, type in enumerate(inputs):
            operand = self.operands[index] if index < len(self.operands) else self.more
            if operand is not None and index not in untyped:
                operand.check(self.op, index, type)


def declaration_of(
    op: str, rule: Callable[..., Any], reference: Callable[..., Any], graphs: tuple[str, ...], optional_graphs: tuple[str, ...]
) -> Declaration:
    """The declaration that the two functions of an operation have together; see registry for their form."""
    operands: list[DeclaredInput] = []
    more: DeclaredInput | None = None
    required = 0
    attributes: dict[str, Attribute] = {}
    for function, is_rule in ((reference, False), (rule, True)):  # what the rule says of a parameter is what holds
        hints = _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                if name not in CONTEXT:
                    attributes[name] = _attribute(hints.get(name), parameter.default)
            elif is_rule:
                operand = _operand(name, hints.get(name), parameter.default is None)
                if parameter.kind is parameter.VAR_POSITIONAL:
                    more = operand
                else:
                    operands.append(operand)
                    required += parameter.default is parameter.empty
    needed = tuple(name for name, a in attributes.items() if a.required)
    return Declaration(op, tuple(operands), required, more, attributes, needed, graphs, optional_graphs)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError):  # a plugin's annotations may name what is not there at run time
        return {}


def _operand(name: str, hint: Any, has_default: bool) -> DeclaredInput:
    parts = _parts(hint)
    kinds = tuple(k for k in parts if k in _TYPES)
    return DeclaredInput(name, kinds or None, has_default or hint is None or type(None) in parts)


def _attribute(hint: Any, default: Any) -> Attribute:
    required = default is inspect.Parameter.empty
    if hint is None:
        hint = _guessed(default)
    words, accepts = _check_of(hint)
    return Attribute(required, words, accepts)


def _guessed(default: Any) -> Any:
    """The type of an attribute that a plugin leaves without annotation, from its default."""
    if isinstance(default, (bool, int, float, str)):
        return type(default)
    if isinstance(default, (list, tuple)) and default:
        return Sequence[_guessed(default[0])]  # type: ignore[misc]
    return Any


def _parts(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _check_of(hint: Any) -> tuple[str, Accepts]:
    """What an attribute of a type is in words, and whether a value is that."""
    parts = _parts(hint)
    if len(parts) > 1:
        checks = [_check_of(p) for p in parts if p is not type(None)]
        optional = type(None) in parts
        words = " or ".join(w for w, _ in checks)
        if len(checks) == 1:
            ((_, only),) = checks
            return words, lambda v: only(v) or v is None
        return words, lambda v: (optional and v is None) or any(accepts(v) for _, accepts in checks)
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        (item,) = typing.get_args(hint)
        words, accepts = _check_of(item)
        return f"a list, each item {words}", _list_check(item, accepts)
    if hint is int:
        return "a 64-bit integer", _is_int64
    if hint is bool:
        return "a truth", lambda v: isinstance(v, int) and v in (0, 1)
    if hint is float:
        return "a number", lambda v: isinstance(v, (int, float, np.integer, np.floating))
    if hint is str:
        return "a string", lambda v: isinstance(v, str)
    if hint in _TYPES:
        return f"the type of {_KINDS[hint]}", lambda v: isinstance(v, hint)
    if hint == Array or hint is np.ndarray or origin is np.ndarray:  # the first is an alias, of a kind that depends on numpy
        return "a tensor", lambda v: isinstance(v, np.ndarray)
    return "anything", lambda v: True


def _is_int64(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


_PLAIN: Mapping[Any, frozenset[type]] = {int: frozenset({int}), float: frozenset({int, float}), str: frozenset({str})}
"""Of what types alone the items of a list by its hint may be, so that none need be looked at by itself; ints by their range."""


def _list_check(item: Any, accepts: Accepts) -> Accepts:
    """Whether a value is a list of which ``accepts`` takes each item; most are told by the types of all items at once."""
    plain = _PLAIN.get(item, frozenset())

    def is_list(value: Any) -> bool:
        if not isinstance(value, (list, tuple)):
            return False
        if not value:
            return True
        if not plain.issuperset(map(type, value)):
            return all(map(accepts, value))
        return item is not int or (min(value) >= -(2**63) and max(value) < 2**63)

    return is_list


def _shown(value: Any) -> str:
    text = f"an array of {value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
