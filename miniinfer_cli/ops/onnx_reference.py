"""OnnxReference: one ONNX node that has no definition here, run on the host by ``onnx.reference``.

It serves the leaf operations (strings, ai.onnx.ml, signal ...). The node's attributes, made by ``adapter_attributes``:

    node               the serialized NodeProto as u8 bytes, operands renamed to i0, i1 ... and o0, o1 ...
    opset_domains      the operator sets that the node is to be understood by,
    opset_versions     and the version of each
    input_types        the types of the operands when the model was read, as text (``f32[N,3]``, ``?`` where not known)
    output_types       the same for the outputs

``onnx`` is imported when such a node first runs, or when one is made; a plan without one never loads it.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, SequenceType, TensorType, Type, numpy_dtype
from miniinfer_cli.ir.dims import bind, names_in
from miniinfer_cli.ir.text_reader import parse_type
from miniinfer_cli.limits import Limits
from miniinfer_cli.ops.adapted import ADAPTED, adapted_work, check_adapted
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.type_merging import map_dims, substitute
from miniinfer_cli.shortage import memory_ran_out


def infer_onnx_reference(
    *inputs: Type | None,
    node: Array,
    opset_domains: Sequence[str],
    opset_versions: Sequence[int],
    input_types: Sequence[str],
    output_types: Sequence[str],
) -> tuple[Type | None, ...]:
    """The recorded output types, their named dimensions as the inputs now have them.

    A dimension whose name no input shows is UNKNOWN; so is every one when a size is another than recorded,
    or when one name stands for two.
    """
    bound: dict[str, Dim] = {}
    as_recorded = True
    for text, now in zip(input_types, inputs, strict=True):
        recorded = parse_type(text)
        if not isinstance(recorded, TensorType) or not isinstance(now, TensorType):
            continue
        if recorded.shape is None or now.shape is None or len(recorded.shape) != len(now.shape):
            as_recorded = as_recorded and recorded.shape is None
            continue
        as_recorded = bind(recorded.shape, now.shape, bound) is None and as_recorded

    def current(dim: Dim) -> Dim:
        return substitute(dim, bound) if as_recorded and names_in(dim) <= bound.keys() else UNKNOWN

    return tuple(map_dims(parse_type(text), current) for text in output_types)


def onnx_reference(
    *inputs: Any,
    node: Array,
    opset_domains: Sequence[str],
    opset_versions: Sequence[int],
    input_types: Sequence[str],
    output_types: Sequence[str],
    limits: Limits | None = None,
) -> tuple[Any, ...]:
    """Runs the node by ``onnx.reference``. Raises ModelError when that fails, with its words."""
    op = "the operation"
    try:
        evaluator, own = _kept_evaluator(np.asarray(node, np.uint8), tuple(opset_domains), tuple(opset_versions), limits)
        op = evaluator.nodes_[0].op_type
        if own is not None:
            results = own(*inputs)
        else:
            feeds = {f"i{index}": value for index, value in enumerate(inputs)}
            results = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names}, attributes={})
    except ImportError as error:
        if memory_ran_out(error):
            raise MemoryError(_first_line(error)) from error
        hint = "pip install 'miniinfer[host]' installs what operations of the host need"
        raise ModelError(f"{op} needs a package that is not installed: {_first_line(error)}", hint=hint) from error
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # code of others, and of the packages that it calls: it raises whatever it likes
        raise ModelError(f"{op} failed in onnx.reference: {_first_line(error)}") from error
    return tuple(_conform(value, _type_told(text)) for value, text in zip(results, output_types, strict=True))


def adapter_supports(domain: str, op: str, opset: int) -> bool:
    """Whether ``onnx.reference`` can run operation ``op`` of ``domain`` ("" is ai.onnx) as of version ``opset``."""
    import onnx

    if op not in ADAPTED.get(domain, ()):
        return False
    try:
        return onnx.defs.get_schema(op, opset, domain) is not None
    except onnx.defs.SchemaError:
        return False


def adapter_attributes(
    node: Any, opsets: Mapping[str, int], input_types: Sequence[Type | None], output_types: Sequence[Type | None]
) -> dict[str, Any]:
    """The attributes of the OnnxReference that stands for the NodeProto ``node``.

    ``opsets`` maps each domain the model imports to its version. The types are those of the node's inputs (None for one
    left out) and outputs as far as they are known.
    """
    renamed = type(node)()
    renamed.CopyFrom(node)
    renamed.ClearField("input")
    renamed.ClearField("output")
    renamed.input.extend(f"i{i}" if name else "" for i, name in enumerate(node.input))
    renamed.output.extend(f"o{i}" for i in range(len(output_types)))
    renamed.ClearField("doc_string")
    domains = sorted({"": 1, **opsets})
    return {
        "node": np.frombuffer(renamed.SerializeToString(deterministic=True), np.uint8),
        "opset_domains": domains,
        "opset_versions": [opsets.get(d, 1) for d in domains],
        "input_types": ["?" if t is None else str(t) for t in input_types],
        "output_types": ["?" if t is None else str(t) for t in output_types],
    }


_Evaluator = tuple[Any, Callable[..., Any] | None]
_KEPT: dict[Any, tuple["weakref.ref[Array]", _Evaluator]] = {}


def _kept_evaluator(node: Array, domains: tuple[str, ...], versions: tuple[int, ...], limits: Limits | None) -> _Evaluator:
    """The evaluator of ``_evaluator``, found by the array that a graph holds: its bytes may be millions."""
    key = (id(node), domains, versions, limits)
    of, kept = _KEPT.get(key, (None, None))
    if of is None or kept is None or of() is not node:
        kept = _evaluator(node.tobytes(), domains, versions, limits)
        _KEPT[key] = weakref.ref(node, lambda _: _KEPT.pop(key, None)), kept
    return kept


@lru_cache(maxsize=256)
def _evaluator(node: bytes, domains: tuple[str, ...], versions: tuple[int, ...], limits: Limits | None) -> _Evaluator:
    """An evaluator of a function that holds the one node; a function needs no types. And how to call an operation of ours.

    What the evaluator does around a node takes longer than a small operation, so those run without it.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    from miniinfer_cli.ops.guarded_references import guarded
    from miniinfer_cli.ops.mended_references import MENDED

    proto = onnx.NodeProto.FromString(node)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in zip(domains, versions, strict=True)]
    inputs = [name for name in proto.input if name]
    function = onnx.helper.make_function("miniinfer", "adapter", inputs, proto.output, [proto], imports)
    evaluator = ReferenceEvaluator(function, new_ops=[*guarded(limits or Limits()), *MENDED])
    (implementation,) = evaluator.rt_nodes_
    if not isinstance(implementation, MENDED):
        return evaluator, None
    attributes = {name: getattr(implementation, name) for name in implementation.attributes_names_}
    return evaluator, partial(implementation._run, **attributes)


@lru_cache(maxsize=1024)
def _type_told(text: str) -> Type | None:
    return parse_type(text)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _conform(value: Any, type: Type | None) -> Any:
    """A result as the host holds values: arrays of the promised element type, object arrays of str, lists, dicts."""
    if isinstance(value, (list, tuple)):
        element = type.element if isinstance(type, SequenceType) else None
        return [_conform(item, element) for item in value]
    if isinstance(value, dict):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(str).astype(object)
    if not isinstance(type, TensorType) or (array.dtype.kind == "f" and numpy_dtype(type.dtype).kind in "biu"):
        return array  # numbers are widened and rounded to the promised type, but no fraction is cut off
    return array.astype(numpy_dtype(type.dtype), copy=False)


ONNX_REFERENCE = define(
    "OnnxReference",
    domain=OURS,
    infer=infer_onnx_reference,
    reference=onnx_reference,
    check=check_adapted,
    work=adapted_work,
)
