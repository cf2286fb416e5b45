"""The adapter runs what the importer hands to it and nothing else, and nothing that reaches out of the plan."""

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper
from onnx.reference.ops import aionnx_preview, aionnx_preview_training, aionnxml, load_op

from miniinfer_cli import ops
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.onnx_import.constant_node import is_constant
from miniinfer_cli.onnx_import.registry import declared_versions
from miniinfer_cli.ops.adapted import ADAPTED
from miniinfer_cli.ops.entry import check_entering
from miniinfer_cli.ops.onnx_reference import adapter_attributes

U8 = TensorType(DType.U8, (4,))
LOADERS = {
    "": lambda domain, op, version: load_op(domain, op, version, evaluator_cls=onnx.reference.ReferenceEvaluator),
    "ai.onnx.ml": aionnxml.load_op,
    "ai.onnx.preview": aionnx_preview.load_op,
    "ai.onnx.preview.training": aionnx_preview_training.load_op,
}


def has_class(schema):
    try:
        return LOADERS[schema.domain](schema.domain, schema.name, schema.since_version) is not None
    except (NotImplementedError, RuntimeError, ValueError):
        return False


def test_the_list_is_what_the_importer_hands_over():
    """What onnx.reference has a class for, and nobody here reads or defines."""
    handed: dict[str, set[str]] = {}
    for schema in onnx.defs.get_all_schemas():
        if schema.domain not in LOADERS or ops.find(schema.domain, schema.name) is not None:
            continue
        read_here = not schema.domain and (
            bool(declared_versions(schema.name)) or is_constant(helper.make_node(schema.name, [], ["y"]))
        )
        if not read_here and has_class(schema):
            handed.setdefault(schema.domain, set()).add(schema.name)
    assert handed == {domain: set(names) for domain, names in ADAPTED.items()}


def entering(held, inputs=(U8,), outputs=(U8,), **changed):
    graph = Graph("g")
    attrs = {**adapter_attributes(held, {"": 21, "ai.onnx.ml": 3}, inputs, outputs), **changed}
    values = [graph.add_input(f"x{i}", t) for i, t in enumerate(inputs)]
    made = [graph.new_value(f"y{i}") for i in range(len(outputs))]
    check_entering(graph.add_node("OnnxReference", values, made, domain="miniinfer", name="n", attrs=attrs))


DECODER = helper.make_node("ImageDecoder", ["a"], ["b"])


def with_attribute(**fields):
    node = helper.make_node("StringNormalizer", ["a"], ["b"])
    node.attribute.append(onnx.AttributeProto(name="stopwords", **fields))
    return node


def external():
    tensor = TensorProto(name="v", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


REACHING_OUT = {
    "a tensor in a file": with_attribute(type=onnx.AttributeProto.TENSOR, t=external()),
    "one of several": with_attribute(type=onnx.AttributeProto.TENSORS, tensors=[TensorProto(), external()]),
    "sparse": with_attribute(type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=onnx.SparseTensorProto(values=external())),
    "a graph": with_attribute(type=onnx.AttributeProto.GRAPH, g=onnx.GraphProto()),
    "graphs": with_attribute(type=onnx.AttributeProto.GRAPHS, graphs=[onnx.GraphProto()]),
    "an attribute of a function": with_attribute(type=onnx.AttributeProto.STRINGS, ref_attr_name="other"),
    "a constant, which reads files": helper.make_node("Constant", [], ["b"], value=external()),
    "an operation of ours": helper.make_node("Relu", ["a"], ["b"]),
    "control flow": helper.make_node("Loop", ["a"], ["b"], body=onnx.GraphProto()),
    "an unknown domain": helper.make_node("ImageDecoder", ["a"], ["b"], domain="elsewhere"),
    "nothing": onnx.NodeProto(),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHING_OUT)
def test_what_reaches_out_of_the_plan_is_refused(case):
    with pytest.raises(ModelError, match=r"^node 'n': "):
        entering(REACHING_OUT[case])


def test_a_node_of_the_list_passes():
    entering(DECODER)


CHANGED = {
    "no node": ({"node": np.array([255, 255, 3], np.uint8)}, "no ONNX node"),
    "other operands": ({"node": np.frombuffer(DECODER.SerializeToString(), np.uint8)}, "has operands"),
    "types too few": ({"input_types": []}, "has operands"),
    "a type that is none": ({"output_types": ["f32[["]}, "is no type"),
    "versions too few": ({"opset_versions": [1]}, "opset versions"),
    "a version below 1": ({"opset_versions": [0, 21]}, "opset versions"),
    "its domain is missing": ({"opset_domains": ["a", "ai.onnx.ml"]}, "opset versions"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_attributes_that_do_not_belong_together(case):
    changed, message = CHANGED[case]
    with pytest.raises(ModelError, match=message):
        entering(DECODER, **changed)
