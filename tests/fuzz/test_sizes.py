"""Random models that compute on sizes: short ones, 0 and bounds that cross give numpy's answer, on both backends and levels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.everywhere import outputs_everywhere
from tests.fuzz.opening import SCALE

SIZES = ((0, 0), (1, 3), (3, 1), (5, 2), (0, 6), (9, 9))
FAR = 2**62
MOST = 12  # elements of what sizes are made into
Feeds = Mapping[str, np.ndarray]
Draw = Callable[[Any], Any]


@dataclass(repr=False)
class Sketch:
    """A model being written, and beside it what each value is by numpy; sizes are i64[1], tensors f32 of one axis."""

    draw: Draw
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    meaning: dict[str, Callable[[Feeds], np.ndarray]] = field(default_factory=dict)
    sizes: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return onnx.printer.to_text(self.model([*self.sizes[2:], *self.tensors[2:]]))

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The model that gives ``outputs``."""
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [d]) for n, d in (("x", "N"), ("z", "M"))]
        values = [
            helper.make_tensor_value_info(name, TensorProto.INT64 if name in self.sizes else TensorProto.FLOAT, [f"?{name}"])
            for name in outputs
        ]
        graph = helper.make_graph(self.nodes, "g", inputs, values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def add(self, op: str, operands: list[str], meaning: Callable[..., Any], **attrs: Any) -> str:
        name = f"v{len(self.meaning)}"
        self.nodes.append(helper.make_node(op, operands, [name], **attrs))
        read = [self.meaning[o] for o in operands if o]
        self.meaning[name] = lambda feeds: np.asarray(meaning(*(r(feeds) for r in read)))
        return name

    def constant(self, *items: Any, dtype: Any = np.int64, scalar: bool = False) -> str:
        array = np.array(items[0] if scalar else items, dtype)
        return self.add("Constant", [], lambda: array, value=numpy_helper.from_array(array))

    def size(self) -> str:
        """A size that is there, or a number."""
        number = self.draw(st.integers(-4, 6))
        return self.draw(st.sampled_from(self.sizes)) if number < 3 else self.constant(self.draw(st.integers(-6, 9)))

    def count(self) -> str:
        """A size that a tensor may have."""
        low, high = self.constant(0, scalar=True), self.constant(MOST, scalar=True)
        return self.add("Clip", [self.size(), low, high], np.clip)

    def tensor(self) -> str:
        return self.draw(st.sampled_from(self.tensors))

    def cut(self, x: str) -> str:
        """A slice between sizes, or numbers, or the ends."""
        start, end = (self.draw(st.sampled_from([self.size(), self.constant(self.draw(BOUND))])) for _ in range(2))
        step = self.draw(st.sampled_from([1, 1, 1, 2, -1, -3]))
        operands = [x, start, end, self.constant(0), self.constant(step)]
        return self.add("Slice", operands, lambda x, s, e, a, p: x[positions(len(x), int(s[0]), int(e[0]), step)])

    def add_size(self) -> None:
        a, b = self.size(), self.size()
        divisor = self.draw(st.sampled_from([2, 3, -2]))
        choices: list[Callable[[], str]] = [
            lambda: self.add("Shape", [self.tensor()], np.shape),
            lambda: self.add("Add", [a, b], np.add),
            lambda: self.add("Sub", [a, b], np.subtract),
            lambda: self.add("Max", [a, b], np.maximum),
            lambda: self.add("Min", [a, b], np.minimum),
            lambda: self.add("Div", [a, self.constant(divisor)], lambda a, b: np.trunc(a / b).astype(np.int64)),
            lambda: self.add("Mod", [a, self.constant(divisor)], np.mod),
            lambda: self.add("Abs", [a], np.abs),
            lambda: self.add("Sign", [a], np.sign),
            lambda: self.add("Relu", [a], lambda a: np.maximum(a, 0)),
            lambda: self.add("Where", [self.question(), a, b], np.where),
            lambda: self.add("Cast", [self.question()], lambda c: c.astype(np.int64), to=TensorProto.INT64),
        ]
        self.sizes.append(self.draw(st.sampled_from(choices))())

    def question(self) -> str:
        op, meaning = self.draw(st.sampled_from(QUESTIONS))
        return self.add(op, [self.size(), self.size()], meaning)

    def add_tensor(self) -> None:
        choices = [
            self.sliced,
            self.sliced,
            self.zeros,
            self.counted,
            self.padded,
            self.joined,
            self.summed,
            self.chosen,
            self.tiled,
        ]
        self.tensors.append(self.draw(st.sampled_from(choices))())

    def sliced(self) -> str:
        return self.cut(self.tensor())

    def zeros(self) -> str:
        value = numpy_helper.from_array(np.array([2.5], np.float32))
        return self.add("ConstantOfShape", [self.count()], lambda n: np.full(n, 2.5, np.float32), value=value)

    def counted(self) -> str:
        step = self.draw(st.sampled_from([1, 2, -1]))
        axes = self.constant(0)
        first, last = (self.add("Squeeze", [n, axes], lambda n, a: n[0]) for n in (self.size(), self.count()))
        numbers = self.add("Range", [first, last, self.constant(step, scalar=True)], np.arange)
        return self.add("Cast", [numbers], lambda x: x.astype(np.float32), to=TensorProto.FLOAT)

    def padded(self) -> str:
        pads = self.add("Concat", [self.count(), self.count()], lambda *p: np.concatenate(p), axis=0)
        return self.add("Pad", [self.tensor(), pads], np.pad)

    def joined(self) -> str:
        return self.add("Concat", [self.tensor(), self.tensor()], lambda *x: np.concatenate(x), axis=0)

    def tiled(self) -> str:
        few = self.add("Min", [self.count(), self.constant(2)], np.minimum)
        return self.add("Tile", [self.tensor(), few], lambda x, n: np.tile(x, int(n[0])))

    def summed(self) -> str:
        """Two tensors added as far as both go."""
        a, b = self.tensor(), self.tensor()
        least = self.add("Min", [self.add("Shape", [x], np.shape) for x in (a, b)], np.minimum)
        zero = self.constant(0)
        parts = [self.add("Slice", [x, zero, least], lambda x, s, e: x[: int(e[0])]) for x in (a, b)]
        return self.add("Add", parts, np.add)

    def chosen(self) -> str:
        """One tensor or another, each made in its branch, as a question about sizes has it."""
        condition = self.add("Squeeze", [self.question(), self.constant(0)], lambda c, a: c[0])
        branches = []
        for number in range(2):
            inner = Sketch(self.draw, meaning=self.meaning, sizes=self.sizes, tensors=self.tensors)
            result = inner.draw(st.sampled_from([inner.sliced, inner.zeros, inner.padded]))()
            output = helper.make_tensor_value_info(result, TensorProto.FLOAT, [f"?{result}"])
            branches.append((helper.make_graph(inner.nodes, f"branch{number}", [], [output]), self.meaning[result]))
        (then, a), (other, b) = branches
        name = f"v{len(self.meaning)}"
        self.nodes.append(helper.make_node("If", [condition], [name], then_branch=then, else_branch=other))
        asked = self.meaning[condition]
        self.meaning[name] = lambda feeds: a(feeds) if asked(feeds) else b(feeds)
        return name


BOUND = st.one_of(st.integers(-6, 9), st.sampled_from([FAR, -FAR]))
QUESTIONS = (
    ("Equal", np.equal), ("Less", np.less), ("Greater", np.greater),
    ("LessOrEqual", np.less_equal), ("GreaterOrEqual", np.greater_equal),
)  # fmt: skip


def positions(size: int, start: int, end: int, step: int) -> list[int]:
    """Which elements ONNX's Slice takes: bounds counted from the end where they are negative, then kept within the axis."""
    first, last = (b + size if b < 0 else b for b in (start, end))
    if step > 0:
        return list(range(min(max(first, 0), size), min(max(last, 0), size), step))
    return list(range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step))


