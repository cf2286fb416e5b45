"""No operation takes strings, complex numbers or fractions where ONNX does not: numpy would do something with them, or raise."""

import itertools
from collections.abc import Iterator

import onnx
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.ops.registry import OpDef, find

SHAPES = ((2, 3), (2,), (), (1, 3, 4, 4))
WORDS = {DType.STR: "tensor(string)", DType.C64: "tensor(complex64)", DType.F32: "tensor(float)"}
HARMLESS = {
    ("Equal", DType.C64): "numpy compares complex numbers",
    ("Compress", DType.F32): "what is not zero is true",
}


def cases() -> Iterator[tuple[str, int, DType]]:
    """Operation, number of the operand, and a type that ONNX does not list for it."""
    for schema in onnx.defs.get_all_schemas():
        if schema.domain or find("", schema.name) is None:
            continue
        for number, formal in enumerate(schema.inputs):
            for dtype, word in WORDS.items():
                tensors = any(t.startswith("tensor") for t in formal.types)
                if tensors and word not in formal.types and (schema.name, dtype) not in HARMLESS:
                    yield schema.name, number, dtype


def accepts(op: OpDef, schema: onnx.defs.OpSchema, number: int, dtype: DType) -> bool:
    """Whether the operation takes ``dtype`` for operand ``number``, and for those of the same type, in any of the shapes."""
    formals = [schema.inputs[min(i, len(schema.inputs) - 1)] for i in range(max(number + 1, schema.min_input))]
    of_node = schema.inputs[number].type_str

    def chosen(index: int) -> DType:
        types = formals[index].types
        if index == number or (formals[index].type_str == of_node and not of_node.startswith("tensor")):
            return dtype
        named = {"tensor(float)": DType.F32, "tensor(int64)": DType.I64, "tensor(bool)": DType.BOOL}
        return next((d for word, d in named.items() if word in types), DType.U8)

    for first, others in itertools.product(SHAPES, SHAPES):
        try:
            op.infer_types([TensorType(chosen(i), others if i else first) for i in range(len(formals))], {}, n_outputs=1)
        except ModelError:
            continue
        return True
    return False


def test_types_that_onnx_does_not_list_are_refused():
    taken = []
    for name, number, dtype in cases():
        op = find("", name)
        if op.graphs:  # needs its sub-graphs, and looks at types itself
            continue
        if accepts(op, onnx.defs.get_schema(name), number, dtype):
            taken.append((name, number, dtype))
    assert taken == []


@pytest.mark.parametrize(("name", "number", "dtype"), [("Add", 0, DType.F32), ("Gather", 1, DType.I64), ("Equal", 0, DType.C64)])
def test_types_that_are_taken_are_seen_to_be(name: str, number: int, dtype: DType):
    assert accepts(find("", name), onnx.defs.get_schema(name), number, dtype)
