"""Which ONNX nodes the adapter around ``onnx.reference`` runs, and the check of one that a file brings.

The list holds what the importer hands to the adapter, and nothing else: a plan cannot ask for an operation that reads files,
calls functions or runs sub-graphs. A test holds the list and the importer together.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir.text_reader import parse_type
from miniinfer_cli.ops.work import NEVER, Attrs, Inputs, Outputs, elements

ADAPTED: Mapping[str, frozenset[str]] = {
    "": frozenset({
        "BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "ImageDecoder", "MelWeightMatrix", "RegexFullMatch", "STFT",
        "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    }),
    "ai.onnx.ml": frozenset({
        "ArrayFeatureExtractor", "Binarizer", "DictVectorizer", "FeatureVectorizer", "Imputer", "LabelEncoder",
        "LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder", "SVMClassifier", "SVMRegressor", "Scaler",
        "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
    }),
    "ai.onnx.preview.training": frozenset({"Adagrad", "Adam", "Momentum"}),
}  # fmt: skip
"""Operators by domain ("" is ai.onnx)."""


def check_adapted(attrs: Mapping[str, Any]) -> None:
    """Raises ModelError unless the attributes of an OnnxReference hold a node of the list, by itself.

    Its tensors are in it, it has no sub-graphs and no references to attributes of a function, its operands are called as the
    adapter calls them, and the types and opsets beside it can be read. ``onnx`` is imported for this.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        node = onnx.NodeProto.FromString(np.asarray(attrs["node"], np.uint8).tobytes())
    except DecodeError:
        raise ModelError("OnnxReference holds bytes that are no ONNX node") from None
    if node.op_type not in ADAPTED.get(node.domain, ()):
        raise ModelError(f"OnnxReference may not hold the operation {node.domain or 'ai.onnx'}::{node.op_type}")
    for attribute in node.attribute:
        if attribute.ref_attr_name or attribute.HasField("g") or attribute.graphs:
            raise ModelError(f"{node.op_type} attribute {attribute.name} is a sub-graph, or an attribute of a function")
        if any(_leads_out(t) for t in _tensors(attribute)):
            raise ModelError(f"{node.op_type} attribute {attribute.name} is a tensor that lies outside of the plan")
    types = attrs["input_types"], attrs["output_types"]
    _check_names(node.op_type, node.input, "i", len(types[0]), may_be_absent=True)
    _check_names(node.op_type, node.output, "o", len(types[1]), may_be_absent=False)
    for text in (*types[0], *types[1]):
        try:
            parse_type(text)
        except (ValueError, RecursionError):
            raise ModelError(f"{node.op_type}: {text[:60]!r} is no type") from None
    domains, versions = attrs["opset_domains"], attrs["opset_versions"]
    if len(domains) != len(versions) or node.domain not in domains or not all(0 < v < 2**31 for v in versions):
        raise ModelError(f"{node.op_type} has opset versions {list(versions)} for the domains {list(domains)}")


def adapted_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """The steps of an OnnxReference: loops in Python over what it reads, what it holds and what it gives, in whatever way.

    An n-gram may leave out any number of words. A tree may lead back to where it came from: it is walked in runs only.
    """
    import onnx

    held = np.asarray(attrs["node"], np.uint8)
    node = onnx.NodeProto.FromString(held.tobytes())
    if node.op_type.startswith("TreeEnsemble"):
        return NEVER
    read = sum(x.size if x.dtype != object else sum(len(item) + 1 for item in x.flat) for x in inputs if x is not None)
    times = math.prod(a.i + 1 for a in node.attribute if a.name in ("max_gram_length", "max_skip_count") and a.i > 0)
    each = 2000 if node.op_type.startswith("SVM") else 20  # a call for each row and vector
    result: int = each * (read + sum(elements(t) for t in outputs) + 1) * held.size * times
    return result


def _tensors(attribute: Any) -> Iterator[Any]:
    yield from (attribute.t, *attribute.tensors)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)


def _leads_out(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location != tensor.DEFAULT or tensor.HasField("segment")


def _check_names(op: str, names: Any, letter: str, count: int, *, may_be_absent: bool) -> None:
    expected = [f"{letter}{i}" for i in range(count)]
    fits = len(names) == count and all(n == e or (may_be_absent and not n) for n, e in zip(names, expected, strict=True))
    if not fits:
        raise ModelError(f"{op} has operands {list(names)[:8]}, expected {expected[:8]}")
