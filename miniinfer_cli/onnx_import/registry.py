"""The one register of import handlers: how a version of an ONNX operator becomes nodes of today's meaning."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.history import SAME
from miniinfer_cli.onnx_import.schemas import Form, own_form

Handler = Callable[[Call], Sequence[Value]]
"""Adds nodes to the call's graph and returns the values of the ONNX node's outputs, one each."""

_HANDLERS: dict[tuple[str, int], Handler] = {}
_UNLISTED: dict[str, Form] = {}
FLOAT, INT, STRING = onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT, onnx.AttributeProto.STRING
FLOATS, INTS, STRINGS = onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS, onnx.AttributeProto.STRINGS
CONTRIBUTED = "com.microsoft"
"""The domain of the operators that ONNX Runtime adds to ONNX's."""

_EXPORT_OTHERWISE = "export the model for ONNX Runtime's CPU provider, or without its fusions"


@dataclass(frozen=True)
class Contributed:
    """An operator of com.microsoft: its form, and what of that ``handler`` reads.

    ``fixed``: attributes that may stand there with this value alone, which is what leaving them out means. ``ignored``:
    attributes that bear on speed, or on the digits of the last place. ``absent``: operands, by number, that must be left out.
    All other attributes are read. ``meaning`` is the first line of the handler's docstring.
    """

    op: str
    form: Form
    handler: Handler
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    absent: Mapping[int, str] = field(default_factory=dict)

    @property
    def meaning(self) -> str:
        """What becomes of the operator, in a line."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    @property
    def read(self) -> tuple[str, ...]:
        """The attributes that the handler reads."""
        return tuple(sorted(set(self.form.attributes) - set(self.fixed) - self.ignored))

    def __call__(self, call: Call) -> Sequence[Value]:
        """What the handler makes of ``call``. Raises ModelError where it asks for what is not read."""
        for name, only in self.fixed.items():
            if call.attrs.get(name, only) != only:
                raise ModelError(
                    f"{self.op} with {name} {call.attrs[name]!r} is not supported, only with {only!r}", hint=_EXPORT_OTHERWISE
                )
        for index, name in self.absent.items():
            if call.input(index) is not None:
                raise ModelError(f"{self.op} with input {index} ({name}) is not supported", hint=_EXPORT_OTHERWISE)
        return self.handler(call)


_CONTRIBUTED: dict[str, Contributed] = {}


def upgrades(op: str, *versions: int) -> Callable[[Handler], Handler]:
    """Registers a handler for these versions of the ai.onnx operator ``op``. Raises ValueError on a second one."""

    def register(handler: Handler) -> Handler:
        for version in versions:
            if (op, version) in _HANDLERS or version in SAME.get(op, ()):
                raise ValueError(f"{op}-{version} is handled twice")
            _HANDLERS[op, version] = handler
        return handler

    return register


def unlisted(
    op: str, attributes: Mapping[str, int], n_inputs: tuple[int, int], n_outputs: tuple[int, int]
) -> Callable[[Handler], Handler]:
    """Registers a handler for ``op``, which exporters write into ai.onnx though ai.onnx never had it.

    ``attributes``: their types, of ``onnx.AttributeProto``; ``n_inputs``, ``n_outputs``: least and most of them.
    Raises ValueError on a second one.
    """
    register = upgrades(op, 1)
    _UNLISTED[op] = own_form(1, attributes, n_inputs, n_outputs)
    return register


def unlisted_form(op: str) -> Form | None:
    """The form of an operator that was registered by ``unlisted``; None for any other."""
    return _UNLISTED.get(op)


def contributed(
    op: str,
    attributes: Mapping[str, int],
    n_inputs: tuple[int, int],
    n_outputs: tuple[int, int] = (1, 1),
    *,
    required: Collection[str] = (),
    fixed: Mapping[str, Any] | None = None,
    ignored: Collection[str] = (),
    absent: Mapping[int, str] | None = None,
) -> Callable[[Handler], Handler]:
    """Registers a handler for ``op`` of ONNX Runtime's own domain. Raises ValueError on a second one.

    ``required``: attributes that must stand there; the other arguments are as for ``unlisted`` and ``Contributed``.
    """

    def register(handler: Handler) -> Handler:
        if op in _CONTRIBUTED:
            raise ValueError(f"{CONTRIBUTED}.{op} is handled twice")
        form = replace(own_form(1, attributes, n_inputs, n_outputs), required=frozenset(required))
        _CONTRIBUTED[op] = Contributed(op, form, handler, fixed or {}, frozenset(ignored), absent or {})
        return handler

    return register


def find_contributed(op: str) -> Contributed | None:
    """The operator of com.microsoft of this name; None where it is not known."""
    return _CONTRIBUTED.get(op)


def all_contributed() -> tuple[Contributed, ...]:
    """Every operator of com.microsoft that can be imported, by name."""
    return tuple(_CONTRIBUTED[op] for op in sorted(_CONTRIBUTED))


def handler_of(op: str, version: int) -> Handler | None:
    """The handler of ``op`` as of ``version``; None when that version is not known here."""
    if version in SAME.get(op, ()):
        return as_is
    return _HANDLERS.get((op, version))


def declared_versions(op: str) -> frozenset[int]:
    """Every version of ``op`` that can be imported."""
    return frozenset(SAME.get(op, ())) | {version for name, version in _HANDLERS if name == op}


def as_is(call: Call) -> Sequence[Value]:
    """The node with its inputs and attributes as they stand."""
    return call.result(call.op, *call.inputs, **call.attrs)