@st.composite
def sketches(draw: Draw) -> Sketch:
    sketch = Sketch(draw)
    for name in ("x", "z"):
        sketch.meaning[name] = lambda feeds, name=name: feeds[name]
        sketch.tensors.append(name)
        sketch.sizes.append(sketch.add("Shape", [name], np.shape))
    for is_size in draw(st.lists(st.booleans(), min_size=2, max_size=9)):
        (sketch.add_size if is_size else sketch.add_tensor)()
    return sketch


@pytest.mark.timeout(300 * SCALE)
@settings(max_examples=12 * SCALE, deadline=None, suppress_health_check=list(HealthCheck))
@given(sketches(), st.sampled_from([0, 0, 1]))
def test_sizes_are_numpys_at_every_size(sketch: Sketch, least: int):
    outputs = [*sketch.sizes[2:], *sketch.tensors[2:]]
    model = sketch.model(outputs)
    feeds = [
        {"x": np.arange(1, n + 1, dtype=np.float32), "z": np.arange(-1, -m - 1, -1, dtype=np.float32)}
        for n, m in SIZES
        if min(n, m) >= least
    ]
    options = {"min_shapes": {"x": (1,), "z": (1,)}} if least else {}
    for given_inputs, found in zip(feeds, outputs_everywhere(model, *feeds, **options), strict=True):
        for name in outputs:
            expected = sketch.meaning[name](given_inputs)
            np.testing.assert_array_equal(found[name], expected, err_msg=name, strict=True)
