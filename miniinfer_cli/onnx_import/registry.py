"""The one register of import handlers: how a version of an ONNX operator becomes nodes of today's meaning."""

from collections.abc import Callable, Mapping, Sequence

from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.history import SAME
from miniinfer_cli.onnx_import.schemas import Form, own_form

Handler = Callable[[Call], Sequence[Value]]
"""Adds nodes to the call's graph and returns the values of the ONNX node's outputs, one each."""

_HANDLERS: dict[tuple[str, int], Handler] = {}
_UNLISTED: dict[str, Form] = {}
_CONTRIBUTED: dict[str, tuple[Form, Handler]] = {}
CONTRIBUTED = "com.microsoft"
"""The domain of the operators that ONNX Runtime adds to ONNX's."""


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
    op: str, attributes: Mapping[str, int], n_inputs: tuple[int, int], n_outputs: tuple[int, int]
) -> Callable[[Handler], Handler]:
    """Registers a handler for ``op`` of ONNX Runtime's own domain; arguments and errors as for ``unlisted``."""

    def register(handler: Handler) -> Handler:
        if op in _CONTRIBUTED:
            raise ValueError(f"{CONTRIBUTED}.{op} is handled twice")
        _CONTRIBUTED[op] = own_form(1, attributes, n_inputs, n_outputs), handler
        return handler

    return register


def contributed_meaning(op: str) -> tuple[Form, Handler] | None:
    """The form and the handler of an operator that was registered by ``contributed``; None for any other."""
    return _CONTRIBUTED.get(op)


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
