"""What a node stands for: an import handler, a function to read in its place, or nothing known."""

from dataclasses import dataclass

import onnx

from miniinfer_cli import ops
from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import import contributed, upgrades  # noqa: F401  (they register the handlers)
from miniinfer_cli.onnx_import.attributes import is_graph
from miniinfer_cli.onnx_import.expansion import has_function
from miniinfer_cli.onnx_import.frame import Frame
from miniinfer_cli.onnx_import.functions import Functions, plain_domain
from miniinfer_cli.onnx_import.history import NEWEST, TAKEN_EARLY
from miniinfer_cli.onnx_import.host import host_handler
from miniinfer_cli.onnx_import.registry import (
    CONTRIBUTED,
    Handler,
    as_is,
    declared_versions,
    find_contributed,
    handler_of,
    unlisted_form,
)
from miniinfer_cli.onnx_import.schemas import Form, expect_form, form_of, newest_opset, unknown
from miniinfer_cli.ops import OpDef
from miniinfer_cli.ops.registry import GIVE_MEANING
from miniinfer_cli.wording import Wording

_EXTENSIONS = "ai.onnx.contrib"  # of onnxruntime-extensions: tokenizers, and what else reads strings
_BLOCKED = "com.microsoft.nchwc"  # what ONNX Runtime's last level of optimization makes of convolutions
_OF_ONE_PROCESSOR = (
    "ONNX Runtime optimized this file for one kind of processor: give the model as it was, or let it save with"
    " graph_optimization_level ORT_ENABLE_EXTENDED"
)
_START_BEHIND = Wording(
    "cut the model there, and give the values that it makes as inputs: start_at=[VALUE]",
    flags="cut the model there, and give the values that it makes as inputs: build --start-at VALUE",
)


@dataclass(frozen=True)
class Meaning:
    """A node's meaning, one of three: a ``handler``, a ``function`` of the model, or a form that ``expands``.

    ``opset`` is that of ``domain`` in force. ``notes`` say what is taken as meant though it is formally wrong.
    """

    domain: str
    version: int
    opset: int
    handler: Handler | None = None
    function: onnx.FunctionProto | None = None
    expands: Form | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_onnx(self) -> bool:
        """True for an operator of ai.onnx itself."""
        return not self.domain and self.function is None


def meaning_of(node: onnx.NodeProto, frame: Frame, functions: Functions) -> Meaning:
    """What ``node`` stands for. Raises ModelError when that is not known, or the node does not keep to its form.

    In order: an operation that a user's module defines, a function of the model, an operation of ours, the host
    adapter, the operator's own function body. A domain that the model does not import is taken in its newest opset, and an
    operator from before its time as what it became, where that is what exporters mean by it.
    """
    domain, op = plain_domain(node.domain), node.op_type
    own = ops.find(domain, op) if domain else None
    function = functions.find(node) if own is None else None
    opset = frame.opsets.get(domain)
    notes: tuple[str, ...] = ()
    if opset is None:
        opset = _newest(domain)
        if function is None:
            title = domain or "ai.onnx"
            notes = (f"the model uses {title} and does not import it: it is read as of opset {opset}, the newest known",)
    if function is not None:
        return Meaning(domain, opset, opset, function=function)
    form = form_of(domain, op, opset)
    if form is None and not domain:
        form = form_of("", op, TAKEN_EARLY.get(op, 0)) or unlisted_form(op)
        if form is not None:
            notes += (_early(op, opset, form),)
    if form is not None:
        expect_form(node, form)
    elif own is not None:
        _expect_attributes(node, own)
    if own is not None:
        return Meaning(domain, form.version if form else opset, opset, as_is, notes=notes)
    if form is None and domain == CONTRIBUTED and (known := find_contributed(op)) is not None:
        expect_form(node, known.form)
        return Meaning(domain, known.form.version, opset, known, notes=notes)
    if form is None:
        raise _unknown(domain, op, opset)
    handler = handler_of(op, form.version) if not domain else None
    if handler is not None:
        return Meaning(domain, form.version, opset, handler, notes=notes)
    if not domain and ops.find("", op) is not None:
        raise _undeclared(op, form.version)
    return _on_host_or_expanded(domain, op, opset, form, notes)


def _on_host_or_expanded(domain: str, op: str, opset: int, form: Form, notes: tuple[str, ...]) -> Meaning:
    handler = host_handler(domain, op, opset)
    if handler is not None:
        return Meaning(domain, form.version, opset, handler, notes=notes)
    if has_function(form):
        return Meaning(domain, form.version, opset, expands=form, notes=notes)
    raise ModelError(
        f"{domain or 'ai.onnx'}::{op}, version {form.version}, is not supported",
        hint=GIVE_MEANING,
    )


def _newest(domain: str) -> int:
    """The newest opset of a domain; 1 for one that onnx does not know."""
    newest = newest_opset(domain) or 1
    return newest if domain else min(newest, NEWEST)


def _early(op: str, opset: int, form: Form) -> str:
    if form.schema is None:
        return f"{op} is no operator of ai.onnx: it is taken as what exporters mean by it"
    return f"{op} does not exist in opset {opset} of ai.onnx: it is taken as of opset {form.version}"


def _expect_attributes(node: onnx.NodeProto, own: OpDef) -> None:
    for attribute in node.attribute:
        if attribute.name not in own.attribute_names and not is_graph(attribute):
            known = ", ".join(sorted(own.attribute_names)) or "none"
            raise ModelError(f"{own.domain}::{own.name} has no attribute {attribute.name!r}; its attributes: {known}")


def _undeclared(op: str, version: int) -> ModelError:
    if version < min(declared_versions(op)):
        return ModelError(
            f"version {version} of {op} is older than this release reads",
            hint="convert the model by onnx.version_converter to opset 7 or later",
        )
    return ModelError(
        f"version {version} of {op} is newer than this release knows",
        hint=f"re-export the model with opset {NEWEST} or older",
    )


def _unknown(domain: str, op: str, opset: int) -> ModelError:
    if newest_opset(domain) is not None:
        return unknown(domain, op, opset)
    strings = domain == _EXTENSIONS or "Tokenize" in op
    hint = _OF_ONE_PROCESSOR if domain == _BLOCKED else _START_BEHIND if strings else GIVE_MEANING
    return ModelError(f"operation {domain}::{op} is not known", hint=hint)
