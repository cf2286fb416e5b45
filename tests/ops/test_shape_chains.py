"""The chains of shape arithmetic that exporters write, from Shape to the node that takes the result: dimensions stay named."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.ir.dims import minimum
from miniinfer_cli.ops import infer_graph
from miniinfer_cli.ops.inference import infer_outputs
from miniinfer_cli.ops.interpreter import interpret

B, S, H, W = (symbol(n) for n in ("batch", "seq", "height", "width"))


class Sketch:
    """A graph being written down: constants are given as Python lists of i64."""

    def __init__(self, *dims):
        self.graph = Graph("chain")
        self.x = self.graph.add_input("x", TensorType(DType.F32, dims))

    def add(self, op, *inputs, **attrs):
        operands = [self.graph.add_constant(np.array(i, np.int64)) if isinstance(i, (list, int)) else i for i in inputs]
        return self.graph.add(op, *operands, **attrs)

    def dim(self, value, axis):
        """Shape -> Gather, a scalar."""
        return self.add("Gather", self.add("Shape", value), axis, axis=0)

    def vector(self, *items):
        """Unsqueeze each scalar and Concat."""
        return self.add("Concat", *(i if isinstance(i, list) else self.add("Unsqueeze", i, [0]) for i in items), axis=0)

    def result(self, value):
        """The inferred type of ``value``."""
        self.graph.set_outputs([value])
        return infer_graph(self.graph, [self.x.type])[value]

    def check(self, value, expected):
        """The type is ``expected``, and the graph run on real sizes gives the shape that is inferred for them."""
        assert self.result(value) == TensorType(DType.F32, expected)
        sizes = {B: 2, S: 5, H: 9, W: 7}
        x = np.ones([sizes.get(d, d) for d in self.x.type.shape], np.float32)
        (type,) = infer_outputs(self.graph, [TensorType(DType.F32, x.shape)])
        (run,) = interpret(self.graph, [x])
        assert type == TensorType(DType.F32, run.shape)


def test_gather_unsqueeze_concat_reshape_splits_heads():
    sketch = Sketch(B, S, 768)
    batch, seq = sketch.dim(sketch.x, 0), sketch.dim(sketch.x, 1)
    heads = sketch.add("Reshape", sketch.x, sketch.vector(batch, seq, [12], [64]))
    split = sketch.add("Transpose", heads, perm=[0, 2, 1, 3])
    assert sketch.result(split) == TensorType(DType.F32, (B, 12, S, 64))
    width = sketch.add("Mul", sketch.dim(split, 1), sketch.dim(split, 3))
    merged = sketch.add("Reshape", sketch.add("Transpose", split, perm=[0, 2, 1, 3]), sketch.vector(batch, seq, width))
    sketch.check(merged, (B, S, 768))


def test_division_by_the_number_of_heads():
    sketch = Sketch(B, S, 768)
    depth = sketch.add("Div", sketch.dim(sketch.x, 2), 12)
    target = sketch.vector(sketch.dim(sketch.x, 0), [-1], [12], depth)
    sketch.check(sketch.add("Reshape", sketch.x, target), (B, S, 12, 64))


def test_slice_of_the_shape_concat_expand():
    sketch = Sketch(B, S, 16)
    lead = sketch.add("Slice", sketch.add("Shape", sketch.x), [0], [2], [0])
    row = sketch.add("Unsqueeze", sketch.add("ReduceMax", sketch.x, [0, 1], keepdims=0), [0, 1])
    sketch.check(sketch.add("Expand", row, sketch.add("Concat", lead, [16], axis=0)), (B, S, 16))


def test_minus_one_in_expand_is_replaced_by_one():
    sketch = Sketch(B, 1, S)
    rank = sketch.add("Shape", sketch.add("Shape", sketch.x))
    target = sketch.vector(sketch.dim(sketch.x, 0), sketch.dim(sketch.x, 2), [-1])
    ones = sketch.add("ConstantOfShape", rank, value=np.array([1], np.int64))
    replaced = sketch.add("Where", sketch.add("Equal", target, sketch.add("Mul", ones, -1)), ones, target)
    sketch.check(sketch.add("Expand", sketch.x, replaced), (B, S, S))


def test_positions_from_range():
    sketch = Sketch(B, S)
    positions = sketch.add("Range", 0, sketch.dim(sketch.x, 1), 1)
    row = sketch.add("Cast", sketch.add("Unsqueeze", positions, [0]), to=1)
    sketch.check(sketch.add("Expand", row, sketch.add("Shape", sketch.x)), (B, S))


def test_causal_mask_cut_from_a_table():
    sketch = Sketch(B, 12, S, S)
    table = sketch.graph.add_constant(np.tril(np.ones((1, 1, 32, 32), np.float32)))
    queries, keys = sketch.dim(sketch.x, 2), sketch.dim(sketch.x, 3)
    start = sketch.add("Unsqueeze", sketch.add("Sub", keys, queries), [0])
    rows = sketch.add("Slice", table, start, sketch.add("Unsqueeze", keys, [0]), [2], [1])
    mask = sketch.add("Slice", rows, [0], sketch.add("Unsqueeze", keys, [0]), [3], [1])
    assert sketch.result(mask) == TensorType(DType.F32, (1, 1, minimum(S, 32), minimum(S, 32)))
    sketch.check(sketch.add("Mul", sketch.x, mask), (B, 12, S, S))


def test_zeros_of_a_computed_shape():
    sketch = Sketch(B, S, 4)
    shape = sketch.vector(sketch.dim(sketch.x, 0), sketch.add("Add", sketch.dim(sketch.x, 1), 1), [4])
    sketch.check(sketch.add("ConstantOfShape", shape), (B, S + 1, 4))


def test_flatten_pixels_and_unflatten_by_what_is_left():
    sketch = Sketch(B, 8, H, W)
    target = sketch.add("Concat", sketch.add("Shape", sketch.x, start=0, end=2), [-1], axis=0)
    tokens = sketch.add("Transpose", sketch.add("Reshape", sketch.x, target), perm=[0, 2, 1])
    assert sketch.result(tokens) == TensorType(DType.F32, (B, H * W, 8))
    back = sketch.vector(sketch.dim(tokens, 0), [8], sketch.dim(sketch.x, 2), [-1])
    sketch.check(sketch.add("Reshape", sketch.add("Transpose", tokens, perm=[0, 2, 1]), back), (B, 8, H, W))


def test_resize_to_the_size_of_another():
    sketch = Sketch(B, 3, H, W)
    small = sketch.add("Slice", sketch.x, [0, 0], [2**31 - 1] * 2, [2, 3], [2, 2])
    size = sketch.add("Slice", sketch.add("Shape", sketch.x), [2], [4], [0])
    target = sketch.add("Concat", sketch.add("Slice", sketch.add("Shape", small), [0], [2], [0]), size, axis=0)
    sketch.check(sketch.graph.add("Resize", small, None, None, target, mode="linear"), (B, 3, H, W))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_shapes_survive_casts_and_scatter(dtype):
    sketch = Sketch(B, S, 4)
    cast = sketch.add("Cast", sketch.add("Shape", sketch.x), to=6 if dtype == "int32" else 7)
    shape = sketch.add("Cast", cast, to=7)
    written = sketch.add("ScatterND", shape, [[2]], [2])
    sketch.check(sketch.add("Slice", sketch.x, [0, 0, 0], written), (B, S, 2))
