"""The one register of import handlers: how a version of an ONNX operator becomes nodes of today's meaning."""

from collections.abc import Callable, Sequence

from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.history import SAME

Handler = Callable[[Call], Sequence[Value]]
"""Adds nodes to the call's graph and returns the values of the ONNX node's outputs, one each."""

_HANDLERS: dict[tuple[str, int], Handler] = {}


def upgrades(op: str, *versions: int) -> Callable[[Handler], Handler]:
    """Registers a handler for these versions of the ai.onnx operator ``op``. Raises ValueError on a second one."""

    def register(handler: Handler) -> Handler:
        for version in versions:
            if (op, version) in _HANDLERS or version in SAME.get(op, ()):
                raise ValueError(f"{op}-{version} is handled twice")
            _HANDLERS[op, version] = handler
        return handler

    return register


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
